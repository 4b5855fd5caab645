//! Groups as documents write them.
//!
//! Knows members, selectors, nesting, ranges and sharing. Never knows who is picked.

use fw_document::nic::each;
use fw_document::read::{self, Fields};
use fw_document::tree::{Entry, Node, Value};

use super::{Reader, insert};
use crate::group::{Condition, Field, Group, Parts, Placed, Selector, Share};
use crate::name::{Name, Ref, WORKLOAD_LEN_MAX};

const KEYS: &[&str] = &["members", "select", "groups", "ranges", "exclude", "complete", "share"];
const PARTS: &[&str] = &["members", "select", "groups", "ranges"];
const SELECTOR: &str = "{app: web, env: [prod, stage]}";

impl Reader<'_> {
    pub(super) fn groups(&mut self, fields: &Fields<'_, '_>) {
        for entry in self.entries(fields, "groups", "{web: {select: {app: web}}}") {
            let (Some(name), Some(group)) = (self.group_name(entry), self.group(&entry.value)) else {
                continue;
            };
            let key = Ref { owner: self.owner.clone(), name };
            let files = &self.intent.files;
            let shown = |first: &Group| {
                format!("{}:{}", files.get(first.place.file).map_or("?", |f| f), first.place.line)
            };
            if let Err(first) = insert(&mut self.intent.groups, key.clone(), group, shown) {
                self.problems.add(entry.line, format!("group `{key}` is declared twice; first at {first}"));
            }
        }
    }

    /// A group's name does not look like an address.
    fn group_name(&mut self, entry: &Entry<'_>) -> Option<Name> {
        if entry.key.starts_with(|letter: char| letter.is_ascii_digit()) || &*entry.key == "any" {
            let message =
                format!("`{}` is no group's name: it would be read as an address or as anyone", entry.key);
            self.problems.add(entry.line, message);
            return None;
        }
        self.key(entry, crate::name::NAME_LEN_MAX)
    }

    fn group(&mut self, node: &Node<'_>) -> Option<Group> {
        let fields = Fields::read(node, "a group", KEYS, self.problems)?;
        let include = self.parts(&fields);
        let exclude = match fields.get("exclude") {
            Some(node) => Fields::read(node, "what a group excludes", PARTS, self.problems)
                .and_then(|fields| self.parts(&fields)),
            None => Some(Parts::default()),
        };
        let complete =
            fields.get("complete").map_or(Some(true), |node| read::boolean(node, "complete", self.problems));
        let share = self.share(&fields);
        let place = self.place(node.line);
        Some(Group { include: include?, exclude: exclude?, complete: complete?, share: share?, place })
    }

    fn parts(&mut self, fields: &Fields<'_, '_>) -> Option<Parts> {
        let members = match fields.get("members") {
            Some(node) => {
                let items = read::list(node, "members", "[web-1, web-2]", self.problems)?;
                each(items, |item| self.workload(item))
            }
            None => Some(Vec::new()),
        };
        let select = fields.get("select").map_or_else(|| Some(Vec::new()), |node| self.selectors(node));
        let groups =
            fields.get("groups").map_or_else(|| Some(Vec::new()), |node| self.group_list(node, "groups"));
        let ranges = match fields.get("ranges") {
            Some(node) => {
                let items = read::list(node, "ranges", "[198.51.100.0/24]", self.problems)?;
                each(items, |item| read::parsed(item, "ranges", "an address or a prefix", self.problems))
            }
            None => Some(Vec::new()),
        };
        Some(Parts { members: members?, select: select?, groups: groups?, ranges: ranges? })
    }

    fn workload(&mut self, node: &Node<'_>) -> Option<Placed<Name>> {
        let name = read::text(node).and_then(|text| Name::limited(text, WORKLOAD_LEN_MAX).ok());
        if name.is_none() {
            self.problems.add(node.line, format!("`members`: expected a workload's name, found {node}"));
        }
        name.map(|value| Placed { value, place: self.place(node.line) })
    }

    /// A list of group names.
    pub(super) fn group_list(&mut self, node: &Node<'_>, key: &str) -> Option<Vec<Placed<Ref>>> {
        let items = read::list(node, key, "[web, app]", self.problems)?;
        each(items, |item| {
            let value = self.reference(item, key, "a group's name")?;
            Some(Placed { value, place: self.place(item.line) })
        })
    }

    fn selectors(&mut self, node: &Node<'_>) -> Option<Vec<Selector>> {
        match &node.value {
            Value::List(items) => each(items, |item| self.selector(item)),
            Value::Nothing | Value::Plain(_) | Value::Quoted(_) | Value::Map(_) => {
                Some(vec![self.selector(node)?])
            }
        }
    }

    fn selector(&mut self, node: &Node<'_>) -> Option<Selector> {
        let entries = self.map(node, "select", SELECTOR);
        if entries.is_empty() {
            if matches!(node.value, Value::Map(_)) {
                self.problems
                    .add(node.line, "`select`: no condition would pick everybody; write at least one");
            }
            return None;
        }
        let conditions: Vec<_> = entries.iter().filter_map(|entry| self.condition(entry)).collect();
        (conditions.len() == entries.len()).then_some(Selector { conditions })
    }

    fn condition(&mut self, entry: &Entry<'_>) -> Option<Condition> {
        let field = match entry.key.strip_prefix("fact.") {
            Some(key) => key.parse().map(Field::Fact),
            None if entry.key == "tenant" => Ok(Field::Tenant),
            None => entry.key.parse().map(Field::Label),
        };
        let field = field.map_err(|error| self.problems.add(entry.line, error.to_string())).ok()?;
        let values = match &entry.value.value {
            Value::List(_) => {
                let items = read::some_list(&entry.value, &entry.key, "[prod, stage]", self.problems)?;
                each(items, |item| self.name(item, &entry.key))?
            }
            Value::Plain(text) if text == "any" => Vec::new(),
            Value::Nothing | Value::Plain(_) | Value::Quoted(_) | Value::Map(_) => {
                vec![self.name(&entry.value, &entry.key)?]
            }
        };
        Some(Condition { field, values, place: self.place(entry.line) })
    }

    fn share(&mut self, fields: &Fields<'_, '_>) -> Option<Share> {
        let Some(node) = fields.get("share") else { return Some(Share::Nobody) };
        if read::text(node) == Some("all") {
            return Some(Share::All);
        }
        let items = read::list(node, "share", "[blog], or all", self.problems)?;
        let tenants = each(items, |item| {
            let value = self.name(item, "share")?;
            Some(Placed { value, place: self.place(item.line) })
        })?;
        Some(Share::Tenants(tenants))
    }
}
