//! Workloads by what they say of themselves, so that a selector need not ask every one.
//!
//! Knows labels, facts and tenants. Never knows groups.

use std::collections::BTreeMap;

use crate::group::{Field, Selector};
use crate::membership::Numbered;
use crate::name::Name;

/// Workloads by what they say of themselves.
pub(crate) struct Postings<'w>(BTreeMap<(Field, &'w Name), Vec<usize>>);

impl<'w> Postings<'w> {
    pub(crate) fn new(workloads: &'w [Numbered]) -> Self {
        let mut postings: BTreeMap<(Field, &'w Name), Vec<usize>> = BTreeMap::new();
        for (number, Numbered { workload, .. }) in workloads.iter().enumerate() {
            let labels = workload.labels.iter().map(|(key, tag)| (Field::Label(key.clone()), &tag.value));
            let facts = workload.facts.iter().map(|(key, tag)| (Field::Fact(key.clone()), &tag.value));
            for key in labels.chain(facts).chain([(Field::Tenant, &workload.tenant)]) {
                postings.entry(key).or_default().push(number);
            }
        }
        Self(postings)
    }

    /// The workloads a selector picks.
    pub(crate) fn by(&self, selector: &Selector, workloads: &[Numbered]) -> Vec<usize> {
        let Some(first) = selector.conditions.first() else { return Vec::new() };
        let mut picked: Vec<usize> = Vec::new();
        if first.values.is_empty() {
            let of_field = self.0.iter().filter(|((field, _), _)| *field == first.field);
            picked.extend(of_field.flat_map(|(_, numbers)| numbers));
        }
        for value in &first.values {
            picked.extend(self.0.get(&(first.field.clone(), value)).into_iter().flatten());
        }
        if selector.conditions.len() > 1 {
            picked
                .retain(|number| workloads.get(*number).is_some_and(|entry| selector.picks(&entry.workload)));
        }
        picked
    }
}
