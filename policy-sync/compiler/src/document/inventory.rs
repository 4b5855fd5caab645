//! Tenants, keys, segments and workloads as documents write them.
//!
//! Knows the keys of each. Never knows whether they fit together.

use std::collections::{BTreeMap, BTreeSet};

use fw_document::nic::{bindings, dhcp_servers, each, identity_of};
use fw_document::read::{self, Fields};
use fw_document::tree::{Entry, Node, Value};
use fw_model::VlanId;

use super::{Reader, insert};
use crate::intent::Tagging;
use crate::inventory::{Key, Nic, Segment, Tag, Tenant, Workload};
use crate::name::{NAME_LEN_MAX, Name, Owner, REALM_LEN_MAX, WORKLOAD_LEN_MAX};

const SEGMENT: &[&str] = &["tenant", "realm", "vlan", "gateways", "dhcp-servers", "mtu"];
const WORKLOAD: &[&str] = &["tenant", "labels", "facts", "nics"];
const LABELS: &str = "{web-1: {app: web}}";

impl Reader<'_> {
    pub(super) fn inventory(&mut self, fields: &Fields<'_, '_>) {
        self.tenants(fields);
        for (key, key_of_facts) in [("label-keys", false), ("fact-keys", true)] {
            for entry in self.entries(fields, key, "{app: any, env: [prod, stage]}") {
                self.declared_key(entry, key_of_facts);
            }
        }
        for entry in self.entries(fields, "segments", "{front: {realm: shop}}") {
            self.segment(entry);
        }
        for entry in self.entries(fields, "workloads", "{web-1: {tenant: shop, nics: [...]}}") {
            self.workload_entry(entry);
        }
        for (key, are_facts) in [("labels", false), ("facts", true)] {
            for entry in self.entries(fields, key, LABELS) {
                self.tagging(entry, key, are_facts);
            }
        }
    }

    fn tenants(&mut self, fields: &Fields<'_, '_>) {
        let Some(node) = fields.get("tenants") else { return };
        for item in read::list(node, "tenants", "[shop, blog]", self.problems).unwrap_or_default() {
            let Some(name) = self.name(item, "tenants") else { continue };
            if !self.is_free(&name, "tenant", item.line) {
                continue;
            }
            let tenant = Tenant { place: self.place(item.line) };
            let files = &self.intent.files;
            let shown = |first: &Tenant| {
                format!("{}:{}", files.get(first.place.file).map_or("?", |f| f), first.place.line)
            };
            if let Err(first) = insert(&mut self.intent.tenants, name.clone(), tenant, shown) {
                self.problems.add(item.line, format!("tenant `{name}` is declared twice; first at {first}"));
            }
        }
    }

    fn declared_key(&mut self, entry: &Entry<'_>, is_fact: bool) {
        let Some(name) = self.key(entry, NAME_LEN_MAX) else { return };
        if !is_fact && (entry.key.starts_with("fact.") || entry.key == "tenant") {
            self.problems.add(
                entry.line,
                format!("no label key may be called `{name}`: selectors mean a fact or the tenant by it"),
            );
            return;
        }
        let values = match &entry.value.value {
            Value::Plain(text) if text == "any" => None,
            Value::Nothing | Value::Plain(_) | Value::Quoted(_) | Value::List(_) | Value::Map(_) => {
                let Some(items) =
                    read::some_list(&entry.value, &entry.key, "[prod, stage], or any", self.problems)
                else {
                    return;
                };
                let Some(values) = each(items, |item| self.name(item, &entry.key)) else { return };
                Some(values.into_iter().collect::<BTreeSet<_>>())
            }
        };
        let key = Key { owner: self.owner.clone(), values, place: self.place(entry.line) };
        let files = &self.intent.files;
        let shown =
            |first: &Key| format!("{}:{}", files.get(first.place.file).map_or("?", |f| f), first.place.line);
        let keys = if is_fact {
            &mut self.intent.fact_keys
        } else {
            self.intent.label_keys.entry(self.owner.clone()).or_default()
        };
        if let Err(first) = insert(keys, name.clone(), key, shown) {
            self.problems.add(entry.line, format!("key `{name}` is declared twice; first at {first}"));
        }
    }

    fn segment(&mut self, entry: &Entry<'_>) {
        let (Some(name), Some(segment)) = (self.key(entry, NAME_LEN_MAX), self.segment_of(entry)) else {
            return;
        };
        let files = &self.intent.files;
        let shown = |first: &Segment| {
            format!("{}:{}", files.get(first.place.file).map_or("?", |f| f), first.place.line)
        };
        if let Err(first) = insert(&mut self.intent.segments, name.clone(), segment, shown) {
            self.problems.add(entry.line, format!("segment `{name}` is declared twice; first at {first}"));
        }
    }

    fn segment_of(&mut self, entry: &Entry<'_>) -> Option<Segment> {
        let fields = Fields::read(&entry.value, "a segment", SEGMENT, self.problems)?;
        let tenant = fields.get("tenant").map(|node| self.name(node, "tenant"));
        let realm = match fields.get("realm") {
            Some(node) => {
                let realm = read::text(node).and_then(|text| Name::limited(text, REALM_LEN_MAX).ok());
                if realm.is_none() {
                    let message =
                        format!("`realm`: expected a name of at most {REALM_LEN_MAX} letters, found {node}");
                    self.problems.add(node.line, message);
                }
                realm
            }
            None => self.key(entry, REALM_LEN_MAX),
        };
        let vlan = fields.get("vlan").map(|node| read::number(node, "vlan", 1_u16, 4094, self.problems));
        let gateways = fields.get("gateways").map(|node| bindings(node, "gateways", self.problems));
        let servers = fields.get("dhcp-servers").map(|node| dhcp_servers(node, self.problems));
        let mtu = fields.get("mtu").map(|node| read::number(node, "mtu", 68, u16::MAX, self.problems));
        Some(Segment {
            tenant: tenant.map_or(Some(None), |tenant| tenant.map(Some))?,
            realm: realm?,
            vlan: vlan.flatten().and_then(|number| VlanId::try_from(number).ok()),
            gateways: gateways.unwrap_or_else(|| Some(Vec::new()))?,
            dhcp_servers: servers.unwrap_or_else(|| Some(Vec::new()))?,
            mtu: mtu.flatten(),
            place: self.place(entry.line),
        })
    }

    fn workload_entry(&mut self, entry: &Entry<'_>) {
        let name = self.key(entry, WORKLOAD_LEN_MAX);
        let (Some(name), Some(workload)) = (name, self.workload_of(entry)) else { return };
        let files = &self.intent.files;
        let shown = |first: &Workload| {
            format!("{}:{}", files.get(first.place.file).map_or("?", |f| f), first.place.line)
        };
        if let Err(first) = insert(&mut self.intent.workloads, name.clone(), workload, shown) {
            self.problems.add(entry.line, format!("workload `{name}` is declared twice; first at {first}"));
        }
    }

    fn workload_of(&mut self, entry: &Entry<'_>) -> Option<Workload> {
        let fields = Fields::read(&entry.value, "a workload", WORKLOAD, self.problems)?;
        let tenant = fields.need("tenant", self.problems).and_then(|node| self.name(node, "tenant"));
        let labels =
            fields.get("labels").map_or_else(|| Some(BTreeMap::new()), |node| self.tags(node, "labels"));
        let facts =
            fields.get("facts").map_or_else(|| Some(BTreeMap::new()), |node| self.tags(node, "facts"));
        let nics = match fields.get("nics") {
            Some(node) => {
                let items = read::list(node, "nics", "[{id: web-1, segment: front, mac: …}]", self.problems)?;
                each(items, |item| self.nic(item))
            }
            None => Some(Vec::new()),
        };
        let place = self.place(entry.line);
        Some(Workload { tenant: tenant?, labels: labels?, facts: facts?, nics: nics?, place })
    }

    /// As in a rules file, and the segment.
    fn nic(&mut self, node: &Node<'_>) -> Option<Nic> {
        let (identity, fields) = identity_of(node, &["segment"], self.problems)?;
        let segment = fields.need("segment", self.problems).and_then(|node| self.name(node, "segment"));
        Some(Nic { identity: identity?, segment: segment?, place: self.place(node.line) })
    }

    fn tags(&mut self, node: &Node<'_>, key: &str) -> Option<BTreeMap<Name, Tag>> {
        if !matches!(node.value, Value::Map(_)) {
            self.map(node, key, "{app: web}");
            return None;
        }
        let entries = self.map(node, key, "{app: web}");
        let mut tags = BTreeMap::new();
        for entry in entries {
            let name = self.key(entry, NAME_LEN_MAX);
            let (Some(name), Some(value)) = (name, self.name(&entry.value, &entry.key)) else { continue };
            let tag = Tag { value, author: self.owner.clone(), place: self.place(entry.line) };
            tags.insert(name, tag);
        }
        (tags.len() == entries.len()).then_some(tags)
    }

    fn tagging(&mut self, entry: &Entry<'_>, key: &str, are_facts: bool) {
        let name = self.key(entry, WORKLOAD_LEN_MAX);
        let (Some(workload), Some(tags)) = (name, self.tags(&entry.value, key)) else { return };
        let (labels, facts) = if are_facts { (BTreeMap::new(), tags) } else { (tags, BTreeMap::new()) };
        let author: Owner = self.owner.clone();
        let place = self.place(entry.line);
        self.intent.taggings.push(Tagging { workload, author, labels, facts, place });
    }
}
