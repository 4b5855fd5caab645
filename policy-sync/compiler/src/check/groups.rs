//! Are groups' members, selectors and nesting sound?
//!
//! Knows who may pick whom. Never knows rules.

use std::collections::BTreeMap;

use super::Checker;
use crate::group::{Condition, Field, Parts, Share};
use crate::name::{Name, Owner, Ref};
use crate::nesting::nested;

impl Checker<'_> {
    pub(super) fn groups(&mut self) {
        for (key, group) in &self.intent.groups {
            for parts in [&group.include, &group.exclude] {
                self.parts(parts, &key.owner);
            }
            if let Share::Tenants(tenants) = &group.share {
                for tenant in tenants {
                    self.tenant(&tenant.value, tenant.place);
                }
            }
        }
        self.cycles();
    }

    fn parts(&mut self, parts: &Parts, owner: &Owner) {
        let intent = self.intent;
        let is_theirs = |tenant: &Name| match owner {
            Owner::Provider => true,
            Owner::Tenant(owner) => owner == tenant,
        };
        for member in &parts.members {
            if intent.workloads.get(&member.value).is_some_and(|workload| is_theirs(&workload.tenant)) {
                continue;
            }
            let known = intent.workloads.iter().filter(|(_, workload)| is_theirs(&workload.tenant));
            self.unknown(
                "workload",
                member.value.as_str(),
                known.map(|(name, _)| name.as_str()),
                member.place,
            );
        }
        for condition in parts.select.iter().flat_map(|selector| &selector.conditions) {
            self.condition(condition, owner);
        }
        for nested in &parts.groups {
            self.group(nested, owner);
        }
    }

    fn condition(&mut self, condition: &Condition, owner: &Owner) {
        let intent = self.intent;
        let place = condition.place;
        let declared = match (&condition.field, owner) {
            (Field::Fact(key), _) => match intent.fact_keys.get(key) {
                Some(declared) => (key, declared, "fact"),
                None => {
                    return self.unknown(
                        "fact key",
                        key.as_str(),
                        intent.fact_keys.keys().map(Name::as_str),
                        place,
                    );
                }
            },
            (Field::Tenant, Owner::Provider) => {
                for tenant in &condition.values {
                    self.tenant(tenant, place);
                }
                return;
            }
            (Field::Tenant, Owner::Tenant(tenant)) => {
                self.findings.error(
                    place,
                    format!("groups of tenant `{tenant}` hold its own workloads alone; leave `tenant` out"),
                );
                return;
            }
            (Field::Label(key), Owner::Provider) => {
                let own = intent.label_keys.get(&Owner::Provider).and_then(|keys| keys.get(key));
                match own {
                    Some(declared) => (key, declared, "label"),
                    None if intent.label_keys.values().any(|keys| keys.contains_key(key)) => {
                        let message = format!(
                            "label key `{key}` is a tenant's; the provider's groups select on provider-owned keys and facts only, or a tenant could label itself in or out"
                        );
                        return self.findings.error(place, message);
                    }
                    None => return self.unknown_key(owner, key, place),
                }
            }
            (Field::Label(key), Owner::Tenant(tenant)) => match intent.label_key(tenant, key) {
                Some(declared) if declared.owner == Owner::Provider => {
                    let message =
                        format!("label key `{key}` is the provider's; a tenant cannot select on it");
                    return self.findings.error(place, message);
                }
                Some(declared) => (key, declared, "label"),
                None => return self.unknown_key(owner, key, place),
            },
        };
        let (key, declared, kind) = declared;
        for value in &condition.values {
            self.value_of(kind, key, declared, value, place);
        }
    }

    /// No group is in itself, by whatever way. A walk without recursion: nesting is as deep as somebody writes it.
    fn cycles(&mut self) {
        let groups = &self.intent.groups;
        let children = |group: &Ref| {
            groups.get(group).map(|group| nested(group).collect::<Vec<_>>()).unwrap_or_default()
        };
        let mut finished: BTreeMap<&Ref, bool> = BTreeMap::new();
        for start in groups.keys() {
            if finished.contains_key(start) {
                continue;
            }
            finished.insert(start, false);
            let mut path = vec![(start, children(start))];
            while let Some((group, rest)) = path.last_mut() {
                let Some(next) = rest.pop() else {
                    finished.insert(*group, true);
                    path.pop();
                    continue;
                };
                match finished.get(next) {
                    Some(true) => {}
                    Some(false) => self.cycle(next, &path),
                    None => {
                        finished.insert(next, false);
                        path.push((next, children(next)));
                    }
                }
            }
        }
    }

    fn cycle(&mut self, again: &Ref, path: &[(&Ref, Vec<&Ref>)]) {
        let from = path.iter().position(|(group, _)| *group == again).unwrap_or(0);
        let names: Vec<String> = path.iter().skip(from).map(|(group, _)| group.to_string()).collect();
        let place = self.intent.groups.get(again).map(|group| group.place);
        if let Some(place) = place {
            let message = format!(
                "group `{again}` is in itself: {} > {again}; take one out of `groups` or `exclude`",
                names.join(" > ")
            );
            self.findings.error(place, message);
        }
    }
}
