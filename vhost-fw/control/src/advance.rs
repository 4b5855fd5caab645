//! What the control plane sends a NIC: rules of a higher generation, whole or as a change to what is in force.
//!
//! Values, and what a change makes of a set. It may know the nouns of `fw-model`. It must never know what is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_model::{AddressSet, Member, RuleSet, SetName};
use serde::{Deserialize, Serialize};

/// Rules from the control plane. Their generation is higher than the one in force, or they are refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Advance {
    /// All of it.
    Whole(Box<RuleSet>),
    /// The sets that changed, and how; rules, identity and limits stay.
    Sets(SetsChange),
}

/// How address sets changed from one generation to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetsChange {
    /// The generation this is a change to: the one in force, or the change is refused.
    pub base: u64,
    /// The generation it makes.
    pub generation: u64,
    /// By set, what came and went.
    pub sets: BTreeMap<SetName, SetChange>,
}

/// How one address set changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetChange {
    /// Members that are new.
    pub added: Vec<Member>,
    /// Members that are gone.
    pub removed: Vec<Member>,
}

/// Why a change does not fit what it is made to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// It was made to another generation.
    Base {
        /// The generation it was made to.
        wanted: u64,
        /// The generation there is.
        found: u64,
    },
    /// No rule names this set.
    UnknownSet(SetName),
    /// It takes from this set who is not in it, or adds who is.
    Members(SetName),
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Base { wanted, found } => {
                write!(f, "a change to generation {wanted}, and {found} is in force: send all of it")
            }
            Self::UnknownSet(name) => write!(f, "there is no address set `{name}` to change: send all of it"),
            Self::Members(name) => {
                write!(f, "the change to address set `{name}` does not fit its members: send all of it")
            }
        }
    }
}

impl std::error::Error for Misfit {}

impl SetsChange {
    /// What this change makes of `rules`. Sets that it does not name are shared, not copied.
    ///
    /// # Errors
    /// It does not fit; then nothing of it is done.
    pub fn onto(&self, mut rules: RuleSet) -> Result<RuleSet, Misfit> {
        if rules.generation != self.base {
            return Err(Misfit::Base { wanted: self.base, found: rules.generation });
        }
        for (name, change) in &self.sets {
            let Some(set) = rules.address_sets.get_mut(name) else {
                return Err(Misfit::UnknownSet(name.clone()));
            };
            *set = Arc::new(change.onto(set).ok_or_else(|| Misfit::Members(name.clone()))?);
        }
        rules.generation = self.generation;
        Ok(rules)
    }
}

/// Lets `ms` milliseconds of its life pass for every rule that expires, wherever rules lay or travelled so long.
pub fn age(rules: &mut RuleSet, ms: u64) {
    for rule in &mut rules.rules {
        rule.expires_in_ms = rule.expires_in_ms.map(|left| left.saturating_sub(ms));
    }
}

impl SetChange {
    /// The way from `before` to `after`; both are in order and say nothing twice.
    #[must_use]
    pub fn between(before: &AddressSet, after: &AddressSet) -> Self {
        let without = |from: &AddressSet, other: &AddressSet| {
            let mut sorted = other.members.clone();
            sorted.sort_unstable();
            from.members.iter().filter(|member| sorted.binary_search(member).is_err()).copied().collect()
        };
        Self { added: without(after, before), removed: without(before, after) }
    }

    /// What it makes of `set`, in order; `None` if it does not fit.
    #[must_use]
    pub fn onto(&self, set: &AddressSet) -> Option<AddressSet> {
        let mut removed = self.removed.clone();
        removed.sort_unstable();
        let before = set.members.len();
        let mut members: Vec<Member> =
            set.members.iter().filter(|member| removed.binary_search(member).is_err()).copied().collect();
        if before - members.len() != removed.len() {
            return None;
        }
        members.extend(&self.added);
        members.sort_unstable();
        let length = members.len();
        members.dedup();
        (members.len() == length).then_some(AddressSet { members })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(addresses: &[&str]) -> AddressSet {
        let member = |text: &&str| Member { prefix: text.parse().unwrap(), mac: None };
        AddressSet { members: addresses.iter().map(member).collect() }
    }

    #[test]
    fn a_change_leads_from_one_set_to_the_other() {
        let before = set(&["10.0.0.1", "10.0.0.2", "10.0.1.0/24"]);
        let after = set(&["10.0.0.2", "10.0.0.9", "10.0.1.0/24"]);
        let change = SetChange::between(&before, &after);
        assert_eq!((change.added.len(), change.removed.len()), (1, 1), "only what differs travels");
        let mut expected = after.clone();
        expected.members.sort_unstable();
        assert_eq!(change.onto(&before), Some(expected));
    }

    #[test]
    fn a_change_that_does_not_fit_is_no_change() {
        let change = SetChange::between(&set(&["10.0.0.1"]), &set(&["10.0.0.2"]));
        assert_eq!(change.onto(&set(&["10.0.0.3"])), None, "it takes who is not there");
        assert_eq!(change.onto(&set(&["10.0.0.1", "10.0.0.2"])), None, "it adds who is there");
    }
}
