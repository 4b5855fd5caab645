//! Everything documents say, put together: what there is and who may speak to whom.
//!
//! Knows names. Never knows text, nor what becomes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diagnostic::Place;
use crate::group::Group;
use crate::inventory::{Key, Segment, Tenant, Workload};
use crate::name::{Name, Owner, Ref};
use crate::policy::{Policy, Service};

/// Labels or facts a document gives to a workload that another one declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tagging {
    pub(crate) workload: Name,
    pub(crate) author: Owner,
    pub(crate) labels: BTreeMap<Name, crate::inventory::Tag>,
    pub(crate) facts: BTreeMap<Name, crate::inventory::Tag>,
    pub(crate) place: Place,
}

/// The whole policy and all it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Intent {
    /// The files it was read from; places name them by number.
    pub files: Vec<Arc<str>>,
    /// Tenants.
    pub tenants: BTreeMap<Name, Tenant>,
    /// Label keys by who may set them.
    pub label_keys: BTreeMap<Owner, BTreeMap<Name, Key>>,
    /// Fact keys.
    pub fact_keys: BTreeMap<Name, Key>,
    /// Segments.
    pub segments: BTreeMap<Name, Segment>,
    /// Workloads.
    pub workloads: BTreeMap<Name, Workload>,
    /// Groups.
    pub groups: BTreeMap<Ref, Group>,
    /// Services.
    pub services: BTreeMap<Ref, Service>,
    /// Policies.
    pub policies: BTreeMap<Ref, Policy>,
    pub(crate) taggings: Vec<Tagging>,
}

impl Intent {
    /// The declaration of a label key as workloads of `tenant` may have it: the provider's before the tenant's own.
    #[must_use]
    pub fn label_key(&self, tenant: &Name, key: &Name) -> Option<&Key> {
        let of = |owner: &Owner| self.label_keys.get(owner).and_then(|keys| keys.get(key));
        of(&Owner::Provider).or_else(|| of(&Owner::Tenant(tenant.clone())))
    }

    /// `FILE:LINE` of a place.
    #[must_use]
    pub fn shown(&self, place: Place) -> String {
        let file = self.files.get(place.file).map_or("?", |file| file);
        format!("{file}:{}", place.line)
    }
}
