//! Rules that allow at one end what the other end drops.
//!
//! Knows a pair of NICs for each rule with `applied_to`. Never knows every pair: this is a hint, not a proof.

use fw_model::{DefaultAction, Direction, NicId, ProtocolMatch};

use crate::diagnostic::Findings;
use crate::evaluate::{Question, decide};
use crate::form::SharedForm;
use crate::name::Owner;
use crate::order::{SharedRule, Side};
use crate::policy::Verb;

/// Most rules that are looked into: each costs the rules of a NIC.
const LOOKED_INTO_MAX: usize = 500;
/// Most NICs of one end that are tried.
const TRIED_MAX: usize = 8;

/// Warns of each rule that allows, is applied to one end alone, and whose other end is a NIC of ours that drops it.
pub(crate) fn warn(form: &SharedForm, now_ms: i64, findings: &mut Findings) {
    let narrowed = form.rules().iter().filter(|rule| rule.verb == Verb::Allow && rule.applied_to.is_some());
    for rule in narrowed.take(LOOKED_INTO_MAX) {
        let Some((carrier, other, direction)) = pair(form, rule) else { continue };
        let (Some(rules), Some((_, held))) = (form.rules_of(&other, now_ms), form.held_nic(&carrier)) else {
            continue;
        };
        let question = rule.templates.first().zip(held.addresses().next()).and_then(|(template, address)| {
            let port = template.out.ports.first().map_or(1, |range| range.first());
            let protocol = match template.out.protocol {
                ProtocolMatch::Udp => 17,
                ProtocolMatch::Number(number) => number,
                ProtocolMatch::Tcp | ProtocolMatch::Usual | ProtocolMatch::Any => 6,
                ProtocolMatch::Icmp => return None,
            };
            Some(Question { direction, remote: address.network(), protocol, port, icmp: None })
        });
        let Some(question) = question else { continue };
        if decide(&rules, &question).action != DefaultAction::Allow {
            let way = if direction == Direction::Out { "does not let it out" } else { "does not let it in" };
            let message = format!(
                "rule `{}` allows at NIC `{carrier}` alone: NIC `{other}`, the other end, {way}; write a rule for it too, or leave `applied_to` out",
                rule.name
            );
            findings.warn(rule.place, message);
        }
    }
}

/// A NIC that carries the rule, one at the other end that does not, and the way frames go at that one.
fn pair(form: &SharedForm, rule: &SharedRule) -> Option<(NicId, NicId, Direction)> {
    let (sources, destinations) = (nics(form, &rule.from, rule), nics(form, &rule.to, rule));
    for source in &sources {
        for destination in destinations.iter().filter(|destination| *destination != source) {
            let realm = |nic: &NicId| form.held_nic(nic).map(|(_, held)| held.realm.clone());
            if realm(source) != realm(destination) {
                continue;
            }
            match (carries(form, source, rule), carries(form, destination, rule)) {
                (true, false) => return Some((source.clone(), destination.clone(), Direction::In)),
                (false, true) => return Some((destination.clone(), source.clone(), Direction::Out)),
                (true, true) | (false, false) => {}
            }
        }
    }
    None
}

/// The first NICs of one end, as far as groups say who that is.
fn nics(form: &SharedForm, side: &Side, rule: &SharedRule) -> Vec<NicId> {
    let Side::These { groups, .. } = side else { return Vec::new() };
    let members =
        groups.iter().filter_map(|group| form.groups().get(*group)).flat_map(|group| &group.members);
    let in_scope = members.filter(|member| {
        form.workload(**member).is_some_and(|entry| {
            rule.policy.owner == Owner::Provider
                || rule.policy.owner == Owner::Tenant(entry.workload.tenant.clone())
        })
    });
    let held = in_scope.filter_map(|member| form.held.get(*member)).flatten();
    held.take(TRIED_MAX).map(|held| held.id().clone()).collect()
}

fn carries(form: &SharedForm, nic: &NicId, rule: &SharedRule) -> bool {
    let Some((workload, _)) = form.held_nic(nic) else { return false };
    rule.applied_to
        .as_ref()
        .is_none_or(|groups| groups.iter().any(|group| form.groups().contains(*group, workload)))
}
