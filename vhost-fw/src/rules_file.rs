//! A rules file, read whole or refused whole.
//!
//! Text becomes a tree of values with their lines, the tree becomes a rule set, and whatever is wrong is told at
//! once. Knows files and the wall clock, which turns `expires_at` into a remaining life. Never knows frames.

mod bounds;
mod rule;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fw_engine::{PreparedRules, RuleSetError};
use fw_model::{Addr, AddressSet, Cidr, Defaults, Member, Rule, RuleSet, SetName, Timers};

use fw_document::nic;
use fw_document::problems::Problems;
use fw_document::read::{self, Fields};
use fw_document::tree::{self, Node, Shown, Value};
use fw_document::{text_of, within_limit};

/// Why a rules file is refused as a whole: one line per problem, each with file and line number.
pub use fw_document::DocumentError as RulesFileError;

const KEYS: &[&str] = &["generation", "nic", "defaults", "address-sets", "rules", "timers", "limits"];

/// Reads a rules file. Without a `generation` of its own it gets the one after `previous`.
///
/// # Errors
/// All that is wrong with it, as far as it could be read.
pub fn load(path: &Path, previous: u64) -> Result<RuleSet, RulesFileError> {
    let name = path.display().to_string();
    parse(&text_of(File::open(path), &name)?, &name, previous)
}

/// As [`load`], ready for the engine.
///
/// # Errors
/// As [`load`].
pub fn load_prepared(path: &Path, previous: u64) -> Result<Arc<PreparedRules>, RulesFileError> {
    let rules = load(path, previous)?;
    let refused = |error| Lines::default().place(vec![error], &path.display().to_string());
    PreparedRules::new(rules).map(Arc::new).map_err(refused)
}

/// Reads the text of a rules file; `name` stands for it in errors.
///
/// # Errors
/// As [`load`].
pub fn parse(text: &str, name: &str, previous: u64) -> Result<RuleSet, RulesFileError> {
    let (rules, lines) = read_rules(text, name, previous, SystemTime::now())?;
    let findings = PreparedRules::check(&rules);
    if findings.is_empty() { Ok(rules) } else { Err(lines.place(findings, name)) }
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
        let members = members(&entry.value, lines, problems);
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

fn members(node: &Node<'_>, lines: &mut Lines, problems: &mut Problems) -> Option<Vec<Member>> {
    let items =
        read::list(node, "address-sets", "[198.51.100.0/24, {address: 10.0.0.20, mac: …}]", problems)?;
    nic::each(items, |item| {
        if let Value::Map(_) = item.value {
            let bound = nic::binding(item, problems)?;
            lines.bound.insert(bound.address, item.line);
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
        lines.rules.insert(rule.id.to_string(), RuleLines::of(item));
        Some(rule)
    })
}

/// Where things stand in the file, for what is found wrong when the tree is gone.
#[derive(Debug, Default)]
struct Lines {
    sections: HashMap<String, usize>,
    sets: HashMap<String, usize>,
    /// Set members with a MAC address, the last of each address.
    bound: HashMap<Addr, usize>,
    /// The last rule of each id.
    rules: HashMap<String, RuleLines>,
}

#[derive(Debug)]
struct RuleLines {
    line: usize,
    fields: Vec<(String, usize)>,
}

impl RuleLines {
    fn of(item: &Node<'_>) -> Self {
        let mut fields = Vec::new();
        if let Value::Map(entries) = &item.value {
            fields.extend(entries.iter().map(|entry| (entry.key.to_string(), entry.line)));
        }
        Self { line: item.line, fields }
    }
}

impl Lines {
    /// The engine's findings, each with the line of what it names.
    fn place(&self, findings: Vec<RuleSetError>, file: &str) -> RulesFileError {
        let mut problems = Problems::default();
        for finding in findings {
            problems.add(self.line_of(&finding.place).unwrap_or(1), Shown(&finding.to_string()).to_string());
        }
        problems.into_error(file)
    }

    /// Places are written "rule `id`: field", "address set `name`", "address 10.0.0.1" or "section: field".
    fn line_of(&self, place: &str) -> Option<usize> {
        if let Some(rule) = place.strip_prefix("rule `") {
            let (id, field) = rule.split_once("`: ").or_else(|| Some((rule.strip_suffix('`')?, "")))?;
            let lines = self.rules.get(id)?;
            let field = lines.fields.iter().find(|(key, _)| key == field);
            return Some(field.map_or(lines.line, |(_, line)| *line));
        }
        if let Some(set) = place.strip_prefix("address set `") {
            return self.sets.get(set.split_once('`')?.0).copied();
        }
        if let Some(address) = place.strip_prefix("address ") {
            return self.bound.get(&address.parse().ok()?).or_else(|| self.sections.get("nic")).copied();
        }
        self.sections.get(place.split(':').next()?).copied()
    }
}

#[cfg(test)]
mod tests;
