//! What another policy would change, NIC by NIC.
//!
//! Knows two compiled policies. Never knows which of them is enforced.

use std::collections::{BTreeMap, BTreeSet};

use fw_model::{AddressSet, Member, NicId, Rule, RuleSet, SetName};

use crate::form::SharedForm;
use crate::sets::SetDelta;

/// What becomes of one rule of a NIC.
#[derive(Debug, Clone, PartialEq)]
pub enum RuleChange {
    /// It comes.
    Added(Rule),
    /// It goes.
    Removed(Rule),
    /// It stays and says something else.
    Altered {
        /// As it was.
        old: Rule,
        /// As it will be.
        new: Rule,
    },
    /// It stays and is asked at another place among those that stay.
    Moved(Rule),
}

/// What changes for one NIC.
#[derive(Debug, Clone, PartialEq)]
pub enum NicDiff {
    /// It was not there.
    Added(Box<RuleSet>),
    /// It is there no more.
    Removed,
    /// It sees something else.
    Changed {
        /// Whether who it is changes: its conns are closed.
        identity: bool,
        /// Its rules.
        rules: Vec<RuleChange>,
        /// Its sets; those that come or go whole are listed with all their members.
        sets: Vec<SetDelta>,
    },
}

/// By NIC; those that see no change are left out.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyDiff {
    /// What changes.
    pub nics: BTreeMap<NicId, NicDiff>,
}

impl PolicyDiff {
    /// What `new` changes, at `now_ms`.
    #[must_use]
    pub fn between(old: &SharedForm, new: &SharedForm, now_ms: i64) -> Self {
        let ids: BTreeSet<&NicId> = old.nics().chain(new.nics()).collect();
        let mut nics = BTreeMap::new();
        for id in ids {
            let diff = match (old.rules_of(id, now_ms), new.rules_of(id, now_ms)) {
                (None, Some(new)) => Some(NicDiff::Added(Box::new(new))),
                (Some(_), None) => Some(NicDiff::Removed),
                (Some(old), Some(new)) => changed(&old, &new),
                (None, None) => None,
            };
            nics.extend(diff.map(|diff| (id.clone(), diff)));
        }
        Self { nics }
    }
}

fn changed(old: &RuleSet, new: &RuleSet) -> Option<NicDiff> {
    let (identity, rules, sets) =
        (old.nic != new.nic, rule_changes(&old.rules, &new.rules), set_changes(old, new));
    let is_same = !identity && rules.is_empty() && sets.is_empty();
    (!is_same).then_some(NicDiff::Changed { identity, rules, sets })
}

fn rule_changes(old: &[Rule], new: &[Rule]) -> Vec<RuleChange> {
    let by_id =
        |rules: &[Rule]| rules.iter().map(|rule| (rule.id.clone(), rule.clone())).collect::<BTreeMap<_, _>>();
    let (before, after) = (by_id(old), by_id(new));
    let mut changes = Vec::new();
    changes.extend(old.iter().filter(|rule| !after.contains_key(&rule.id)).cloned().map(RuleChange::Removed));
    for rule in new {
        match before.get(&rule.id) {
            None => changes.push(RuleChange::Added(rule.clone())),
            Some(old) if old != rule => {
                changes.push(RuleChange::Altered { old: old.clone(), new: rule.clone() })
            }
            Some(_) => {}
        }
    }
    let stayed = |rules: &[Rule], others: &BTreeMap<_, Rule>| {
        rules
            .iter()
            .filter(|rule| others.contains_key(&rule.id))
            .map(|rule| rule.id.clone())
            .collect::<Vec<_>>()
    };
    let (was, is) = (stayed(old, &after), stayed(new, &before));
    let moved = was.iter().zip(&is).filter(|(was, is)| was != is).filter_map(|(_, is)| after.get(is));
    changes.extend(moved.cloned().map(RuleChange::Moved));
    changes
}

fn set_changes(old: &RuleSet, new: &RuleSet) -> Vec<SetDelta> {
    let names: BTreeSet<&SetName> = old.address_sets.keys().chain(new.address_sets.keys()).collect();
    let members = |rules: &RuleSet, name: &SetName| -> BTreeSet<Member> {
        let of = |set: &AddressSet| set.members.iter().copied().collect();
        rules.address_sets.get(name).map(|set| of(set)).unwrap_or_default()
    };
    let mut changes = Vec::new();
    for name in names {
        let (before, after) = (members(old, name), members(new, name));
        let added: Vec<Member> = after.difference(&before).copied().collect();
        let removed: Vec<Member> = before.difference(&after).copied().collect();
        if !added.is_empty() || !removed.is_empty() {
            changes.push(SetDelta { set: name.clone(), added, removed });
        }
    }
    changes
}
