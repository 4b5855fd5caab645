//! Groups in groups.
//!
//! Knows which group names which. Never knows members.

use std::collections::{BTreeMap, BTreeSet};

use crate::group::Group;
use crate::name::Ref;

/// The groups that `group` counts in or leaves out.
pub(crate) fn nested(group: &Group) -> impl Iterator<Item = &Ref> {
    group.include.groups.iter().chain(&group.exclude.groups).map(|nested| &nested.value)
}

/// Groups in an order in which each stands after those it nests.
pub(crate) fn nested_first(groups: &BTreeMap<Ref, Group>) -> Vec<&Ref> {
    let mut entered: BTreeSet<&Ref> = BTreeSet::new();
    let mut order = Vec::with_capacity(groups.len());
    for start in groups.keys() {
        let mut path = Vec::new();
        if entered.insert(start) {
            path.push((start, children(groups, start)));
        }
        while let Some((group, rest)) = path.last_mut() {
            match rest.pop() {
                Some(next) if entered.insert(next) => path.push((next, children(groups, next))),
                Some(_) => {}
                None => {
                    order.push(*group);
                    path.pop();
                }
            }
        }
    }
    order
}

fn children<'g>(groups: &'g BTreeMap<Ref, Group>, group: &Ref) -> Vec<&'g Ref> {
    groups.get(group).map(|group| nested(group).collect()).unwrap_or_default()
}
