//! Who is in a group, and by what: a name, a label, a fact, another group, a range.
//!
//! Knows membership. Never knows which rules name the group.

use std::collections::BTreeSet;

use crate::form::SharedForm;
use crate::name::Name;

/// Somebody who is in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// A workload; none where addresses are counted, whoever holds them.
    pub workload: Option<Name>,
    /// Its addresses, or the range.
    pub addresses: Vec<String>,
    /// Why: `label app=web`, `in shop/web: named as a member`.
    pub why: String,
}

impl SharedForm {
    /// Who is in the group that people write as `text` (`shop/web`).
    ///
    /// # Errors
    /// There is no such group.
    pub fn who(&self, text: &str) -> Result<Vec<GroupMember>, String> {
        let list = &self.groups().list;
        let found = list.iter().enumerate().find(|(_, group)| group.key.to_string() == text);
        let Some((number, group)) = found else {
            let known: Vec<String> = list.iter().map(|group| group.key.to_string()).take(1000).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            return Err(format!("there is no group `{text}`{}", fw_document::read::suggestion(text, &known)));
        };
        let named = group.members.iter().filter_map(|member| {
            let held = self.held.get(*member).into_iter().flatten();
            Some(GroupMember {
                workload: Some(self.workload(*member)?.name.clone()),
                addresses: held.flat_map(|nic| nic.addresses()).map(|prefix| prefix.to_string()).collect(),
                why: self.reason(number, Some(*member)),
            })
        });
        Ok(named.chain(self.ranges_in(number)).collect())
    }

    /// The ranges that a group and the groups in it are written with.
    fn ranges_in(&self, number: usize) -> Vec<GroupMember> {
        let (mut ranges, mut seen, mut waiting) = (Vec::new(), BTreeSet::new(), vec![number]);
        while let Some(place) = waiting.pop() {
            if !seen.insert(place) {
                continue;
            }
            let Some(group) = self.groups().get(place) else { continue };
            let less = if group.exclude.ranges.is_empty() && group.exclude.groups.is_empty() {
                ""
            } else {
                ", minus what it excludes"
            };
            let way = if place == number { String::new() } else { format!("in {}: ", group.key) };
            ranges.extend(group.include.ranges.iter().map(|range| GroupMember {
                workload: None,
                addresses: vec![range.to_string()],
                why: format!("{way}range{less}"),
            }));
            waiting.extend(&group.include.groups);
        }
        ranges
    }
}
