//! Address sets: a group as the NICs of a realm see it, and which MAC address uses which address on a segment.
//!
//! Knows members' addresses. Never knows rules. A set is shared by every NIC that names it, and changes by what is added
//! and removed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_model::{AddressSet, Cidr, Member, NicId, SetName};
use serde::{Deserialize, Serialize};

use crate::inventory::Nic;
use crate::membership::{Groups, Numbered, NumberedGroup, NumberedParts};
use crate::name::Name;
use crate::ranges::Prefixes;

/// What changes in one address set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetDelta {
    /// The set.
    pub set: SetName,
    /// Members that come.
    pub added: Vec<Member>,
    /// Members that go.
    pub removed: Vec<Member>,
}

/// A set with its name, and when it last changed.
#[derive(Debug, Clone)]
pub(crate) struct NamedSet {
    pub(crate) name: SetName,
    pub(crate) set: Arc<AddressSet>,
    /// The epochs of the last change of its IPv4 and of its IPv6 members.
    changed_at: [u64; 2],
}

impl NamedSet {
    /// The epoch of the last change of what `family` of it means.
    pub(crate) fn changed_at(&self, family: Family) -> u64 {
        let [v4, v6] = self.changed_at;
        match family {
            Family::Both => v4.max(v6),
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }
}

/// Which of the addresses of a set a rule means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Both,
    V4,
    V6,
}

impl Family {
    pub(crate) fn holds(self, prefix: Cidr) -> bool {
        match self {
            Self::Both => true,
            Self::V4 => prefix.network().is_v4(),
            Self::V6 => !prefix.network().is_v4(),
        }
    }
}

/// All sets, by group and realm and by segment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sets {
    groups: BTreeMap<(usize, Name), NamedSet>,
    /// What ranged groups hold, for asking.
    ranged: BTreeMap<(usize, Name), Prefixes>,
    on_link: BTreeMap<Name, NamedSet>,
    by_name: BTreeMap<SetName, (usize, Name)>,
}

/// NICs with what their addresses stand for.
pub(crate) struct Holders<'a> {
    /// By number.
    pub(crate) workloads: &'a [Numbered],
    /// By workload: its NICs with their realms.
    pub(crate) of_workload: &'a [Vec<HeldNic>],
}

/// A NIC, and the realm and segment of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HeldNic {
    pub(crate) nic: Nic,
    pub(crate) realm: Name,
}

impl HeldNic {
    pub(crate) fn id(&self) -> &NicId {
        &self.nic.identity.id
    }

    /// Its own addresses, shared ones included.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Cidr> + '_ {
        let shared = self.nic.identity.shared.iter().map(|binding| Cidr::host(binding.address));
        self.nic.identity.addresses.iter().copied().chain(shared)
    }

    /// Which MAC address uses which of its addresses.
    fn bindings(&self) -> impl Iterator<Item = Member> + '_ {
        let identity = &self.nic.identity;
        let own = identity.addresses.iter().filter(|address| address.is_host());
        let own = own.map(|address| Member { prefix: *address, mac: Some(identity.mac) });
        let shared = identity.shared.iter();
        own.chain(
            shared.map(|binding| Member { prefix: Cidr::host(binding.address), mac: Some(binding.mac) }),
        )
    }
}

const fn unbound(prefix: Cidr) -> Member {
    Member { prefix, mac: None }
}

/// The name of a group's set. Names fit: see `name.rs`.
pub(crate) fn set_name(group: &str, realm: &Name, family: Family) -> Option<SetName> {
    let suffix = match family {
        Family::Both => "",
        Family::V4 => "/4",
        Family::V6 => "/6",
    };
    format!("{group}@{realm}{suffix}").parse().ok()
}

impl Sets {
    /// The set of group `number` in every realm of `realms`, nested groups before those that nest them.
    pub(crate) fn add_group(
        &mut self,
        groups: &Groups,
        number: usize,
        realms: &BTreeSet<Name>,
        holders: &Holders<'_>,
    ) {
        let Some(group) = groups.get(number) else { return };
        let title = group.key.to_string();
        if group.is_ranged {
            for realm in realms {
                let held = self.ranged_content(groups, number, realm, holders);
                let members = held.iter().map(unbound).collect();
                self.ranged.insert((number, realm.clone()), held);
                self.put(number, realm, &title, members);
            }
            return;
        }
        let mut by_realm: BTreeMap<&Name, Vec<Member>> =
            realms.iter().map(|realm| (realm, Vec::new())).collect();
        for nic in group.members.iter().filter_map(|member| holders.of_workload.get(*member)).flatten() {
            if let Some(members) = by_realm.get_mut(&nic.realm) {
                members.extend(nic.addresses().map(unbound));
            }
        }
        for (realm, mut members) in by_realm {
            members.sort_unstable();
            members.dedup();
            self.put(number, realm, &title, members);
        }
    }

    fn put(&mut self, number: usize, realm: &Name, title: &str, members: Vec<Member>) {
        let Some(name) = set_name(title, realm, Family::Both) else { return };
        let set = Arc::new(AddressSet { members });
        self.by_name.insert(name.clone(), (number, realm.clone()));
        self.groups.insert((number, realm.clone()), NamedSet { name, set, changed_at: [0; 2] });
    }

    /// The addresses of a group with ranges: what it counts in without what it leaves out.
    fn ranged_content(
        &self,
        groups: &Groups,
        number: usize,
        realm: &Name,
        holders: &Holders<'_>,
    ) -> Prefixes {
        let Some(group) = groups.get(number) else { return Prefixes::default() };
        let counted = |parts: &NumberedParts, workloads: &mut dyn Iterator<Item = usize>| {
            let mut held = Prefixes::new(parts.ranges.iter().copied());
            let itself = workloads.filter(|workload| is_direct(parts, group, *workload, holders));
            held.add(addresses(itself, realm, holders));
            for nested in &parts.groups {
                match self.ranged.get(&(*nested, realm.clone())) {
                    Some(nested) => held.add(nested.iter()),
                    None => {
                        let members =
                            groups.get(*nested).map(|nested| nested.members.as_slice()).unwrap_or_default();
                        held.add(addresses(members.iter().copied(), realm, holders));
                    }
                }
            }
            held
        };
        let held = counted(&group.include, &mut group.members.iter().copied());
        held.without(&counted(&group.exclude, &mut group.excluded.iter().copied()))
    }

    /// Puts every NIC's bindings into the set of its segment.
    pub(crate) fn add_on_link(&mut self, holders: &Holders<'_>) {
        let mut segments: BTreeMap<&Name, Vec<Member>> = BTreeMap::new();
        for held in holders.of_workload.iter().flatten() {
            segments.entry(&held.nic.segment).or_default().extend(held.bindings());
        }
        for (segment, mut members) in segments {
            members.sort_unstable();
            members.dedup();
            let Ok(name) = format!("on-link@{segment}").parse() else { continue };
            let set = Arc::new(AddressSet { members });
            self.on_link.insert(segment.clone(), NamedSet { name, set, changed_at: [0; 2] });
        }
    }

    pub(crate) fn of_group(&self, number: usize, realm: &Name) -> Option<&NamedSet> {
        self.groups.get(&(number, realm.clone()))
    }

    /// A group's set by name, and which of its addresses the name means.
    pub(crate) fn by_name(&self, name: &SetName) -> (Option<&NamedSet>, Family) {
        if let Some(key) = self.by_name.get(name) {
            return (self.groups.get(key), Family::Both);
        }
        let text = name.to_string();
        for (suffix, family) in [("/4", Family::V4), ("/6", Family::V6)] {
            let whole = text.strip_suffix(suffix).and_then(|whole| whole.parse().ok());
            if let Some(key) = whole.and_then(|whole: SetName| self.by_name.get(&whole)) {
                return (self.groups.get(key), family);
            }
        }
        (None, Family::Both)
    }

    /// An empty set of a group that is new.
    pub(crate) fn add_empty(&mut self, number: usize, realm: &Name, title: &str, epoch: u64) {
        self.put(number, realm, title, Vec::new());
        if let Some(set) = self.groups.get_mut(&(number, realm.clone())) {
            set.changed_at = [epoch; 2];
        }
    }

    /// Takes over from `old` when sets last changed that are as they were; what changed in the others.
    pub(crate) fn follow(&mut self, old: &Self) -> Vec<SetDelta> {
        let before: BTreeMap<&SetName, &NamedSet> = old.iter().map(|set| (&set.name, set)).collect();
        let mut deltas = Vec::new();
        for set in self.groups.values_mut().chain(self.on_link.values_mut()) {
            let was = before.get(&set.name);
            let old = was.map_or(&[][..], |old| &old.set.members);
            let new = &set.set.members;
            let added: Vec<Member> =
                new.iter().filter(|member| old.binary_search(member).is_err()).copied().collect();
            let removed: Vec<Member> =
                old.iter().filter(|member| new.binary_search(member).is_err()).copied().collect();
            let [was_v4, was_v6] = was.map_or(set.changed_at, |was| was.changed_at);
            let [v4, v6] = &mut set.changed_at;
            let moved =
                |family: Family| added.iter().chain(&removed).any(|member| family.holds(member.prefix));
            if !moved(Family::V4) {
                *v4 = was_v4;
            }
            if !moved(Family::V6) {
                *v6 = was_v6;
            }
            if !added.is_empty() || !removed.is_empty() {
                deltas.push(SetDelta { set: set.name.clone(), added, removed });
            }
        }
        deltas
    }

    /// Says that everything changed at `epoch`.
    pub(crate) fn stamp(&mut self, epoch: u64) {
        for set in self.groups.values_mut().chain(self.on_link.values_mut()) {
            set.changed_at = [epoch; 2];
        }
    }

    pub(crate) fn of_segment(&self, segment: &Name) -> Option<&NamedSet> {
        self.on_link.get(segment)
    }

    pub(crate) fn ranged(&self, number: usize, realm: &Name) -> Option<&Prefixes> {
        self.ranged.get(&(number, realm.clone()))
    }

    /// Every set.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &NamedSet> {
        self.groups.values().chain(self.on_link.values())
    }

    /// Moves addresses into or out of a group's set; what changed, if anything.
    pub(crate) fn change_group(
        &mut self,
        number: usize,
        realm: &Name,
        removed: Vec<Member>,
        added: Vec<Member>,
        epoch: u64,
    ) -> Option<SetDelta> {
        change(self.groups.get_mut(&(number, realm.clone()))?, removed, added, epoch)
    }

    /// Computes a group with ranges anew; what changed.
    pub(crate) fn change_ranged(
        &mut self,
        groups: &Groups,
        number: usize,
        holders: &Holders<'_>,
        epoch: u64,
    ) -> Vec<SetDelta> {
        let low = (number, Name::lowest());
        let realms: Vec<Name> = self
            .ranged
            .range(low..)
            .take_while(|((n, _), _)| *n == number)
            .map(|((_, r), _)| r.clone())
            .collect();
        let mut deltas = Vec::new();
        for realm in realms {
            let content = self.ranged_content(groups, number, &realm, holders);
            let Some(old) = self.ranged.insert((number, realm.clone()), content.clone()) else { continue };
            let added = content.iter().filter(|prefix| !old.has(*prefix)).map(unbound).collect();
            let removed = old.iter().filter(|prefix| !content.has(*prefix)).map(unbound).collect();
            deltas.extend(self.change_group(number, &realm, removed, added, epoch));
        }
        deltas
    }

    /// Moves bindings out of and into a segment's set; what changed, if anything.
    pub(crate) fn change_on_link(&mut self, old: &HeldNic, new: &HeldNic, epoch: u64) -> Option<SetDelta> {
        let set = self.on_link.get_mut(&new.nic.segment)?;
        change(set, old.bindings().collect(), new.bindings().collect(), epoch)
    }
}

/// Whether `parts` count a workload without a nested group's help.
fn is_direct(parts: &NumberedParts, group: &NumberedGroup, number: usize, holders: &Holders<'_>) -> bool {
    holders
        .workloads
        .get(number)
        .is_some_and(|entry| parts.counts_itself(&group.key, number, &entry.workload))
}

/// The addresses of workloads in a realm.
fn addresses<'h>(
    workloads: impl Iterator<Item = usize> + 'h,
    realm: &'h Name,
    holders: &'h Holders<'_>,
) -> impl Iterator<Item = Cidr> + 'h {
    let nics = workloads.filter_map(|workload| holders.of_workload.get(workload)).flatten();
    nics.filter(move |nic| nic.realm == *realm).flat_map(HeldNic::addresses)
}

fn change(set: &mut NamedSet, removed: Vec<Member>, added: Vec<Member>, epoch: u64) -> Option<SetDelta> {
    let members = &set.set.members;
    let both: BTreeSet<Member> = removed.iter().filter(|member| added.contains(member)).copied().collect();
    let removed: Vec<Member> =
        removed.into_iter().filter(|m| !both.contains(m) && members.binary_search(m).is_ok()).collect();
    let added: Vec<Member> =
        added.into_iter().filter(|m| !both.contains(m) && members.binary_search(m).is_err()).collect();
    if removed.is_empty() && added.is_empty() {
        return None;
    }
    let members = &mut Arc::make_mut(&mut set.set).members;
    for member in &removed {
        if let Ok(place) = members.binary_search(member) {
            members.remove(place);
        }
    }
    for member in &added {
        if let Err(place) = members.binary_search(member) {
            members.insert(place, *member);
        }
    }
    for member in removed.iter().chain(&added) {
        let [v4, v6] = &mut set.changed_at;
        *(if member.prefix.network().is_v4() { v4 } else { v6 }) = epoch;
    }
    Some(SetDelta { set: set.name.clone(), added, removed })
}
