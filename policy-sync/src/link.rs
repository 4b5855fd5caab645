//! The words between serve and its agents, and what an agent must hear to get from one policy to another.
//!
//! Knows messages. Never knows a socket.

pub(crate) mod server;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_control::SetChange;
use fw_model::{AddressSet, NicId, RuleSet, SetName};

use crate::compiled::Wanted;

/// Longest message on the link, in bytes.
pub(crate) const MESSAGE_MAX: usize = 256 << 20;

/// What one agent was told on one connection.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The version of the last order; absent before the first, which is whole.
    version: Option<u64>,
    sets: BTreeMap<SetName, Arc<AddressSet>>,
    nics: BTreeMap<NicId, Arc<RuleSet>>,
}

impl Told {
    /// What must be said so that the agent knows what `wanted` says of `attached`; `None` if it knows.
    pub(crate) fn order(
        &mut self,
        wanted: &Wanted,
        attached: &BTreeSet<NicId>,
        now_ms: i64,
    ) -> serde_json::Result<Option<wire::Order>> {
        let mut order = wire::Order {
            version: wanted.version,
            base: self.version.unwrap_or(0),
            ..wire::Order::default()
        };
        let mut sets: BTreeMap<SetName, Arc<AddressSet>> = BTreeMap::new();
        let mut nics = BTreeMap::new();
        for nic in attached {
            let Some(shall) = wanted.nics.get(nic) else { continue };
            for (name, set) in &shall.rules.address_sets {
                sets.entry(name.clone()).or_insert_with(|| Arc::clone(set));
            }
            let before = self.nics.get(nic);
            if before.is_none_or(|before| before.generation != shall.rules.generation) {
                let as_before = before.is_some_and(|before| differ_by_members(before, &shall.rules));
                order.nics.push(if as_before {
                    let (nic, generation) = (nic.to_string(), shall.rules.generation);
                    wire::NicRules { nic, generation, ..wire::NicRules::default() }
                } else {
                    spoken(nic, shall.at(now_ms))?
                });
            }
            nics.insert(nic.clone(), Arc::clone(&shall.rules));
        }
        for (name, set) in &sets {
            let before = self.sets.get(name);
            if before.is_none_or(|before| before != set) {
                order.sets.push(set_change(name, before, set)?);
            }
        }
        order.nics_gone = gone(&self.nics, &nics);
        order.sets_gone = gone(&self.sets, &sets);
        let says_nothing = order.nics.is_empty()
            && order.sets.is_empty()
            && order.nics_gone.is_empty()
            && order.sets_gone.is_empty();
        if says_nothing && self.version.is_some() {
            return Ok(None);
        }
        *self = Self { version: Some(wanted.version), sets, nics };
        Ok(Some(order))
    }
}

fn gone<K: Ord + ToString, V, W>(before: &BTreeMap<K, V>, after: &BTreeMap<K, W>) -> Vec<String> {
    before.keys().filter(|name| !after.contains_key(*name)).map(ToString::to_string).collect()
}

fn spoken(nic: &NicId, mut rules: RuleSet) -> serde_json::Result<wire::NicRules> {
    let sets = std::mem::take(&mut rules.address_sets).into_keys().map(|name| name.to_string()).collect();
    let generation = rules.generation;
    Ok(wire::NicRules { nic: nic.to_string(), rules: serde_json::to_vec(&rules)?, sets, generation })
}

/// Whether two generations of a NIC's rules say the same about the same sets, whoever is in these.
fn differ_by_members(before: &RuleSet, after: &RuleSet) -> bool {
    before.rules == after.rules
        && before.nic == after.nic
        && before.defaults == after.defaults
        && before.timers == after.timers
        && before.limits == after.limits
        && before.address_sets.keys().eq(after.address_sets.keys())
}

fn set_change(
    name: &SetName,
    before: Option<&Arc<AddressSet>>,
    after: &AddressSet,
) -> serde_json::Result<wire::SetChange> {
    let (whole, change) = match before {
        Some(before) => (false, SetChange::between(before, after)),
        None => (true, SetChange { added: after.members.clone(), removed: Vec::new() }),
    };
    Ok(wire::SetChange {
        name: name.to_string(),
        whole,
        added: serde_json::to_vec(&change.added)?,
        removed: serde_json::to_vec(&change.removed)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::kept::Kept;
    use crate::compiled::{compile, recompile};
    use crate::store::{Documents, Key};

    const PROVIDER: &str = "
tenants: [shop]
segments: {front: {tenant: shop, realm: shop}}
workloads:
";
    const SHOP: &str = "
tenant: shop
label-keys: {app: [web, db]}
groups: {web: {select: {app: web}}, db: {select: {app: db}}}
policies:
  shop: {tier: application, position: 10, rules: [{name: a, action: allow, from: web, to: db, services: tcp/5432}]}
labels:
";

    /// A policy in which each letter of `apps` is a workload: `w` in group web, `d` in group db.
    fn documents(apps: &str) -> Documents {
        let (mut provider, mut shop) = (PROVIDER.to_owned(), SHOP.to_owned());
        for (number, app) in apps.chars().enumerate() {
            provider.push_str(&format!(
                "  n{number}: {{tenant: shop, nics: [{{id: n{number}, segment: front, mac: \"52:54:00:00:00:{number:02x}\", addresses: [10.0.0.{}]}}]}}\n",
                number + 1
            ));
            shop.push_str(&format!("  n{number}: {{app: {}}}\n", if app == 'w' { "web" } else { "db" }));
        }
        let key = |owner: &str| Key { owner: owner.to_owned(), name: "all".to_owned() };
        [(key("provider"), provider), (key("shop"), shop)].into()
    }

    fn wanted(apps: &str, version: u64, before: &Wanted) -> Wanted {
        compile(&documents(apps), version, before, 0).unwrap().wanted
    }

    /// What the agent keeps of `nics` is what is wanted of them, set for set.
    fn assert_same(kept: &Kept, wanted: &Wanted, nics: &BTreeSet<NicId>) {
        for nic in nics {
            let shall = wanted.nics.get(nic).map(|shall| RuleSet::clone(&shall.rules));
            let mut has = kept.rules_of(nic);
            let sorted = |rules: Option<RuleSet>| {
                rules.map(|mut rules| {
                    for set in rules.address_sets.values_mut() {
                        Arc::make_mut(set).members.sort_unstable();
                    }
                    rules
                })
            };
            has = sorted(has);
            assert_eq!(has, sorted(shall), "{nic}");
        }
    }

    #[test]
    fn orders_lead_an_agent_from_any_policy_to_any_other() {
        let nics: BTreeSet<NicId> = ["n0", "n1", "n2"].map(|nic| nic.parse().unwrap()).into();
        let (mut told, mut kept, mut now) = (Told::default(), Kept::default(), Wanted::default());
        for (apps, version) in ["wd", "wdd", "wwd", "wwd", "dd", "w", "wdwdwd"].into_iter().zip(1..) {
            now = wanted(apps, version, &now);
            if let Some(order) = told.order(&now, &nics, 0).unwrap() {
                kept = kept.after(&order).unwrap();
            }
            assert_same(&kept, &now, &nics);
        }
    }

    #[test]
    fn a_member_more_costs_as_much_as_it_is() {
        let many = "d".repeat(200) + "w";
        let now = wanted(&many, 1, &Wanted::default());
        let nics: BTreeSet<NicId> = ["n200".parse().unwrap()].into();
        let mut told = Told::default();
        let whole = told.order(&now, &nics, 0).unwrap().unwrap();
        let more = "d".repeat(200) + "wd";
        let order = told.order(&wanted(&more, 2, &now), &nics, 0).unwrap().unwrap();
        let length = |order: &wire::Order| prost::Message::encoded_len(order);
        assert!(length(&order) < 1024, "{} bytes for one member, {} for all", length(&order), length(&whole));
        assert!(order.nics.iter().all(|nic| nic.rules.is_empty()), "the rules are as they were");
        assert!(told.order(&wanted(&more, 3, &wanted(&more, 2, &now)), &nics, 0).unwrap().is_none());
    }

    #[test]
    fn a_restart_of_serve_changes_no_generation() {
        let first = compile(&documents("wd"), 7, &Wanted::default(), 0).unwrap();
        let kept = first.wanted.nics.iter().map(|(nic, shall)| (nic.to_string(), (7, shall.code))).collect();
        let again = recompile(&documents("wd"), 9, &kept, 5000).unwrap();
        assert!(again.changed.is_empty());
        assert!(again.wanted.nics.values().all(|shall| shall.rules.generation == 7));
    }
}
