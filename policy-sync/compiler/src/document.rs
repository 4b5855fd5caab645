//! Text to intent: documents in YAML or JSON, several a file, read whole with every value's line.
//!
//! Knows which keys a document has and who may write them. Never knows whether a name that is used exists.

mod inventory;
mod parts;
mod policy;

pub(crate) use policy::inline_service;

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_document::problems::Problems;
use fw_document::read::{self, Fields};
use fw_document::tree::{self, Entry, Node, Shown, Value};
use fw_document::within_limit;

use crate::diagnostic::{Findings, Place};
use crate::intent::Intent;
use crate::name::{Name, Owner, PROVIDER, Ref};

/// On whose behalf a document is handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// The provider's: may hand in everybody's documents.
    Provider,
    /// A tenant's: its own alone.
    Tenant(Name),
}

/// The text of one file.
#[derive(Debug, Clone)]
pub struct Source<'a> {
    /// What it is called in findings.
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
    /// Who hands it in.
    pub author: Author,
}

const KEYS: &[&str] = &[
    "tenant",
    "label-keys",
    "labels",
    "groups",
    "services",
    "policies",
    "tenants",
    "fact-keys",
    "segments",
    "workloads",
    "facts",
];
/// What a tenant may not write: who a NIC is and what was found out about it.
const PROVIDER_KEYS: &[&str] = &["tenants", "fact-keys", "segments", "workloads", "facts"];
/// Words that stand for something else where a tenant or a service is named.
const RESERVED: &[&str] = &[PROVIDER, "tcp", "udp", "icmp", "any", "usual"];

/// Reads every source; what is wrong goes to `findings`.
pub(crate) fn read(sources: &[Source<'_>], findings: &mut Findings) -> Intent {
    let mut intent =
        Intent { files: sources.iter().map(|source| Arc::from(source.name)).collect(), ..Intent::default() };
    for (file, source) in sources.iter().enumerate() {
        let mut problems = Problems::default();
        if let Err(error) = within_limit(source.text.len(), source.name) {
            findings.error(Place { file, line: 1 }, error.to_string());
            continue;
        }
        for document in tree::read_all(source.text, &mut problems).unwrap_or_default() {
            let mut reader =
                Reader { file, owner: Owner::Provider, intent: &mut intent, problems: &mut problems };
            reader.document(&document, &source.author);
        }
        let (list, more) = problems.into_list();
        for (line, message) in list {
            findings.error(Place { file, line }, message);
        }
        findings.add_untold(more);
    }
    intent
}

/// One document as it is read.
struct Reader<'a> {
    file: usize,
    owner: Owner,
    intent: &'a mut Intent,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    fn document(&mut self, node: &Node<'_>, author: &Author) {
        let Some(fields) = Fields::read(node, "a policy document", KEYS, self.problems) else { return };
        if !self.is_whose(&fields, author) {
            return;
        }
        if self.owner != Owner::Provider {
            for key in PROVIDER_KEYS.iter().filter(|key| fields.get(key).is_some()) {
                let line = fields.get(key).map_or(node.line, |node| node.line);
                self.problems.add(line, format!("`{key}` is the provider's to write; a tenant's document has tenant, label-keys, labels, groups, services, policies"));
            }
        }
        self.inventory(&fields);
        self.policy(&fields);
    }

    /// Takes the document's owner from its `tenant`; whether `author` may hand it in.
    fn is_whose(&mut self, fields: &Fields<'_, '_>, author: &Author) -> bool {
        let named = fields.get("tenant");
        let tenant = named.map(|node| self.name(node, "tenant"));
        self.owner = match tenant {
            Some(None) => return false,
            Some(Some(name)) => Owner::Tenant(name),
            None => Owner::Provider,
        };
        let line = named.map_or(fields.line, |node| node.line);
        let Author::Tenant(own) = author else { return true };
        if matches!(&self.owner, Owner::Tenant(name) if name == own) {
            return true;
        }
        self.problems.add(
            line,
            format!("`tenant`: this document is handed in by tenant `{own}`; expected `tenant: {own}`"),
        );
        false
    }

    fn place(&self, line: usize) -> Place {
        Place { file: self.file, line }
    }

    /// A name of usual length.
    fn name(&mut self, node: &Node<'_>, key: &str) -> Option<Name> {
        read::parsed(node, key, "a name", self.problems)
    }

    /// A name that stands before a colon, of at most `letters` letters.
    fn key(&mut self, entry: &Entry<'_>, letters: usize) -> Option<Name> {
        let name = Name::limited(&entry.key, letters);
        name.map_err(|error| self.problems.add(entry.line, Shown(&error.to_string()).to_string())).ok()
    }

    /// The entries of a mapping at `key`; none if it is not written.
    fn entries<'n, 't>(&mut self, fields: &Fields<'n, 't>, key: &str, example: &str) -> &'n [Entry<'t>] {
        let Some(node) = fields.get(key) else { return &[] };
        self.map(node, key, example)
    }

    fn map<'n, 't>(&mut self, node: &'n Node<'t>, key: &str, example: &str) -> &'n [Entry<'t>] {
        match &node.value {
            Value::Map(entries) => entries,
            Value::Nothing | Value::Plain(_) | Value::Quoted(_) | Value::List(_) => {
                self.problems
                    .add(node.line, format!("`{key}`: expected a mapping such as {example}, found {node}"));
                &[]
            }
        }
    }

    /// A group or service as it is named here: `web`, or another owner's as `shop/web`.
    fn reference(&mut self, node: &Node<'_>, key: &str, what: &str) -> Option<Ref> {
        let Some(text) = read::text(node) else {
            self.problems.add(node.line, format!("`{key}`: expected {what}, found {node}"));
            return None;
        };
        let found = reference(text, &self.owner);
        if found.is_none() {
            self.problems.add(node.line, format!("`{key}`: expected {what}, found {node}"));
        }
        found
    }

    /// Whether `name` is free for a thing of kind `what`; a finding if it is reserved.
    fn is_free(&mut self, name: &Name, what: &str, line: usize) -> bool {
        let is_reserved = RESERVED.contains(&name.as_str());
        if is_reserved {
            self.problems.add(
                line,
                format!("no {what} may be called `{name}`: the word means something else in rules"),
            );
        }
        !is_reserved
    }
}

fn reference(text: &str, owner: &Owner) -> Option<Ref> {
    let Some((whose, name)) = text.split_once('/') else {
        return Some(Ref { owner: owner.clone(), name: text.parse().ok()? });
    };
    let owner = if whose == PROVIDER { Owner::Provider } else { Owner::Tenant(whose.parse().ok()?) };
    Some(Ref { owner, name: name.parse().ok()? })
}

/// Puts `value` into `map`, or says that its name is taken. `shown` says where the first one stands.
fn insert<K: Ord, V>(
    map: &mut BTreeMap<K, V>,
    key: K,
    value: V,
    shown: impl FnOnce(&V) -> String,
) -> Result<(), String> {
    match map.get(&key) {
        Some(first) => Err(shown(first)),
        None => {
            map.insert(key, value);
            Ok(())
        }
    }
}
