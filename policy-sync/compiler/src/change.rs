//! One thing changes: what of it reaches which NIC.
//!
//! A label, a fact, an address, a member: only the groups that look at it are asked again, sets change by what comes and
//! goes, and a NIC's generation rises only if the NIC sees a difference. Never compiles the whole policy anew, except when
//! the policy itself is replaced.

use std::collections::{BTreeMap, BTreeSet};

use fw_model::{Cidr, Member, NicId};

use crate::diagnostic::Findings;
use crate::expand::{Expanded, expand};
use crate::form::SharedForm;
use crate::group::Field;
use crate::intent::Intent;
use crate::inventory::Tag;
use crate::membership::GroupKey;
use crate::name::{Name, Owner, Ref};
use crate::policy::Verb;
use crate::sets::{HeldNic, Holders, SetDelta};
use crate::simplify::without_shadowed;

/// What a change comes to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Change {
    /// The epoch it made; the last one if nothing changed for anybody.
    pub epoch: u64,
    /// Sets, by what comes and goes.
    pub sets: Vec<SetDelta>,
    /// NICs whose own rules or identity changed, or that came.
    pub nics: BTreeSet<NicId>,
    /// NICs that are no more.
    pub gone: BTreeSet<NicId>,
}

impl Change {
    /// Whether no NIC sees a difference.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sets.is_empty() && self.nics.is_empty() && self.gone.is_empty()
    }
}

/// Why a change is refused; nothing of it was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// It cannot be a name at all.
    #[error("this is no name of a workload or key: a-z A-Z 0-9 . _ - are")]
    NoName,
    /// No such workload.
    #[error("there is no workload `{0}`")]
    NoWorkload(Name),
    /// No such NIC.
    #[error("there is no NIC `{0}`")]
    NoNic(NicId),
    /// No such group.
    #[error("there is no group `{0}`")]
    NoGroup(String),
    /// The workload is another tenant's.
    #[error("workload `{0}` is no workload of the owner of group `{1}`")]
    NotTheirs(Name, String),
    /// No such key.
    #[error("there is no {0} key `{1}`")]
    NoKey(&'static str, Name),
    /// The key is not the author's to set.
    #[error("label key `{0}` is the provider's; a tenant cannot set it")]
    NotTheirKey(Name),
    /// The key does not have the value.
    #[error("{0} `{1}` cannot be `{2}`")]
    NoValue(&'static str, Name, Name),
    /// Somebody holds the address.
    #[error("{0} is within {1} of NIC `{2}` in the same realm; an address is one NIC's")]
    AddressTaken(Cidr, Cidr, NicId),
}

/// What a workload's NICs were before a change.
struct Before {
    workload: usize,
    held: Vec<HeldNic>,
    lists: Vec<Vec<Expanded>>,
}

impl SharedForm {
    /// Sets a fact of a workload, or takes it away.
    ///
    /// # Errors
    /// There is no such workload, key or value.
    pub fn set_fact(
        &mut self,
        workload: &Name,
        key: &Name,
        value: Option<Name>,
    ) -> Result<Change, ChangeError> {
        let number = self.known(workload)?;
        let declared =
            self.intent.fact_keys.get(key).ok_or_else(|| ChangeError::NoKey("fact", key.clone()))?;
        if let Some(value) =
            value.as_ref().filter(|value| declared.values.as_ref().is_some_and(|v| !v.contains(*value)))
        {
            return Err(ChangeError::NoValue("fact", key.clone(), value.clone()));
        }
        let place = declared.place;
        let tag = value.map(|value| Tag { value, author: Owner::Provider, place });
        Ok(self.retag(number, Field::Fact(key.clone()), tag))
    }

    /// Sets a label of a workload on behalf of `author`, or takes it away.
    ///
    /// # Errors
    /// There is no such workload, key or value, or the key is not the author's.
    pub fn set_label(
        &mut self,
        workload: &Name,
        key: &Name,
        value: Option<Name>,
        author: &Owner,
    ) -> Result<Change, ChangeError> {
        let number = self.known(workload)?;
        let tenant = self.workload(number).map(|entry| entry.workload.tenant.clone());
        let tenant = tenant.ok_or_else(|| ChangeError::NoWorkload(workload.clone()))?;
        if matches!(author, Owner::Tenant(author) if *author != tenant) {
            return Err(ChangeError::NoWorkload(workload.clone()));
        }
        let declared =
            self.intent.label_key(&tenant, key).ok_or_else(|| ChangeError::NoKey("label", key.clone()))?;
        if declared.owner == Owner::Provider && *author != Owner::Provider {
            return Err(ChangeError::NotTheirKey(key.clone()));
        }
        if let Some(value) =
            value.as_ref().filter(|value| declared.values.as_ref().is_some_and(|v| !v.contains(*value)))
        {
            return Err(ChangeError::NoValue("label", key.clone(), value.clone()));
        }
        let place = declared.place;
        let tag = value.map(|value| Tag { value, author: author.clone(), place });
        Ok(self.retag(number, Field::Label(key.clone()), tag))
    }

    fn known(&self, workload: &Name) -> Result<usize, ChangeError> {
        self.numbers.get(workload).copied().ok_or_else(|| ChangeError::NoWorkload(workload.clone()))
    }

    fn retag(&mut self, number: usize, field: Field, tag: Option<Tag>) -> Change {
        let before = self.before(number);
        if let Some(entry) = self.workloads.get_mut(number) {
            let (tags, key) = match &field {
                Field::Label(key) => (&mut entry.workload.labels, key),
                Field::Fact(key) => (&mut entry.workload.facts, key),
                Field::Tenant => return self.unchanged(),
            };
            match tag {
                Some(tag) => tags.insert(key.clone(), tag),
                None => tags.remove(key),
            };
        }
        let moved = self.groups.refresh(number, &BTreeSet::from([field]), &self.workloads);
        self.settle(before, &moved)
    }

    /// Counts a workload statically in a group, or no more.
    ///
    /// # Errors
    /// There is no such group or workload, or it is another tenant's.
    pub fn set_member(
        &mut self,
        group: &Ref,
        workload: &Name,
        is_member: bool,
    ) -> Result<Change, ChangeError> {
        let number = self.known(workload)?;
        let found = self.groups.number(&GroupKey::Named(group.clone()));
        let found = found.ok_or_else(|| ChangeError::NoGroup(group.to_string()))?;
        let tenant = self.workload(number).map(|entry| &entry.workload.tenant);
        if matches!(&group.owner, Owner::Tenant(owner) if Some(owner) != tenant) {
            return Err(ChangeError::NotTheirs(workload.clone(), group.to_string()));
        }
        let before = self.before(number);
        let moved = self.groups.set_member(found, number, is_member, &self.workloads);
        Ok(self.settle(before, &moved))
    }

    /// Gives a NIC these addresses in place of its own.
    ///
    /// # Errors
    /// There is no such NIC, or another one of its realm holds one of them.
    pub fn set_addresses(&mut self, nic: &NicId, addresses: Vec<Cidr>) -> Result<Change, ChangeError> {
        let (workload, place) = *self.nics.get(nic).ok_or_else(|| ChangeError::NoNic(nic.clone()))?;
        let realm = self.held_nic(nic).map(|(_, held)| held.realm.clone());
        for held in
            self.held.iter().flatten().filter(|held| Some(&held.realm) == realm.as_ref() && held.id() != nic)
        {
            for (own, new) in held
                .nic
                .identity
                .addresses
                .iter()
                .flat_map(|own| addresses.iter().map(move |new| (*own, *new)))
            {
                if own.contains(new.network()) || new.contains(own.network()) {
                    return Err(ChangeError::AddressTaken(new, own, held.id().clone()));
                }
            }
        }
        let before = self.before(workload);
        if let Some(held) = self.held.get_mut(workload).and_then(|nics| nics.get_mut(place)) {
            held.nic.identity.addresses.clone_from(&addresses);
        }
        if let Some(nic) =
            self.workloads.get_mut(workload).and_then(|entry| entry.workload.nics.get_mut(place))
        {
            nic.identity.addresses = addresses;
        }
        Ok(self.settle(before, &[]))
    }

    fn before(&self, workload: usize) -> Before {
        let held = self.held.get(workload).cloned().unwrap_or_default();
        let lists = held.iter().map(|nic| without_shadowed(expand(self, workload, nic))).collect();
        Before { workload, held, lists }
    }

    fn unchanged(&self) -> Change {
        Change { epoch: self.epoch, ..Change::default() }
    }

    /// Brings sets and generations after a workload that moved among groups, or whose addresses changed.
    fn settle(&mut self, before: Before, moved: &[(usize, bool)]) -> Change {
        let epoch = self.epoch + 1;
        let Before { workload, held: old, lists } = before;
        let new = self.held.get(workload).cloned().unwrap_or_default();
        let mut change = Change { epoch, ..Change::default() };
        let joined: BTreeMap<usize, bool> = moved.iter().copied().collect();
        // Groups it is or was in, or of whose ranges it is left out.
        let mut concerned: BTreeSet<usize> = self.groups.of(workload).iter().copied().collect();
        concerned.extend(joined.keys());
        if old != new {
            concerned.extend(self.groups.leaving_out(workload));
        }
        let mut ranged = BTreeSet::new();
        for group in concerned {
            if self.groups.get(group).is_some_and(|group| group.is_ranged) {
                ranged.insert(group);
                continue;
            }
            let (was_in, is_in) = match joined.get(&group) {
                Some(is_in) => (!is_in, *is_in),
                None => (true, true),
            };
            ranged.extend(
                self.groups
                    .with_dependents([group].into_iter())
                    .into_iter()
                    .filter(|dependent| self.groups.get(*dependent).is_some_and(|group| group.is_ranged)),
            );
            let deltas = self.move_addresses(
                group,
                if was_in { &old } else { &[] },
                if is_in { &new } else { &[] },
                epoch,
            );
            change.sets.extend(deltas);
        }
        let holders = Holders { workloads: &self.workloads, of_workload: &self.held };
        let ranged = self.groups.with_dependents(ranged.into_iter());
        for group in
            ranged.into_iter().filter(|group| self.groups.get(*group).is_some_and(|group| group.is_ranged))
        {
            change.sets.extend(self.sets.change_ranged(&self.groups, group, &holders, epoch));
        }
        for (old, new) in old.iter().zip(&new).filter(|(old, new)| old != new) {
            change.sets.extend(self.sets.change_on_link(old, new, epoch));
            change.nics.insert(new.id().clone());
        }
        for (nic, list) in new.iter().zip(&lists) {
            if without_shadowed(expand(self, workload, nic)) != *list {
                change.nics.insert(nic.id().clone());
            }
        }
        self.stamped(change)
    }

    fn stamped(&mut self, change: Change) -> Change {
        if change.is_empty() {
            return self.unchanged();
        }
        self.epoch = change.epoch;
        self.changed_at.extend(change.nics.iter().map(|nic| (nic.clone(), change.epoch)));
        change
    }

    fn move_addresses(
        &mut self,
        group: usize,
        old: &[HeldNic],
        new: &[HeldNic],
        epoch: u64,
    ) -> Vec<SetDelta> {
        let mut realms: BTreeMap<Name, (Vec<Member>, Vec<Member>)> = BTreeMap::new();
        let member = |prefix| Member { prefix, mac: None };
        for nic in old {
            realms.entry(nic.realm.clone()).or_default().0.extend(nic.addresses().map(member));
        }
        for nic in new {
            realms.entry(nic.realm.clone()).or_default().1.extend(nic.addresses().map(member));
        }
        let mut deltas = Vec::new();
        for (realm, (removed, added)) in realms {
            self.ensure_set(group, &realm, epoch);
            deltas.extend(self.sets.change_group(group, &realm, removed, added, epoch));
        }
        deltas
    }

    /// A group that `same` just made has no set yet.
    fn ensure_set(&mut self, group: usize, realm: &Name, epoch: u64) {
        let is_same = self.groups.get(group).is_some_and(|group| matches!(group.key, GroupKey::Same { .. }));
        if is_same && self.sets.of_group(group, realm).is_none() {
            let Some(title) = self.groups.get(group).map(|group| group.key.to_string()) else { return };
            self.sets.add_empty(group, realm, &title, epoch);
        }
    }

    /// Puts a whole new policy in place of this one: what it changes for whom. Generations go on rising.
    pub fn replace(&mut self, intent: Intent, now_ms: i64) -> (Change, Vec<crate::Diagnostic>) {
        let mut findings = Findings::default();
        let epoch = self.epoch + 1;
        let mut new = Self::new(intent, now_ms, epoch, &mut findings);
        crate::shadow::warn(&new, &mut findings);
        crate::one_sided::warn(&new, now_ms, &mut findings);
        let warnings = findings.told(&new.intent.files).unwrap_or_default();
        let mut change = Change { epoch, ..Change::default() };
        change.sets = new.sets.follow(&self.sets);
        for (nic, (workload, place)) in &new.nics {
            let Some(held) = new.held.get(*workload).and_then(|nics| nics.get(*place)) else { continue };
            let is_same = self.held_nic(nic).is_some_and(|(was, old)| {
                let lists = || {
                    without_shadowed(expand(self, was, old)).iter().map(seen).eq(without_shadowed(expand(
                        &new, *workload, held,
                    ))
                    .iter()
                    .map(seen))
                };
                old.nic.segment == held.nic.segment && self.identity(old) == new.identity(held) && lists()
            });
            if is_same {
                new.changed_at
                    .insert(nic.clone(), self.changed_at.get(nic).copied().unwrap_or(self.first_epoch));
            } else {
                change.nics.insert(nic.clone());
                new.changed_at.insert(nic.clone(), epoch);
            }
        }
        change.gone = self.nics.keys().filter(|nic| !new.nics.contains_key(*nic)).cloned().collect();
        new.first_epoch = self.first_epoch;
        if change.is_empty() {
            new.epoch = self.epoch;
            change.epoch = self.epoch;
        }
        *self = new;
        (change, warnings)
    }

    /// NICs that see a change: those whose own part changed, and those whose rules name a set that did.
    #[must_use]
    pub fn affected(&self, change: &Change) -> BTreeSet<NicId> {
        let mut affected = change.nics.clone();
        if change.sets.is_empty() {
            return affected;
        }
        let others = self.nics.keys().filter(|nic| !change.nics.contains(*nic));
        affected.extend(others.filter(|nic| self.generation(nic) == Some(change.epoch)).cloned());
        affected
    }
}

/// What a NIC sees of a rule; not where in the whole policy it stands.
fn seen(expanded: &Expanded) -> (&fw_model::Rule, Verb, crate::policy::Tier, Option<i64>) {
    (&expanded.rule, expanded.verb, expanded.tier, expanded.expires_at_ms)
}
