//! Intent and one NIC: the rules it carries, in order.
//!
//! Knows which groups a NIC's workload is in and which of its addresses lie in ranges. Never multiplies a rule by a
//! group's members: it names sets.

use fw_model::{Addr, Cidr, Direction, RemoteMatch, Rule};

use crate::form::SharedForm;
use crate::membership::GroupKey;
use crate::name::Owner;
use crate::order::{SharedRule, Side};
use crate::policy::{Tier, Verb};
use crate::sets::{Family, HeldNic, set_name};

/// A rule of one NIC, before it is known where those that pass on go on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expanded {
    pub(crate) rule: Rule,
    pub(crate) verb: Verb,
    pub(crate) tier: Tier,
    pub(crate) expires_at_ms: Option<i64>,
    /// The place of the rule it comes from.
    pub(crate) shared: usize,
}

/// How much of a NIC's addresses of one family one end of a rule means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Cover {
    None,
    Some,
    All,
}

/// By family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Presence {
    v4: Cover,
    v6: Cover,
}

impl Presence {
    const WHOLE: Self = Self { v4: Cover::All, v6: Cover::All };

    /// The families of which at least `least` is meant.
    fn family(self, least: Cover) -> Option<Family> {
        match (self.v4 >= least, self.v6 >= least) {
            (true, true) => Some(Family::Both),
            (true, false) => Some(Family::V4),
            (false, true) => Some(Family::V6),
            (false, false) => None,
        }
    }
}

/// The rules that the NIC `held` of `workload` carries, in order.
pub(crate) fn expand(form: &SharedForm, workload: usize, held: &HeldNic) -> Vec<Expanded> {
    let Some(tenant) = form.workload(workload).map(|entry| Owner::Tenant(entry.workload.tenant.clone()))
    else {
        return Vec::new();
    };
    let view = View { form, workload, held };
    let mut expanded = Vec::new();
    for (shared, direction) in form.index().touching(form, workload, held, &tenant) {
        let Some(rule) = form.rule(shared) else { continue };
        let in_scope = rule.policy.owner == Owner::Provider || rule.policy.owner == tenant;
        if in_scope && view.is_applied(rule) {
            view.add(shared, rule, direction, &mut expanded);
        }
    }
    expanded
}

struct View<'a> {
    form: &'a SharedForm,
    workload: usize,
    held: &'a HeldNic,
}

impl View<'_> {
    fn is_applied(&self, rule: &SharedRule) -> bool {
        let Some(groups) = &rule.applied_to else { return true };
        groups.iter().any(|group| {
            let ranged = self.form.all_sets().ranged(*group, &self.held.realm);
            self.form.groups().contains(*group, self.workload)
                || ranged.is_some_and(|held| self.held.addresses().any(|address| held.meet(address)))
        })
    }

    fn add(&self, shared: usize, rule: &SharedRule, direction: Direction, expanded: &mut Vec<Expanded>) {
        let (local, remote) = match direction {
            Direction::Out => (&rule.from, &rule.to),
            Direction::In => (&rule.to, &rule.from),
        };
        let presence = self.presence(local);
        let Some((verb, family)) = effect(rule.verb, presence) else { return };
        let Some(remotes) = self.remotes(remote, family, rule) else { return };
        // Replies come to those who asked.
        let asks = direction == Direction::Out
            && !matches!(&rule.reply_from, Side::These { groups, prefixes } if groups.is_empty() && prefixes.is_empty());
        let reply_from = if asks {
            self.remotes(&rule.reply_from, Family::Both, rule).unwrap_or_default()
        } else {
            Vec::new()
        };
        for template in &rule.templates {
            let template = match direction {
                Direction::Out => &template.out,
                Direction::In => &template.in_,
            };
            let built = Rule { remote: remotes.clone(), reply_from: reply_from.clone(), ..template.clone() };
            expanded.push(Expanded {
                rule: built,
                verb,
                tier: rule.tier,
                expires_at_ms: rule.expires_at_ms,
                shared,
            });
        }
    }

    /// How much of the NIC is at this end.
    fn presence(&self, side: &Side) -> Presence {
        let groups = self.form.groups();
        match side {
            Side::Any => Presence::WHOLE,
            Side::Same(key) => {
                let labelled = self
                    .form
                    .workload(self.workload)
                    .is_some_and(|entry| entry.workload.labels.contains_key(key));
                if labelled { Presence::WHOLE } else { Presence { v4: Cover::None, v6: Cover::None } }
            }
            Side::These { groups: numbers, prefixes } => {
                let is_plain = |group: usize| groups.get(group).is_some_and(|group| !group.is_ranged);
                if numbers.iter().any(|group| is_plain(*group) && groups.contains(*group, self.workload)) {
                    return Presence::WHOLE;
                }
                let of = |family: Family| self.cover(family, numbers, prefixes);
                Presence { v4: of(Family::V4), v6: of(Family::V6) }
            }
        }
    }

    /// By addresses, where ranges are meant.
    fn cover(&self, family: Family, groups: &[usize], prefixes: &[Cidr]) -> Cover {
        let sets = self.form.all_sets();
        let ranged: Vec<_> =
            groups.iter().filter_map(|group| sets.ranged(*group, &self.held.realm)).collect();
        let (mut all, mut some, mut count) = (true, false, 0);
        for address in self.held.addresses().filter(|address| family.holds(*address)) {
            let covered = prefixes.iter().any(|prefix| covers(*prefix, address))
                || ranged.iter().any(|held| held.cover(address));
            let met = covered
                || prefixes.iter().any(|prefix| address.contains(prefix.network()))
                || ranged.iter().any(|held| held.meet(address));
            all &= covered;
            some |= met;
            count += 1;
        }
        match (count > 0 && all, some) {
            (true, _) => Cover::All,
            (false, true) => Cover::Some,
            (false, false) => Cover::None,
        }
    }

    /// The other end as a rule names it: none for anyone. `None` if it means nobody of the family.
    fn remotes(&self, side: &Side, family: Family, rule: &SharedRule) -> Option<Vec<RemoteMatch>> {
        let realm = &self.held.realm;
        match side {
            Side::Any => Some(match family {
                Family::Both => Vec::new(),
                Family::V4 => vec![RemoteMatch::Prefix(Cidr::new(Addr::v4([0; 4]), 96))],
                Family::V6 => vec![RemoteMatch::Prefix(Cidr::new(Addr::v6([0; 16]), 0))],
            }),
            Side::Same(key) => {
                let value = &self.form.workload(self.workload)?.workload.labels.get(key)?.value;
                let same = GroupKey::Same {
                    owner: rule.policy.owner.clone(),
                    key: key.clone(),
                    value: value.clone(),
                };
                Some(vec![RemoteMatch::Set(set_name(&same.to_string(), realm, family)?)])
            }
            Side::These { groups, prefixes } => {
                let set = |group: &usize| match (family, self.form.all_sets().of_group(*group, realm)) {
                    (Family::Both, Some(set)) => Some(set.name.clone()),
                    _ => set_name(&self.form.groups().get(*group)?.key.to_string(), realm, family),
                };
                let mut remotes: Vec<_> = groups.iter().filter_map(set).map(RemoteMatch::Set).collect();
                remotes.extend(
                    prefixes.iter().filter(|prefix| family.holds(**prefix)).copied().map(RemoteMatch::Prefix),
                );
                (!remotes.is_empty()).then_some(remotes)
            }
        }
    }
}

/// What a rule does at a NIC of which `presence` is meant: one that allows means whole families only, one that refuses means
/// whatever it touches, and one that passes on refuses where it would have to do so for some addresses alone.
fn effect(verb: Verb, presence: Presence) -> Option<(Verb, Family)> {
    match verb {
        Verb::Allow => presence.family(Cover::All).map(|family| (verb, family)),
        Verb::Drop | Verb::Reject => presence.family(Cover::Some).map(|family| (verb, family)),
        Verb::Pass if presence.v4 == Cover::Some || presence.v6 == Cover::Some => {
            presence.family(Cover::Some).map(|family| (Verb::Drop, family))
        }
        Verb::Pass => presence.family(Cover::All).map(|family| (verb, family)),
    }
}

/// Whether `wide` holds all of `narrow`.
pub(crate) fn covers(wide: Cidr, narrow: Cidr) -> bool {
    wide.length() <= narrow.length() && wide.contains(narrow.network())
}
