//! A rules file, read whole or refused whole.
//!
//! Text becomes a tree of values with their lines, the tree becomes a rule set, and whatever is wrong is told at
//! once. Knows files and the wall clock, which turns `expires_at` into a remaining life. Never knows frames.

mod bounds;
mod nic;
mod rule;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fw_engine::{Matcher, RuleSetError};
use fw_model::{AddressSet, Cidr, Defaults, Member, RemoteMatch, Rule, RuleSet, SetName, Timers};

use crate::document::problems::Problems;
use crate::document::read::{self, Fields};
use crate::document::tree::{self, Node, Shown, Value};
use crate::document::{text_of, within_limit};

/// Why a rules file is refused as a whole: one line per problem, each with file and line number.
pub use crate::document::DocumentError as RulesFileError;

const KEYS: &[&str] = &["generation", "nic", "defaults", "address-sets", "rules", "timers", "limits"];

/// Reads a rules file. Without a `generation` of its own it gets the one after `previous`.
///
/// # Errors
/// All that is wrong with it, as far as it could be read.
pub fn load(path: &Path, previous: u64) -> Result<RuleSet, RulesFileError> {
    let name = path.display().to_string();
    parse(&text_of(path, &name)?, &name, previous)
}

/// As [`load`], ready for the engine.
///
/// # Errors
/// As [`load`].
pub fn load_matcher(path: &Path, previous: u64) -> Result<Arc<Matcher>, RulesFileError> {
    let name = path.display().to_string();
    let text = text_of(path, &name)?;
    let (rules, lines) = read_rules(&text, &name, previous, SystemTime::now())?;
    Matcher::new(rules).map(Arc::new).map_err(|error| lines.place(error, &name))
}

/// Reads the text of a rules file; `name` stands for it in errors.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, name: &str, previous: u64) -> Result<RuleSet, RulesFileError> {
    let (rules, lines) = read_rules(text, name, previous, SystemTime::now())?;
    Matcher::new(rules).map(|matcher| matcher.rules().clone()).map_err(|error| lines.place(error, name))
}

fn read_rules(
    text: &str,
    name: &str,
    previous: u64,
    now: SystemTime,
) -> Result<(RuleSet, Lines), RulesFileError> {
    let mut problems = Problems::default();
    within_limit(text.len(), name)?;
    let mut lines = Lines::default();
    let rules = tree::read(text, &mut problems)
        .and_then(|document| document_rules(&document, previous, now, &mut lines, &mut problems));
    match rules {
        Some(rules) if problems.is_empty() => Ok((rules, lines)),
        _ => Err(problems.into_error(name)),
    }
}

fn document_rules(
    document: &Node<'_>,
    previous: u64,
    now: SystemTime,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Option<RuleSet> {
    let fields = Fields::read(document, "a rules file", KEYS, problems)?;
    for key in KEYS {
        lines.sections.extend(fields.get(key).map(|node| ((*key).to_owned(), node.line)));
    }
    let next = Some(previous.saturating_add(1));
    let generation =
        fields.get("generation").map_or(next, |node| read::number(node, "generation", 0, u64::MAX, problems));
    let nic = fields.need("nic", problems).and_then(|node| nic::identity(node, problems));
    let defaults = fields.need("defaults", problems).and_then(|node| defaults(node, problems));
    let address_sets =
        fields.get("address-sets").map_or_else(|| Some(BTreeMap::new()), |node| sets(node, lines, problems));
    let rules =
        fields.get("rules").map_or_else(|| Some(Vec::new()), |node| rules(node, now, lines, problems));
    if let (Some(sets), Some(rules), Some(node)) = (&address_sets, &rules, fields.get("rules")) {
        report_unknown_sets(node, rules, sets, problems);
    }
    let timers = fields.get("timers").map_or(Some(Timers::DEFAULT), |node| bounds::timers(node, problems));
    let limits = fields.get("limits").map_or(Some(bounds::UNLIMITED), |node| bounds::limits(node, problems));
    Some(RuleSet {
        generation: generation?,
        nic: nic?,
        defaults: defaults?,
        address_sets: address_sets?,
        rules: rules?,
        timers: timers?,
        limits: limits?,
    })
}

fn defaults(node: &Node<'_>, problems: &mut Problems) -> Option<Defaults> {
    let fields = Fields::read(node, "defaults", &["out", "in"], problems)?;
    let mut of = |key| {
        let node = fields.need(key, problems)?;
        read::word(node, key, rule::DEFAULTS, problems)
    };
    let (out, in_) = (of("out"), of("in"));
    Some(Defaults { out: out?, in_: in_? })
}

fn sets(
    node: &Node<'_>,
    lines: &mut Lines,
    problems: &mut Problems,
) -> Option<BTreeMap<SetName, Arc<AddressSet>>> {
    let Value::Map(entries) = &node.value else {
        problems
            .add(node.line, format!("`address-sets`: expected a mapping of names to lists, found {node}"));
        return None;
    };
    let mut sets = BTreeMap::new();
    for entry in entries {
        let name = entry.key.parse::<SetName>();
        let members = members(&entry.value, problems);
        match (name, members) {
            (Ok(name), Some(members)) => {
                lines.sets.insert(name.to_string(), entry.line);
                sets.insert(name, Arc::new(AddressSet { members }));
            }
            (Err(error), _) => {
                problems.add(entry.line, format!("`address-sets`: {}", Shown(&error.to_string())))
            }
            (Ok(_), None) => {}
        }
    }
    (sets.len() == entries.len()).then_some(sets)
}

fn members(node: &Node<'_>, problems: &mut Problems) -> Option<Vec<Member>> {
    let items =
        read::list(node, "address-sets", "[198.51.100.0/24, {address: 10.0.0.20, mac: …}]", problems)?;
    nic::each(items, |item| {
        if let Value::Map(_) = item.value {
            let bound = nic::binding(item, problems)?;
            return Some(Member { prefix: Cidr::host(bound.address), mac: Some(bound.mac) });
        }
        let prefix = read::parsed(item, "address-sets", "an address, a prefix or {address, mac}", problems)?;
        Some(Member { prefix, mac: None })
    })
}

fn rules(node: &Node<'_>, now: SystemTime, lines: &mut Lines, problems: &mut Problems) -> Option<Vec<Rule>> {
    let items = read::list(node, "rules", "[{id: web, direction: in, action: allow}]", problems)?;
    nic::each(items, |item| {
        let rule = rule::rule(item, now, problems)?;
        if let Some(first) = lines.rules.insert(rule.id.to_string(), item.line) {
            problems
                .add(item.line, format!("two rules have the id `{}`; the first is on line {first}", rule.id));
        }
        Some(rule)
    })
}

/// A reference to a set that is not there, told with its own line and the nearest name.
fn report_unknown_sets(
    node: &Node<'_>,
    rules: &[Rule],
    sets: &BTreeMap<SetName, Arc<AddressSet>>,
    problems: &mut Problems,
) {
    let Value::List(items) = &node.value else { return };
    let names: Vec<String> = sets.keys().map(ToString::to_string).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (item, rule) in items.iter().zip(rules) {
        if problems.is_full() {
            break;
        }
        for remote in rule.remote.iter().chain(&rule.reply_from) {
            let RemoteMatch::Set(name) = remote else { continue };
            if !sets.contains_key(name) {
                let nearest = read::suggestion(&name.to_string(), &names);
                problems
                    .add(item.line, format!("rule `{}`: no address set is named `{name}`{nearest}", rule.id));
            }
        }
    }
}

/// Where things stand in the file, for what is found wrong when the tree is gone.
#[derive(Debug, Default)]
struct Lines {
    sections: HashMap<String, usize>,
    sets: HashMap<String, usize>,
    rules: HashMap<String, usize>,
}

impl Lines {
    /// The matcher's refusal with the line of the rule, set or section it names.
    fn place(&self, error: RuleSetError, file: &str) -> RulesFileError {
        let named = |kind: &str| error.place.strip_prefix(kind)?.strip_prefix(" `")?.strip_suffix('`');
        let line = named("rule")
            .and_then(|id| self.rules.get(id))
            .or_else(|| self.sets.get(named("address set")?))
            .or_else(|| self.sections.get(error.place.split(['.', ' ', ':']).next()?));
        let mut problems = Problems::default();
        problems.add(line.copied().unwrap_or(1), error.to_string());
        problems.into_error(file)
    }
}

#[cfg(test)]
mod tests;
