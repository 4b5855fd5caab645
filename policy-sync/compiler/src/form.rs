//! The compiled policy: one shared form for all NICs, and each NIC's rules out of it.
//!
//! Knows every stage's result. Never knows which NICs exist on which host, nor what they enforce.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_model::{
    AddressSet, DefaultAction, Defaults, Limits, NicId, NicIdentity, RemoteMatch, Rule, RuleSet, SetName,
    Timers,
};

use crate::diagnostic::Findings;
use crate::expand::expand;
use crate::index::Index;
use crate::intent::Intent;
use crate::membership::{Groups, Numbered};
use crate::name::{Name, Owner};
use crate::order::{SharedRule, Side, ordered};
use crate::policy::Ends;
use crate::sets::{Family, HeldNic, Holders, Sets};
use crate::simplify::{linked, without_shadowed};

/// A whole policy, compiled: the order of all rules, who is in which group, and the sets that NICs share.
#[derive(Debug, Clone)]
pub struct SharedForm {
    pub(crate) intent: Intent,
    pub(crate) workloads: Vec<Numbered>,
    pub(crate) numbers: BTreeMap<Name, usize>,
    /// By workload.
    pub(crate) held: Vec<Vec<HeldNic>>,
    /// By NIC: its workload and its place there.
    pub(crate) nics: BTreeMap<NicId, (usize, usize)>,
    pub(crate) groups: Groups,
    rules: Vec<SharedRule>,
    index: Index,
    pub(crate) sets: Sets,
    /// Rises with every change.
    pub(crate) epoch: u64,
    /// By NIC: when its identity or its own list of rules last changed; the first epoch if never.
    pub(crate) changed_at: BTreeMap<NicId, u64>,
    pub(crate) first_epoch: u64,
}

/// No limits of the NIC itself.
const UNLIMITED: Limits = Limits {
    conns: None,
    half_open: None,
    fragments: None,
    expectations: None,
    rates: None,
    new_conns_per_s: None,
};

impl SharedForm {
    /// Compiles a checked intent at `now_ms` (milliseconds since 1970). Generations begin at `first_epoch`.
    pub(crate) fn new(mut intent: Intent, now_ms: i64, first_epoch: u64, findings: &mut Findings) -> Self {
        let workloads: Vec<Numbered> = std::mem::take(&mut intent.workloads)
            .into_iter()
            .map(|(name, workload)| Numbered { name, workload })
            .collect();
        let numbers: BTreeMap<Name, usize> =
            workloads.iter().enumerate().map(|(number, entry)| (entry.name.clone(), number)).collect();
        let held: Vec<Vec<HeldNic>> = workloads.iter().map(|entry| held(entry, &intent)).collect();
        let nics = held.iter().enumerate().flat_map(|(workload, nics)| {
            nics.iter().enumerate().map(move |(place, nic)| (nic.id().clone(), (workload, place)))
        });
        let nics = nics.collect();
        let groups = Groups::new(&intent, &workloads, &numbers, same_keys(&intent));
        let rules = ordered(&intent, &groups, now_ms, findings);
        let index = Index::new(&rules, &groups);
        let mut form = Self {
            intent,
            workloads,
            numbers,
            held,
            nics,
            groups,
            rules,
            index,
            sets: Sets::default(),
            epoch: first_epoch,
            changed_at: BTreeMap::new(),
            first_epoch,
        };
        form.fill_sets();
        form
    }

    /// Every set that some NIC may name: groups that rules name, in the realms of the NICs these rules are for.
    fn fill_sets(&mut self) {
        let mut realms: BTreeMap<Owner, BTreeSet<Name>> = BTreeMap::new();
        for (number, nics) in self.held.iter().enumerate() {
            let Some(entry) = self.workloads.get(number) else { continue };
            for nic in nics {
                for owner in [Owner::Provider, Owner::Tenant(entry.workload.tenant.clone())] {
                    let of_owner = realms.entry(owner).or_default();
                    if !of_owner.contains(&nic.realm) {
                        of_owner.insert(nic.realm.clone());
                    }
                }
            }
        }
        let mut wanted: BTreeMap<usize, BTreeSet<Name>> = BTreeMap::new();
        let mut seen: BTreeSet<(usize, &Owner)> = BTreeSet::new();
        for rule in &self.rules {
            let named = [&rule.from, &rule.to, &rule.reply_from]
                .into_iter()
                .flat_map(|side| self.groups_of(side, rule));
            let applied = rule.applied_to.iter().flatten().copied();
            let applied =
                applied.filter(|group| self.groups.get(*group).is_some_and(|group| group.is_ranged));
            let Some(of_owner) = realms.get(&rule.policy.owner) else { continue };
            for group in named.chain(applied) {
                if seen.insert((group, &rule.policy.owner)) {
                    wanted.entry(group).or_default().extend(of_owner.iter().cloned());
                }
            }
        }
        self.want_nested(&mut wanted);
        let mut sets = Sets::default();
        let holders = Holders { workloads: &self.workloads, of_workload: &self.held };
        for (group, realms) in &wanted {
            sets.add_group(&self.groups, *group, realms, &holders);
        }
        sets.add_on_link(&holders);
        sets.stamp(self.first_epoch);
        self.sets = sets;
    }

    /// What a group with ranges holds is made of what the ones it nests hold.
    fn want_nested(&self, wanted: &mut BTreeMap<usize, BTreeSet<Name>>) {
        let mut waiting: Vec<usize> = wanted.keys().copied().collect();
        while let Some(number) = waiting.pop() {
            let Some(group) = self.groups.get(number).filter(|group| group.is_ranged) else { continue };
            let realms = wanted.get(&number).cloned().unwrap_or_default();
            for nested in group.include.groups.iter().chain(&group.exclude.groups) {
                let of_nested = wanted.entry(*nested).or_default();
                if !realms.is_subset(of_nested) {
                    of_nested.extend(realms.iter().cloned());
                    waiting.push(*nested);
                }
            }
        }
    }

    fn groups_of(&self, side: &Side, rule: &SharedRule) -> Vec<usize> {
        match side {
            Side::Any => Vec::new(),
            Side::These { groups, .. } => groups.clone(),
            Side::Same(key) => self.groups.same(&rule.policy.owner, key),
        }
    }

    /// The NICs there are.
    pub fn nics(&self) -> impl Iterator<Item = &NicId> {
        self.nics.keys()
    }

    /// Whether there is such a NIC.
    #[must_use]
    pub fn has(&self, nic: &NicId) -> bool {
        self.nics.contains_key(nic)
    }

    /// What a set that a NIC's rules name holds; one that nobody is in is empty.
    #[must_use]
    pub fn set(&self, name: &SetName) -> Arc<AddressSet> {
        self.content(name)
    }

    /// All that one NIC gets at `now_ms`; `None` if there is no such NIC.
    #[must_use]
    pub fn rules_of(&self, nic: &NicId, now_ms: i64) -> Option<RuleSet> {
        let (workload, held) = self.held_nic(nic)?;
        let rules = linked(&without_shadowed(expand(self, workload, held)), now_ms);
        Some(self.rule_set(held, rules))
    }

    /// As [`Self::rules_of`], with every rule that concerns the NIC, those that never decide included.
    #[must_use]
    pub fn whole_rules_of(&self, nic: &NicId, now_ms: i64) -> Option<RuleSet> {
        let (workload, held) = self.held_nic(nic)?;
        let rules = linked(&expand(self, workload, held), now_ms);
        Some(self.rule_set(held, rules))
    }

    fn rule_set(&self, held: &HeldNic, rules: Vec<Rule>) -> RuleSet {
        let address_sets = self.sets_of(held, &rules);
        RuleSet {
            generation: self.generation_of(held, &rules),
            nic: self.identity(held),
            defaults: Defaults { out: DefaultAction::Drop, in_: DefaultAction::Drop },
            address_sets,
            rules,
            timers: Timers::DEFAULT,
            limits: UNLIMITED,
        }
    }

    /// The sets that rules name, and the one that says which MAC address uses which address on the NIC's segment.
    fn sets_of(&self, held: &HeldNic, rules: &[Rule]) -> BTreeMap<SetName, Arc<AddressSet>> {
        let mut sets = BTreeMap::new();
        for name in named_sets(rules) {
            if !sets.contains_key(name) {
                sets.insert(name.clone(), self.content(name));
            }
        }
        if let Some(set) = self.sets.of_segment(&held.nic.segment) {
            sets.insert(set.name.clone(), Arc::clone(&set.set));
        }
        sets
    }

    /// What a set holds, by its name; one that nobody is in is empty.
    fn content(&self, name: &SetName) -> Arc<AddressSet> {
        let (whole, family) = self.sets.by_name(name);
        match (whole, family) {
            (Some(set), Family::Both) => Arc::clone(&set.set),
            (Some(set), family) => {
                let members =
                    set.set.members.iter().filter(|member| family.holds(member.prefix)).copied().collect();
                Arc::new(AddressSet { members })
            }
            (None, _) => Arc::new(AddressSet { members: Vec::new() }),
        }
    }

    /// The last epoch in which anything this NIC sees changed.
    fn generation_of(&self, held: &HeldNic, rules: &[Rule]) -> u64 {
        let own = self.changed_at.get(held.id()).copied().unwrap_or(self.first_epoch);
        let named = named_sets(rules).filter_map(|name| {
            let (set, family) = self.sets.by_name(name);
            set.map(|set| set.changed_at(family))
        });
        let on_link = self.sets.of_segment(&held.nic.segment).map(|set| set.changed_at(Family::Both));
        named.chain(on_link).fold(own, u64::max)
    }

    /// The generation of one NIC: the last epoch in which anything it sees changed.
    #[must_use]
    pub fn generation(&self, nic: &NicId) -> Option<u64> {
        let (workload, held) = self.held_nic(nic)?;
        let rules: Vec<Rule> = without_shadowed(expand(self, workload, held))
            .into_iter()
            .map(|expanded| expanded.rule)
            .collect();
        Some(self.generation_of(held, &rules))
    }

    pub(crate) fn identity(&self, held: &HeldNic) -> NicIdentity {
        let mut identity = held.nic.identity.clone();
        if let Some(segment) = self.intent.segments.get(&held.nic.segment) {
            identity.vlan = identity.vlan.or(segment.vlan);
            identity.mtu = identity.mtu.or(segment.mtu);
            if identity.gateways.is_empty() {
                identity.gateways.clone_from(&segment.gateways);
            }
            if identity.dhcp_servers.is_empty() {
                identity.dhcp_servers.clone_from(&segment.dhcp_servers);
            }
        }
        identity
    }

    pub(crate) fn held_nic(&self, nic: &NicId) -> Option<(usize, &HeldNic)> {
        let (workload, place) = *self.nics.get(nic)?;
        Some((workload, self.held.get(workload)?.get(place)?))
    }

    /// Every set, by name: the part that NICs share. Those of one family are taken out of these.
    pub fn sets(&self) -> impl Iterator<Item = (&SetName, &Arc<AddressSet>)> {
        self.sets.iter().map(|set| (&set.name, &set.set))
    }

    pub(crate) fn workload(&self, number: usize) -> Option<&Numbered> {
        self.workloads.get(number)
    }

    pub(crate) fn rule(&self, place: usize) -> Option<&SharedRule> {
        self.rules.get(place)
    }

    pub(crate) fn rules(&self) -> &[SharedRule] {
        &self.rules
    }

    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(crate) fn all_sets(&self) -> &Sets {
        &self.sets
    }
}

fn named_sets(rules: &[Rule]) -> impl Iterator<Item = &SetName> {
    rules.iter().flat_map(|rule| rule.remote.iter().chain(&rule.reply_from)).filter_map(|remote| match remote
    {
        RemoteMatch::Set(name) => Some(name),
        RemoteMatch::Prefix(_) => None,
    })
}

/// A workload's NICs with their realms.
pub(crate) fn held(entry: &Numbered, intent: &Intent) -> Vec<HeldNic> {
    let realm = |segment: &Name| intent.segments.get(segment).map(|segment| segment.realm.clone());
    let nics = entry.workload.nics.iter();
    nics.filter_map(|nic| Some(HeldNic { nic: nic.clone(), realm: realm(&nic.segment)? })).collect()
}

fn same_keys(intent: &Intent) -> BTreeSet<(Owner, Name)> {
    let rules = intent
        .policies
        .iter()
        .flat_map(|(key, policy)| policy.rules.iter().map(move |rule| (&key.owner, rule)));
    rules
        .filter_map(|(owner, rule)| match &rule.ends {
            Ends::Same(key) => Some((owner.clone(), key.value.clone())),
            Ends::Between { .. } | Ends::Within(_) => None,
        })
        .collect()
}
