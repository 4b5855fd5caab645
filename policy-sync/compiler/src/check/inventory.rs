//! Do workloads, NICs, segments, labels and facts fit together?
//!
//! Knows identities: an address is one NIC's within its realm. Never knows groups.

use std::collections::BTreeMap;

use fw_document::read::suggestion;
use fw_model::{Addr, Cidr, MacAddr};

use super::Checker;
use crate::diagnostic::{Findings, Place};
use crate::intent::{Intent, Tagging};
use crate::inventory::{Key, Nic, Tag};
use crate::name::{Name, Owner};

/// Puts what other documents say of workloads into them.
pub(super) fn take_taggings(intent: &mut Intent, findings: &mut Findings) {
    let taggings = std::mem::take(&mut intent.taggings);
    let files = intent.files.clone();
    for Tagging { workload: name, author, labels, facts, place } in taggings {
        let found = intent.workloads.get(&name);
        if !found.is_some_and(|found| may_tag(&author, &found.tenant)) {
            let message =
                if findings.is_full() { String::new() } else { no_workload(intent, &name, &author) };
            findings.error(place, message);
            continue;
        }
        let Some(workload) = intent.workloads.get_mut(&name) else { continue };
        for (kind, tags, into) in
            [("label", labels, &mut workload.labels), ("fact", facts, &mut workload.facts)]
        {
            for (key, tag) in tags {
                if let Some(first) = into.get(&key) {
                    let file = files.get(first.place.file).map_or("?", |file| file);
                    let message = format!(
                        "{kind} `{key}` of workload `{name}` stands here again; first at {file}:{}",
                        first.place.line
                    );
                    findings.error(tag.place, message);
                    continue;
                }
                into.insert(key, tag);
            }
        }
    }
}

fn no_workload(intent: &Intent, name: &Name, author: &Owner) -> String {
    let known = intent.workloads.iter().filter(|(_, workload)| may_tag(author, &workload.tenant));
    let known: Vec<&str> = known.map(|(name, _)| name.as_str()).take(1000).collect();
    let whose = if *author == Owner::Provider { String::new() } else { format!(" of tenant `{author}`") };
    format!("there is no workload `{name}`{whose}{}", suggestion(name.as_str(), &known))
}

fn may_tag(author: &Owner, tenant: &Name) -> bool {
    match author {
        Owner::Provider => true,
        Owner::Tenant(author) => author == tenant,
    }
}

impl Checker<'_> {
    pub(super) fn inventory(&mut self) {
        for segment in self.intent.segments.values() {
            if let Some(tenant) = &segment.tenant {
                self.tenant(tenant, segment.place);
            }
        }
        for workload in self.intent.workloads.values() {
            self.tenant(&workload.tenant, workload.place);
            for (key, tag) in &workload.labels {
                self.label(&workload.tenant, key, tag);
            }
            for (key, tag) in &workload.facts {
                match self.intent.fact_keys.get(key) {
                    Some(declared) => self.value("fact", key, declared, tag),
                    None => self.unknown(
                        "fact key",
                        key.as_str(),
                        self.intent.fact_keys.keys().map(Name::as_str),
                        tag.place,
                    ),
                }
            }
            for nic in &workload.nics {
                self.nic_segment(nic, &workload.tenant);
            }
        }
        self.nic_ids();
        self.addresses();
        self.bindings();
    }

    fn label(&mut self, tenant: &Name, key: &Name, tag: &Tag) {
        let Some(declared) = self.intent.label_key(tenant, key) else {
            self.unknown_key(&Owner::Tenant(tenant.clone()), key, tag.place);
            return;
        };
        if declared.owner == Owner::Provider && tag.author != Owner::Provider {
            self.findings
                .error(tag.place, format!("label key `{key}` is the provider's; a tenant cannot set it"));
            return;
        }
        self.value("label", key, declared, tag);
    }

    fn value(&mut self, kind: &str, key: &Name, declared: &Key, tag: &Tag) {
        self.value_of(kind, key, declared, &tag.value, tag.place);
    }

    /// Whether `value` is one that `key` may have.
    pub(super) fn value_of(&mut self, kind: &str, key: &Name, declared: &Key, value: &Name, place: Place) {
        let Some(values) = declared.values.as_ref().filter(|values| !values.contains(value)) else { return };
        let known: Vec<&str> = values.iter().map(Name::as_str).collect();
        let near = suggestion(value.as_str(), &known);
        self.findings
            .error(place, format!("{kind} `{key}` cannot be `{value}`{near} (it has {})", known.join(", ")));
    }

    /// No such label key for `user`.
    pub(super) fn unknown_key(&mut self, user: &Owner, key: &Name, place: Place) {
        let keys =
            self.intent.label_keys.iter().filter(|(owner, _)| **owner == Owner::Provider || *owner == user);
        let known: Vec<&str> = keys.flat_map(|(_, keys)| keys.keys().map(Name::as_str)).take(1000).collect();
        let near = suggestion(key.as_str(), &known);
        self.findings
            .error(place, format!("there is no label key `{key}`{near} (declare it under `label-keys`)"));
    }

    fn nic_segment(&mut self, nic: &Nic, tenant: &Name) {
        let Some(segment) = self.intent.segments.get(&nic.segment) else {
            let known = self.intent.segments.keys().map(Name::as_str);
            return self.unknown("segment", nic.segment.as_str(), known, nic.place);
        };
        if let Some(owner) = segment.tenant.as_ref().filter(|owner| *owner != tenant) {
            let message = format!(
                "segment `{}` is tenant `{owner}`'s; a workload of `{tenant}` cannot be on it",
                nic.segment
            );
            self.findings.error(nic.place, message);
        }
    }

    fn nics(&self) -> impl Iterator<Item = &Nic> {
        self.intent.workloads.values().flat_map(|workload| &workload.nics)
    }

    fn nic_ids(&mut self) {
        let mut ids = BTreeMap::new();
        let mut macs = BTreeMap::new();
        let mut twice = Vec::new();
        for nic in self.nics() {
            if let Some(first) = ids.insert(&nic.identity.id, nic.place) {
                twice.push((
                    nic.place,
                    format!(
                        "NIC `{}` is declared twice; first at {}",
                        nic.identity.id,
                        self.intent.shown(first)
                    ),
                ));
            }
            if let Some(first) = macs.insert((&nic.segment, nic.identity.mac), nic.place) {
                let first = self.intent.shown(first);
                twice.push((
                    nic.place,
                    format!(
                        "mac {} is on segment `{}` twice; first at {first}",
                        nic.identity.mac, nic.segment
                    ),
                ));
            }
        }
        for (place, message) in twice {
            self.findings.error(place, message);
        }
    }

    /// Addresses are unique within a realm.
    fn addresses(&mut self) {
        let mut owned: BTreeMap<&Name, Vec<(Cidr, &Nic)>> = BTreeMap::new();
        for nic in self.nics() {
            let Some(segment) = self.intent.segments.get(&nic.segment) else { continue };
            let of_realm = owned.entry(&segment.realm).or_default();
            of_realm.extend(nic.identity.addresses.iter().map(|address| (*address, nic)));
        }
        let mut clashes = Vec::new();
        for (realm, mut owned) in owned {
            owned.sort_by_key(|(address, nic)| (*address, nic.place));
            let mut widest: Option<(Cidr, &Nic)> = None;
            for (address, nic) in owned {
                if let Some((held, holder)) = widest.filter(|(held, _)| held.contains(address.network())) {
                    let first = self.intent.shown(holder.place);
                    let message = format!(
                        "{address} of NIC `{}` is within {held} of NIC `{}` in realm `{realm}`, at {first}; an address is one NIC's",
                        nic.identity.id, holder.identity.id
                    );
                    clashes.push((nic.place, message));
                } else {
                    widest = Some((address, nic));
                }
            }
        }
        for (place, message) in clashes {
            self.findings.error(place, message);
        }
    }

    /// One MAC address per address that is shared or a router's, on each segment.
    fn bindings(&mut self) {
        let mut bound: BTreeMap<(&Name, Addr), (MacAddr, Place)> = BTreeMap::new();
        let mut clashes = Vec::new();
        let gateways = self.intent.segments.iter();
        let gateways = gateways
            .flat_map(|(name, segment)| segment.gateways.iter().map(move |b| (name, *b, segment.place)));
        let of_nics = self.nics().flat_map(|nic| {
            let own = nic.identity.shared.iter().chain(&nic.identity.gateways);
            own.map(move |binding| (&nic.segment, *binding, nic.place))
        });
        let own = self.nics().flat_map(|nic| {
            let hosts = nic.identity.addresses.iter().filter(|address| address.is_host());
            hosts.map(move |address| {
                let binding = fw_model::Binding { address: address.network(), mac: nic.identity.mac };
                (&nic.segment, binding, nic.place)
            })
        });
        for (segment, binding, place) in gateways.chain(of_nics).chain(own) {
            let (mac, first) = *bound.entry((segment, binding.address)).or_insert((binding.mac, place));
            if mac != binding.mac {
                let first = self.intent.shown(first);
                let message = format!(
                    "{} on segment `{segment}` is bound to {} here and to {mac} at {first}; one mac may use it",
                    binding.address, binding.mac
                );
                clashes.push((place, message));
            }
        }
        for (place, message) in clashes {
            self.findings.error(place, message);
        }
    }
}
