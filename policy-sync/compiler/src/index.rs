//! Which rules could concern a NIC, without asking every rule.
//!
//! Knows which groups rules name. Never knows what a rule does.

use std::collections::{BTreeMap, BTreeSet};

use fw_model::Direction;

use crate::form::SharedForm;
use crate::membership::Groups;
use crate::name::Owner;
use crate::order::{SharedRule, Side};
use crate::sets::HeldNic;

/// A rule, and the direction in which it would stand at the NIC.
type Touch = (usize, Direction);

/// Rules by whom they name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Index {
    by_group: BTreeMap<usize, Vec<Touch>>,
    /// Groups with ranges that rules name.
    ranged: BTreeSet<usize>,
    /// Rules for anyone, for addresses and for equals, by owner.
    open: BTreeMap<Owner, Vec<Touch>>,
}

impl Index {
    pub(crate) fn new(rules: &[SharedRule], groups: &Groups) -> Self {
        let mut index = Self::default();
        for (place, rule) in rules.iter().enumerate() {
            for (side, direction) in [(&rule.from, Direction::Out), (&rule.to, Direction::In)] {
                index.add(side, (place, direction), &rule.policy.owner, groups);
            }
        }
        index
    }

    fn add(&mut self, side: &Side, touch: Touch, owner: &Owner, groups: &Groups) {
        let is_open = match side {
            Side::Any | Side::Same(_) => true,
            Side::These { groups: numbers, prefixes } => {
                for number in numbers {
                    self.by_group.entry(*number).or_default().push(touch);
                    if groups.get(*number).is_some_and(|group| group.is_ranged) {
                        self.ranged.insert(*number);
                    }
                }
                !prefixes.is_empty()
            }
        };
        if is_open {
            self.open.entry(owner.clone()).or_default().push(touch);
        }
    }

    /// Every group that rules name.
    pub(crate) fn groups(&self) -> impl Iterator<Item = usize> + '_ {
        self.by_group.keys().copied()
    }

    /// The rules that name a group, with the direction at its members.
    pub(crate) fn naming(&self, group: usize) -> &[Touch] {
        self.by_group.get(&group).map_or(&[], Vec::as_slice)
    }

    /// In order, those for frames from the guest first; some may turn out not to concern the NIC.
    pub(crate) fn touching(
        &self,
        form: &SharedForm,
        workload: usize,
        held: &HeldNic,
        tenant: &Owner,
    ) -> Vec<Touch> {
        let mut touches: Vec<Touch> = Vec::new();
        for owner in [&Owner::Provider, tenant] {
            touches.extend(self.open.get(owner).into_iter().flatten());
        }
        for group in form.groups().of(workload) {
            touches.extend(self.naming(*group));
        }
        for group in &self.ranged {
            let met =
                |prefixes: &crate::ranges::Prefixes| held.addresses().any(|address| prefixes.meet(address));
            if form.all_sets().ranged(*group, &held.realm).is_some_and(met) {
                touches.extend(self.naming(*group));
            }
        }
        touches.sort_unstable_by_key(|(rule, direction)| (*rule, *direction == Direction::In));
        touches.dedup();
        touches
    }
}
