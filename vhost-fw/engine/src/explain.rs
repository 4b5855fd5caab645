//! What would happen to a frame that does not exist.
//!
//! The path of `judge` for a first frame: guard, conns, rules. Changes nothing. Never knows a frame's bytes: it
//! writes down headers instead.

use fw_model::{
    Action, By, DefaultAction, Direction, Explanation, FlowKey, MacAddr, Probe, Protocol, Reason, VerdictName,
};

use crate::guard::{Cleared, GuardRule};
use crate::headers::{Ether, Headers, Icmp, IcmpMessage, Ip, L4, Net, Tcp, TcpFlags, Udp};
use crate::in_force::InForce;
use crate::matcher::{Match, Question};
use crate::pipeline::{is_group, question};
use crate::revision::living_by;
use crate::state::State;
use crate::time::Tick;
use crate::verdict::RuleSlot;

/// Stands for a MAC address nobody named: locally administered, as no peer of ours has it.
const UNNAMED_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 0]);
/// Stands for a port nobody named: the first ephemeral one (RFC 6335 section 6).
const UNNAMED_PORT: u16 = 49_152;

/// Asks the stations about `probe`.
pub(crate) fn explain(state: &State, rules: &InForce, probe: &Probe, now: Tick) -> Explanation {
    let headers = headers(rules, probe);
    let named = |slot: Option<RuleSlot>| slot.and_then(|slot| state.ledger.rule_id(slot)).cloned();
    let guard_rule = |rule: GuardRule| named(Some(RuleSlot::guard(rule)));
    match rules.guard().check(probe.direction, &headers) {
        Err(refusal) => return refused(refusal.reason, By::Guard, guard_rule(refusal.rule)),
        Ok(Cleared::Allowed(rule)) => return passed(Reason::Guard, By::Guard, guard_rule(rule)),
        Ok(Cleared::Ask) => {}
    }
    let Net::Ip(ip) = &headers.net else { return refused(Reason::EthertypeRefused, By::Guard, None) };
    let question = question(probe.direction, ip);
    if is_group(&headers, ip) {
        if matches!(ip.l4, L4::Tcp(_)) {
            return refused(Reason::Martian, By::Guard, guard_rule(GuardRule::Sane));
        }
        return by_rules(state, rules, &question, Reason::Stateless);
    }
    if let Some(flow) = headers.flow(probe.direction) {
        // A living conn has both of its ports written.
        if let Some(explained) = living(state, rules, &flow, now).filter(|_| probe.source_port != 0) {
            return explained;
        }
        if let Some(place) = state.expectations.expecting(rules, &flow, probe.direction, now) {
            return allowed(state, rules, place, Reason::New);
        }
    }
    by_rules(state, rules, &question, Reason::New)
}

fn by_rules(state: &State, rules: &InForce, question: &Question, allows: Reason) -> Explanation {
    match rules.first_match(question) {
        Match::Rule(place) => {
            let rule = rules.slot(place).and_then(|slot| state.ledger.rule_id(slot)).cloned();
            match rules.action(place) {
                Action::Allow => allowed(state, rules, place, allows),
                Action::Drop | Action::Pass(_) => refused(Reason::RuleDrop, By::Rule, rule),
                Action::Reject => rejected(Reason::RuleReject, By::Rule, rule),
            }
        }
        Match::Default(DefaultAction::Allow) => passed(allows, By::Default, None),
        Match::Default(DefaultAction::Drop) => refused(Reason::DefaultDrop, By::Default, None),
        Match::Default(DefaultAction::Reject) => rejected(Reason::DefaultReject, By::Default, None),
    }
}

/// By the rule at `place`, unless that has all the conns it may have.
fn allowed(state: &State, rules: &InForce, place: usize, reason: Reason) -> Explanation {
    let rule = rules.slot(place).and_then(|slot| state.ledger.rule_id(slot)).cloned();
    if reason == Reason::New && is_full(state, rules, place) {
        return refused(Reason::RuleConns, By::Rule, rule);
    }
    passed(reason, By::Rule, rule)
}

/// A refusal without an answer to the sender.
pub(crate) fn refused(reason: Reason, by: By, rule: Option<fw_model::RuleId>) -> Explanation {
    Explanation { verdict: VerdictName::Drop, reason, by, rule }
}

fn rejected(reason: Reason, by: By, rule: Option<fw_model::RuleId>) -> Explanation {
    Explanation { verdict: VerdictName::Reject, reason, by, rule }
}

fn passed(reason: Reason, by: By, rule: Option<fw_model::RuleId>) -> Explanation {
    Explanation { verdict: VerdictName::Pass, reason, by, rule }
}

/// What becomes of a frame of a living conn, if this flow has one.
fn living(state: &State, rules: &InForce, flow: &FlowKey, now: Tick) -> Option<Explanation> {
    let id = state.table.find(flow, state.table.hash(flow), now)?;
    let held = state.table.admitted(id)?;
    let (flow, opener) = state.table.flow(id)?;
    let named = |slot: Option<RuleSlot>| slot.and_then(|slot| state.ledger.rule_id(slot)).cloned();
    Some(match living_by(rules, &flow, opener, &held) {
        Some(rule) => passed(Reason::Established, By::Conn, named(rule)),
        None => refused(Reason::Revoked, By::Conn, named(held.rule)),
    })
}

fn is_full(state: &State, rules: &InForce, place: usize) -> bool {
    let limit = rules.limits_of(place).and_then(|limits| limits.conns);
    let living = rules.slot(place).map_or(0, |slot| state.ledger.living(slot));
    limit.is_some_and(|limit| living >= limit)
}

fn headers(rules: &InForce, probe: &Probe) -> Headers {
    let peer_mac = |peer| rules.guard().peer_mac(peer).unwrap_or(UNNAMED_MAC);
    let (source, destination) = match probe.direction {
        Direction::Out => (rules.guard().own_mac(probe.source), peer_mac(probe.destination)),
        Direction::In => (peer_mac(probe.source), rules.guard().own_mac(probe.destination)),
    };
    let vlan = Some(rules.guard().vlan()).filter(|vlan| *vlan != 0);
    let length = if vlan.is_some() { 18 } else { 14 };
    let ip = Ip {
        source: probe.source,
        destination: probe.destination,
        protocol: probe.protocol,
        hop_limit: 64,
        router_alert: false,
        offset: length,
        l4_offset: length + if probe.source.is_v4() { 20 } else { 40 },
        fragment: None,
        l4: l4(probe),
    };
    let is_v4 = probe.source.is_v4() && probe.destination.is_v4();
    let ethertype = if is_v4 { 0x0800 } else { 0x86dd };
    Headers { ether: Ether { destination, source, vlan, ethertype, length }, net: Net::Ip(ip), length: 64 }
}

fn l4(probe: &Probe) -> L4 {
    let source_port = if probe.source_port == 0 { UNNAMED_PORT } else { probe.source_port };
    let destination_port = probe.destination_port;
    let echo = |kind| Icmp { kind, code: 0, message: IcmpMessage::EchoRequest { id: source_port } };
    match probe.protocol {
        Protocol::TCP => L4::Tcp(Tcp {
            source_port,
            destination_port,
            sequence: 0,
            acknowledgement: 0,
            flags: TcpFlags(TcpFlags::SYN),
            window: u16::MAX,
            window_scale: None,
            payload: 0,
            header: 20,
        }),
        Protocol::UDP => L4::Udp(Udp { source_port, destination_port, checksum: 0, dhcp: None }),
        Protocol::ICMP => L4::Icmp(echo(8)),
        Protocol::ICMPV6 => L4::Icmp(echo(128)),
        _ => L4::Other,
    }
}
