//! Do the fields of one rule fit together?
//!
//! Knows one rule. Never knows the others, nor the sets.

use fw_model::{Action, Helper, Protocol, ProtocolMatch, Rule};

use super::{Findings, at};

pub(super) fn check(rule: &Rule, findings: &mut Findings) {
    if let Some(ethertype) = rule.ethertype {
        return check_ethertype(rule, ethertype, findings);
    }
    check_ports(rule, findings);
    check_icmp(rule, findings);
    check_helper(rule, findings);
    check_reply_from(rule, findings);
}

fn check_ethertype(rule: &Rule, ethertype: u16, findings: &mut Findings) {
    let message = match ethertype {
        // IEEE 802.3: smaller numbers are lengths.
        0..0x0600 => Some("is a frame length, not an ethertype; 0x0600 is the lowest"),
        0x0800 | 0x86dd => Some("is IP; leave `ethertype` out and name protocols and addresses"),
        0x8100 | 0x88a8 | 0x9100 => Some("is a VLAN tag; the NIC's VLAN is `nic: vlan`"),
        0x0600.. => None,
    };
    if let Some(message) = message {
        findings.add(at(rule, "ethertype"), format!("{ethertype:#06x} {message}"));
    }
    for (field, is_written) in [
        ("protocol", rule.protocol != ProtocolMatch::Usual),
        ("ports", !rule.ports.is_empty()),
        ("icmp", !rule.icmp.is_empty()),
        ("remote", !rule.remote.is_empty()),
        ("helper", rule.helper.is_some()),
        ("reply-from", !rule.reply_from.is_empty()),
    ] {
        if is_written {
            findings.add(
                at(rule, field),
                "a rule with `ethertype` is for frames that are not IP; leave one of the two out",
            );
        }
    }
}

fn check_ports(rule: &Rule, findings: &mut Findings) {
    if rule.ports.is_empty() {
        return;
    }
    let message = match rule.protocol {
        ProtocolMatch::Usual | ProtocolMatch::Tcp | ProtocolMatch::Udp => return,
        ProtocolMatch::Number(number) if matches!(Protocol(number), Protocol::TCP | Protocol::UDP) => return,
        ProtocolMatch::Icmp => {
            "ICMP has no ports; leave `ports` out, or write `protocol: tcp` or `udp`".to_owned()
        }
        ProtocolMatch::Any => {
            "not every protocol has ports; leave `protocol` out to mean TCP and UDP".to_owned()
        }
        ProtocolMatch::Number(number) => {
            format!(
                "protocol {number} has no ports a rule can name; leave `ports` out, or write `protocol: tcp` or `udp`"
            )
        }
    };
    findings.add(at(rule, "ports"), message);
}

fn check_icmp(rule: &Rule, findings: &mut Findings) {
    if !rule.icmp.is_empty() && rule.protocol != ProtocolMatch::Icmp {
        findings.add(at(rule, "icmp"), "`protocol: icmp` is missing; ICMP types go with it alone");
    }
}

fn check_helper(rule: &Rule, findings: &mut Findings) {
    let (name, word, protocol, written) = match rule.helper {
        None => return,
        Some(Helper::Ftp) => ("ftp", "tcp", Protocol::TCP, ProtocolMatch::Tcp),
        Some(Helper::Tftp) => ("tftp", "udp", Protocol::UDP, ProtocolMatch::Udp),
    };
    if rule.protocol != written && rule.protocol != ProtocolMatch::Number(protocol.0) {
        findings.add(at(rule, "helper"), format!("`{name}` needs `protocol: {word}`"));
    }
}

fn check_reply_from(rule: &Rule, findings: &mut Findings) {
    if rule.reply_from.is_empty() {
        return;
    }
    let asks_by_udp = match rule.protocol {
        ProtocolMatch::Usual | ProtocolMatch::Udp | ProtocolMatch::Any => true,
        ProtocolMatch::Number(number) => Protocol(number) == Protocol::UDP,
        ProtocolMatch::Tcp | ProtocolMatch::Icmp => false,
    };
    if !asks_by_udp {
        findings.add(
            at(rule, "reply-from"),
            "only UDP requests to a group are answered so; write `protocol: udp`",
        );
    }
    if rule.action != Action::Allow {
        findings.add(at(rule, "reply-from"), "only a rule that allows has answers; write `action: allow`");
    }
}
