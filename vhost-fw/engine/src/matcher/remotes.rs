//! Which rules name an address as their remote, and whom they let answer.
//!
//! Knows address sets, prefixes and the rules' places. Never knows protocols nor actions.

use std::collections::BTreeMap;

use fw_model::{Addr, Cidr, RemoteMatch, RuleSet, SetName};

use super::bitmaps::{Bitmap, Growing, TooLarge};
use super::prefix::{Owners, Prefixes};

/// The remotes of all rules. What the same rules name is one owner of prefixes, so an address leads to few owners
/// and each of them to the bitmap of its rules.
#[derive(Debug)]
pub(super) struct Remotes {
    prefixes: Prefixes,
    /// By owner.
    naming: Vec<Bitmap>,
    /// The rules that name no remote.
    anyone: Bitmap,
    /// By place, where a rule has a `reply-from`: its owners, in order.
    answering: BTreeMap<usize, Vec<u32>>,
}

/// The places of the rules that name something.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    remote: Vec<usize>,
    reply_from: Vec<usize>,
}

impl Remotes {
    pub(super) fn new(rules: &RuleSet, bitmaps: &mut Growing) -> Result<Self, TooLarge> {
        let (sets, prefixes) = named(rules);
        let mut owners: BTreeMap<Named, u32> = BTreeMap::new();
        let mut owned = Vec::new();
        let mut owner_of = |named: Named| {
            let next = u32::try_from(owners.len()).unwrap_or(u32::MAX);
            *owners.entry(named).or_insert(next)
        };
        for (name, named) in sets {
            let owner = owner_of(named);
            let members = rules.address_sets.get(name).map_or(&[][..], |set| &set.members);
            owned.extend(members.iter().map(|member| (member.prefix, owner)));
        }
        owned.extend(prefixes.into_iter().map(|(prefix, named)| (prefix, owner_of(named))));

        let mut naming = vec![Bitmap::EMPTY; owners.len()];
        let mut answering: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for (named, owner) in &owners {
            if let Some(naming) = naming.get_mut(*owner as usize) {
                *naming = bitmaps.add_places(&named.remote)?;
            }
            for place in &named.reply_from {
                answering.entry(*place).or_default().push(*owner);
            }
        }
        answering.values_mut().for_each(|owners| owners.sort_unstable());
        let without = rules.rules.iter().enumerate().filter(|(_, rule)| rule.remote.is_empty());
        let anyone = bitmaps.add_places(&without.map(|(place, _)| place).collect::<Vec<_>>())?;
        Ok(Self { prefixes: Prefixes::new(&owned), naming, anyone, answering })
    }

    /// The rules that name no remote.
    pub(super) const fn anyone(&self) -> Bitmap {
        self.anyone
    }

    /// Finds who `remote` is.
    pub(super) fn find(&self, remote: Addr) -> Owners {
        self.prefixes.find(remote)
    }

    /// The rules that name the remote which was found, as bitmaps.
    pub(super) fn naming(&self, found: Owners) -> impl Iterator<Item = Bitmap> + '_ {
        self.prefixes.owners(found).filter_map(|owner| self.naming.get(owner as usize).copied())
    }

    /// Whether the rule at `place` lets `remote` answer.
    pub(super) fn may_answer(&self, place: usize, remote: Addr) -> bool {
        let Some(answering) = self.answering.get(&place) else { return false };
        self.prefixes.owners(self.find(remote)).any(|owner| answering.binary_search(&owner).is_ok())
    }
}

/// Every set and every prefix that rules name, with the rules that do.
fn named(rules: &RuleSet) -> (BTreeMap<&SetName, Named>, BTreeMap<Cidr, Named>) {
    let mut sets: BTreeMap<&SetName, Named> = BTreeMap::new();
    let mut prefixes: BTreeMap<Cidr, Named> = BTreeMap::new();
    let mut note = |remote, place, column: fn(&mut Named) -> &mut Vec<usize>| {
        let named = match remote {
            &RemoteMatch::Prefix(prefix) => prefixes.entry(prefix).or_default(),
            RemoteMatch::Set(name) => sets.entry(name).or_default(),
        };
        let places = column(named);
        if places.last() != Some(&place) {
            places.push(place);
        }
    };
    for (place, rule) in rules.rules.iter().enumerate() {
        rule.remote.iter().for_each(|remote| note(remote, place, |named| &mut named.remote));
        rule.reply_from.iter().for_each(|remote| note(remote, place, |named| &mut named.reply_from));
    }
    (sets, prefixes)
}
