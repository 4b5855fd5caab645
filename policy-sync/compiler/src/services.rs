//! Services put together: what one rule needs of each protocol.
//!
//! Knows protocols and ports. Never knows who speaks.

use fw_model::{IcmpMatch, PortRange, ProtocolMatch};

use crate::intent::Intent;
use crate::policy::{PolicyRule, ServicePart, ServiceUse};

/// The parts of all services of a rule, one for each protocol.
pub(crate) fn of_rule(rule: &PolicyRule, intent: &Intent) -> Vec<ServicePart> {
    let mut merged: Vec<ServicePart> = Vec::new();
    for service in &rule.services {
        match &service.value {
            ServiceUse::Inline(part) => merge(&mut merged, part),
            ServiceUse::Named(name) => {
                for part in intent.services.get(name).into_iter().flat_map(|service| &service.parts) {
                    merge(&mut merged, part);
                }
            }
        }
    }
    for part in &mut merged {
        part.ports = coalesced(std::mem::take(&mut part.ports));
        part.icmp = distinct(std::mem::take(&mut part.icmp));
    }
    let is_any = |part: &ServicePart| part.protocol == ProtocolMatch::Any && part.ethertype.is_none();
    if merged.iter().any(is_any) {
        merged.retain(|part| is_any(part) || part.ethertype.is_some());
    }
    merged
}

fn merge(merged: &mut Vec<ServicePart>, part: &ServicePart) {
    let protocol = plain(part.protocol);
    let alike =
        merged.iter_mut().find(|known| known.protocol == protocol && known.ethertype == part.ethertype);
    match alike {
        Some(known) => {
            // None written means all of them.
            let all_ports = known.ports.is_empty() || part.ports.is_empty();
            let all_icmp = known.icmp.is_empty() || part.icmp.is_empty();
            known.ports.extend(&part.ports);
            known.icmp.extend(&part.icmp);
            if all_ports {
                known.ports.clear();
            }
            if all_icmp {
                known.icmp.clear();
            }
        }
        None => merged.push(ServicePart { protocol, ..part.clone() }),
    }
}

/// One way of writing a protocol that has two.
pub(crate) const fn plain(protocol: ProtocolMatch) -> ProtocolMatch {
    if matches!(protocol, ProtocolMatch::Number(6)) {
        return ProtocolMatch::Tcp;
    }
    if matches!(protocol, ProtocolMatch::Number(17)) { ProtocolMatch::Udp } else { protocol }
}

/// Ranges in order, those that touch joined.
fn coalesced(mut ranges: Vec<PortRange>) -> Vec<PortRange> {
    ranges.sort_unstable();
    let mut joined: Vec<PortRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        let last = joined.last_mut();
        match last {
            Some(last) if u32::from(range.first()) <= u32::from(last.last()) + 1 => {
                if let Some(wider) = PortRange::new(last.first(), last.last().max(range.last())) {
                    *last = wider;
                }
            }
            Some(_) | None => joined.push(range),
        }
    }
    joined
}

fn distinct(kinds: Vec<IcmpMatch>) -> Vec<IcmpMatch> {
    let mut distinct: Vec<IcmpMatch> = Vec::with_capacity(kinds.len());
    for kind in kinds {
        if !distinct.contains(&kind) {
            distinct.push(kind);
        }
    }
    distinct
}

/// How a part is called at the end of a rule's id.
pub(crate) fn word(part: &ServicePart) -> String {
    match (part.ethertype, part.protocol) {
        (Some(ethertype), _) => format!("{ethertype:04x}"),
        (None, ProtocolMatch::Usual) => "usual".to_owned(),
        (None, ProtocolMatch::Tcp) => "tcp".to_owned(),
        (None, ProtocolMatch::Udp) => "udp".to_owned(),
        (None, ProtocolMatch::Icmp) => "icmp".to_owned(),
        (None, ProtocolMatch::Any) => "any".to_owned(),
        (None, ProtocolMatch::Number(number)) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_joined() {
        let ranges = ["80", "443", "81-90", "85-100", "65535"].map(|text| text.parse().unwrap());
        let joined: Vec<String> = coalesced(ranges.to_vec()).iter().map(ToString::to_string).collect();
        assert_eq!(joined, ["80-100", "443", "65535"]);
    }
}
