//! Who is in which group: static, picked, nested, minus exclusions; built whole, and kept workload by workload.
//!
//! Knows workloads by number and their labels and facts. Never knows addresses of workloads, nor rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use fw_model::Cidr;

use crate::group::{Condition, Field, Parts, Selector};
use crate::intent::Intent;
use crate::inventory::Workload;
use crate::name::{Name, Owner, Ref};
use crate::nesting::nested_first;
use crate::postings::Postings;

/// What a set of workloads is called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GroupKey {
    Named(Ref),
    /// The workloads of `owner` with one value of a label, for rules with `same`.
    Same {
        owner: Owner,
        key: Name,
        value: Name,
    },
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => name.fmt(f),
            Self::Same { owner, key, value } => write!(f, "{owner}/same:{key}={value}"),
        }
    }
}

/// A workload and its name; its number is its place in the list.
#[derive(Debug, Clone)]
pub(crate) struct Numbered {
    pub(crate) name: Name,
    pub(crate) workload: Workload,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct NumberedParts {
    pub(crate) members: BTreeSet<usize>,
    pub(crate) select: Vec<Selector>,
    pub(crate) groups: Vec<usize>,
    pub(crate) ranges: Vec<Cidr>,
}

impl NumberedParts {
    /// Whether these parts of group `key` count a workload, nested groups aside.
    pub(crate) fn counts_itself(&self, key: &GroupKey, number: usize, workload: &Workload) -> bool {
        let is_theirs = || tenant_of(key).is_none_or(|tenant| *tenant == workload.tenant);
        self.members.contains(&number)
            || (is_theirs() && self.select.iter().any(|selector| selector.picks(workload)))
    }
}

#[derive(Debug, Clone)]
pub(crate) struct NumberedGroup {
    pub(crate) key: GroupKey,
    pub(crate) include: NumberedParts,
    pub(crate) exclude: NumberedParts,
    /// Whether all of it is known, what it nests included.
    pub(crate) is_complete: bool,
    /// Whether addresses of ranges are counted in or out somewhere in it.
    pub(crate) is_ranged: bool,
    /// By number, sorted.
    pub(crate) members: Vec<usize>,
    /// Workloads that are left out, whether or not something counts them in: their addresses are no part of a range.
    pub(crate) excluded: BTreeSet<usize>,
    /// Groups that count this one in or out; their numbers are higher.
    dependents: Vec<usize>,
}

/// Every group, by number: nested ones before those that nest them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Groups {
    pub(crate) list: Vec<NumberedGroup>,
    by_key: BTreeMap<GroupKey, usize>,
    /// Groups whose selectors look at a field.
    by_field: BTreeMap<Field, Vec<usize>>,
    /// By workload: the groups it is in, sorted.
    of_workload: Vec<Vec<usize>>,
    /// Label keys that rules with `same` name.
    same_keys: BTreeSet<(Owner, Name)>,
}

impl Groups {
    /// Puts every workload where it belongs.
    pub(crate) fn new(
        intent: &Intent,
        workloads: &[Numbered],
        numbers: &BTreeMap<Name, usize>,
        same_keys: BTreeSet<(Owner, Name)>,
    ) -> Self {
        let mut groups =
            Self { same_keys, of_workload: vec![Vec::new(); workloads.len()], ..Self::default() };
        for name in nested_first(&intent.groups) {
            if let Some(group) = intent.groups.get(name) {
                let numbered = |parts: &Parts| groups.numbered(parts, numbers);
                let (include, exclude) = (numbered(&group.include), numbered(&group.exclude));
                groups.push(GroupKey::Named(name.clone()), include, exclude, group.complete);
            }
        }
        let picked = Postings::new(workloads);
        for number in 0..groups.list.len() {
            groups.fill(number, workloads, &picked);
        }
        for (number, entry) in workloads.iter().enumerate() {
            groups.ensure_same(number, &entry.workload, workloads, Some(&picked));
        }
        groups
    }

    fn numbered(&self, parts: &Parts, numbers: &BTreeMap<Name, usize>) -> NumberedParts {
        let members = parts.members.iter().filter_map(|member| numbers.get(&member.value).copied()).collect();
        let number = |group: &Ref| self.by_key.get(&GroupKey::Named(group.clone())).copied();
        let groups = parts.groups.iter().filter_map(|group| number(&group.value)).collect();
        NumberedParts { members, select: parts.select.clone(), groups, ranges: parts.ranges.clone() }
    }

    fn push(
        &mut self,
        key: GroupKey,
        include: NumberedParts,
        exclude: NumberedParts,
        complete: bool,
    ) -> usize {
        let number = self.list.len();
        let nested = || include.groups.iter().chain(&exclude.groups).copied();
        let all =
            |holds: fn(&NumberedGroup) -> bool| nested().filter_map(|group| self.list.get(group)).all(holds);
        let is_complete = complete && all(|group| group.is_complete);
        let is_ranged =
            !include.ranges.is_empty() || !exclude.ranges.is_empty() || !all(|group| !group.is_ranged);
        for group in nested().collect::<BTreeSet<_>>() {
            if let Some(group) = self.list.get_mut(group) {
                group.dependents.push(number);
            }
        }
        let selectors = include.select.iter().chain(&exclude.select);
        for field in selectors.flat_map(|selector| &selector.conditions).map(|condition| &condition.field) {
            let at = self.by_field.entry(field.clone()).or_default();
            if at.last() != Some(&number) {
                at.push(number);
            }
        }
        self.by_key.insert(key.clone(), number);
        let (members, excluded, dependents) = (Vec::new(), BTreeSet::new(), Vec::new());
        self.list.push(NumberedGroup {
            key,
            include,
            exclude,
            is_complete,
            is_ranged,
            members,
            excluded,
            dependents,
        });
        number
    }

    /// Members of a group whose nested groups are filled.
    fn fill(&mut self, number: usize, workloads: &[Numbered], picked: &Postings<'_>) {
        let Some(group) = self.list.get(number) else { return };
        let tenant = tenant_of(&group.key);
        let mut members = self.counted(&group.include, tenant, workloads, picked);
        let without = self.counted(&group.exclude, tenant, workloads, picked);
        members.retain(|member| !without.contains(member));
        for member in &members {
            if let Some(groups) = self.of_workload.get_mut(*member) {
                groups.push(number);
            }
        }
        if let Some(group) = self.list.get_mut(number) {
            group.members = members.into_iter().collect();
            group.excluded = without;
        }
    }

    fn counted(
        &self,
        parts: &NumberedParts,
        tenant: Option<&Name>,
        workloads: &[Numbered],
        picked: &Postings<'_>,
    ) -> BTreeSet<usize> {
        let is_theirs = |number: &usize| {
            tenant.is_none_or(|tenant| {
                workloads.get(*number).is_some_and(|entry| entry.workload.tenant == *tenant)
            })
        };
        let mut members = parts.members.clone();
        for selector in &parts.select {
            members.extend(picked.by(selector, workloads).into_iter().filter(is_theirs));
        }
        for group in parts.groups.iter().filter_map(|group| self.list.get(*group)) {
            members.extend(&group.members);
        }
        members
    }

    /// Makes sure that the groups of `same` rules that `workload` belongs to exist; the new ones.
    fn ensure_same(
        &mut self,
        number: usize,
        workload: &Workload,
        workloads: &[Numbered],
        picked: Option<&Postings<'_>>,
    ) {
        let wanted: Vec<GroupKey> = self.same_of(workload).collect();
        for key in wanted.into_iter().filter(|key| !self.by_key.contains_key(key)).collect::<Vec<_>>() {
            let GroupKey::Same { key: label, value, .. } = &key else { continue };
            let condition = Condition {
                field: Field::Label(label.clone()),
                values: vec![value.clone()],
                place: workload.place,
            };
            let include = NumberedParts {
                select: vec![Selector { conditions: vec![condition] }],
                ..NumberedParts::default()
            };
            let group = self.push(key, include, NumberedParts::default(), true);
            match picked {
                Some(picked) => self.fill(group, workloads, picked),
                None => self.put(group, number),
            }
        }
    }

    /// The groups of `same` rules that a workload belongs to.
    fn same_of<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = GroupKey> + 'w {
        self.same_keys.iter().filter_map(|(owner, key)| {
            let is_theirs = !matches!(owner, Owner::Tenant(tenant) if *tenant != workload.tenant);
            let value = workload.labels.get(key).filter(|_| is_theirs)?.value.clone();
            Some(GroupKey::Same { owner: owner.clone(), key: key.clone(), value })
        })
    }

    pub(crate) fn number(&self, key: &GroupKey) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// The groups of `same` rules of one label.
    pub(crate) fn same(&self, owner: &Owner, key: &Name) -> Vec<usize> {
        let low = GroupKey::Same { owner: owner.clone(), key: key.clone(), value: Name::lowest() };
        let alike = |other: &GroupKey| matches!(other, GroupKey::Same { owner: o, key: k, .. } if o == owner && k == key);
        self.by_key.range(low..).take_while(|(other, _)| alike(other)).map(|(_, number)| *number).collect()
    }

    pub(crate) fn get(&self, number: usize) -> Option<&NumberedGroup> {
        self.list.get(number)
    }

    /// The groups a workload is in, sorted.
    pub(crate) fn of(&self, workload: usize) -> &[usize] {
        self.of_workload.get(workload).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn contains(&self, group: usize, workload: usize) -> bool {
        self.of(workload).binary_search(&group).is_ok()
    }

    /// The groups among which a workload moved, and whether it is in each now, after its `fields` changed.
    pub(crate) fn refresh(
        &mut self,
        number: usize,
        fields: &BTreeSet<Field>,
        workloads: &[Numbered],
    ) -> Vec<(usize, bool)> {
        let Some(entry) = workloads.get(number) else { return Vec::new() };
        self.ensure_same(number, &entry.workload, workloads, None);
        let seeds = fields.iter().filter_map(|field| self.by_field.get(field)).flatten().copied();
        let mut moved = self.settle(number, seeds.collect(), workloads);
        // A group that `same` just made was filled with this workload alone.
        let fresh = self.same_of(&entry.workload).filter_map(|key| self.number(&key)).collect::<Vec<_>>();
        for group in fresh {
            if !moved.iter().any(|(known, _)| *known == group)
                && self.get(group).is_some_and(|g| g.members.len() == 1)
            {
                moved.push((group, true));
            }
        }
        moved
    }

    /// Counts a workload statically in or out of a group.
    pub(crate) fn set_member(
        &mut self,
        group: usize,
        number: usize,
        is_member: bool,
        workloads: &[Numbered],
    ) -> Vec<(usize, bool)> {
        if let Some(found) = self.list.get_mut(group) {
            if is_member {
                found.include.members.insert(number)
            } else {
                found.include.members.remove(&number)
            };
        }
        self.settle(number, BTreeSet::from([group]), workloads)
    }

    /// Judges one workload's membership again in `seeds` and in what depends on those that changed.
    fn settle(
        &mut self,
        number: usize,
        seeds: BTreeSet<usize>,
        workloads: &[Numbered],
    ) -> Vec<(usize, bool)> {
        let Some(entry) = workloads.get(number) else { return Vec::new() };
        let mut waiting = seeds;
        let mut moved = Vec::new();
        while let Some(group) = waiting.pop_first() {
            let is_out = self.is_left_out(group, number, &entry.workload);
            let is_news = self.note_excluded(group, number, is_out);
            let is_in = !is_out && self.holds(group, number, &entry.workload);
            let stays = is_in == self.contains(group, number);
            if stays && !(is_news && self.list.get(group).is_some_and(|group| group.is_ranged)) {
                continue;
            }
            if is_in {
                self.put(group, number)
            } else {
                self.take(group, number)
            }
            moved.push((group, is_in));
            waiting.extend(self.list.get(group).into_iter().flat_map(|group| &group.dependents));
        }
        moved
    }

    fn holds(&self, group: usize, number: usize, workload: &Workload) -> bool {
        self.list.get(group).is_some_and(|found| {
            found.include.counts_itself(&found.key, number, workload)
                || found.include.groups.iter().any(|group| self.contains(*group, number))
        })
    }

    fn is_left_out(&self, group: usize, number: usize, workload: &Workload) -> bool {
        self.list.get(group).is_some_and(|found| {
            found.exclude.counts_itself(&found.key, number, workload)
                || found.exclude.groups.iter().any(|group| self.contains(*group, number))
        })
    }

    /// Notes whether a workload is left out of a group; whether that is news.
    fn note_excluded(&mut self, group: usize, number: usize, is_out: bool) -> bool {
        let Some(group) = self.list.get_mut(group) else { return false };
        if is_out { group.excluded.insert(number) } else { group.excluded.remove(&number) }
    }

    fn put(&mut self, group: usize, number: usize) {
        if let Some(found) = self.list.get_mut(group)
            && let Err(place) = found.members.binary_search(&number)
        {
            found.members.insert(place, number);
        }
        if let Some(groups) = self.of_workload.get_mut(number)
            && let Err(place) = groups.binary_search(&group)
        {
            groups.insert(place, group);
        }
    }

    fn take(&mut self, group: usize, number: usize) {
        if let Some(found) = self.list.get_mut(group)
            && let Ok(place) = found.members.binary_search(&number)
        {
            found.members.remove(place);
        }
        if let Some(groups) = self.of_workload.get_mut(number)
            && let Ok(place) = groups.binary_search(&group)
        {
            groups.remove(place);
        }
    }

    /// Groups with ranges that leave a workload out.
    pub(crate) fn leaving_out(&self, number: usize) -> Vec<usize> {
        let groups = self
            .list
            .iter()
            .enumerate()
            .filter(|(_, group)| group.is_ranged && group.excluded.contains(&number));
        groups.map(|(group, _)| group).collect()
    }

    /// `seeds` and everything that nests them, nested before nesting.
    pub(crate) fn with_dependents(&self, seeds: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut found: BTreeSet<usize> = BTreeSet::new();
        let mut waiting: Vec<usize> = seeds.collect();
        while let Some(group) = waiting.pop() {
            if found.insert(group) {
                waiting.extend(
                    self.list.get(group).map(|group| group.dependents.as_slice()).unwrap_or_default(),
                );
            }
        }
        found.into_iter().collect()
    }
}

/// Whose workloads alone may be in a group.
fn tenant_of(key: &GroupKey) -> Option<&Name> {
    match key {
        GroupKey::Named(Ref { owner: Owner::Tenant(tenant), .. })
        | GroupKey::Same { owner: Owner::Tenant(tenant), .. } => Some(tenant),
        GroupKey::Named(_) | GroupKey::Same { .. } => None,
    }
}
