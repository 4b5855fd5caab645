//! What a NIC's rules say of a first frame: read from the top, first match decides.
//!
//! Knows a rule set alone. Never knows conns, nor what guard says before any rule.

use fw_model::{Action, Addr, DefaultAction, Direction, ProtocolMatch, RemoteMatch, Rule, RuleId, RuleSet};

/// A first frame, as rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Which way it goes.
    pub direction: Direction,
    /// The other end.
    pub remote: Addr,
    /// IP protocol.
    pub protocol: u8,
    /// Destination port of TCP and UDP.
    pub port: u16,
    /// Type and code of ICMP.
    pub icmp: Option<(u8, u8)>,
}

/// What decides, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// `allow`, `drop` or `reject`; never `pass`.
    pub action: DefaultAction,
    /// The rule that decides; none where no rule matches.
    pub rule: Option<RuleId>,
}

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The verdict of `rules`.
#[must_use]
pub fn decide(rules: &RuleSet, question: &Question) -> Decision {
    let mut place = 0;
    while let Some(rule) = rules.rules.get(place) {
        place += 1;
        if !matches(rules, rule, question) {
            continue;
        }
        let action = match &rule.action {
            Action::Allow => DefaultAction::Allow,
            Action::Drop => DefaultAction::Drop,
            Action::Reject => DefaultAction::Reject,
            Action::Pass(target) => {
                let further = rules.rules.iter().skip(place).position(|other| other.id == *target);
                // A rule set whose rules pass on backwards is refused by every NIC; here the walk goes on and ends.
                place += further.unwrap_or(0);
                continue;
            }
        };
        return Decision { action, rule: Some(rule.id.clone()) };
    }
    let action = match question.direction {
        Direction::Out => rules.defaults.out,
        Direction::In => rules.defaults.in_,
    };
    Decision { action, rule: None }
}

fn matches(rules: &RuleSet, rule: &Rule, question: &Question) -> bool {
    rule.direction == question.direction
        && rule.ethertype.is_none()
        && rule.expires_in_ms != Some(0)
        && is_protocol(rule, question)
        && (rule.remote.is_empty() || rule.remote.iter().any(|remote| holds(rules, remote, question.remote)))
}

fn is_protocol(rule: &Rule, question: &Question) -> bool {
    let is_echo =
        matches!((question.protocol, question.icmp), (ICMP, Some((8, _))) | (ICMPV6, Some((128, _))));
    let has_ports = matches!(question.protocol, TCP | UDP);
    let is_meant = match rule.protocol {
        ProtocolMatch::Usual => has_ports || is_echo && rule.ports.is_empty(),
        ProtocolMatch::Tcp => question.protocol == TCP,
        ProtocolMatch::Udp => question.protocol == UDP,
        ProtocolMatch::Icmp => question.icmp.is_some(),
        ProtocolMatch::Any => true,
        ProtocolMatch::Number(number) => question.protocol == number,
    };
    let port =
        rule.ports.is_empty() || has_ports && rule.ports.iter().any(|range| range.contains(question.port));
    let icmp = rule.icmp.is_empty()
        || question.icmp.is_some_and(|(kind, code)| {
            rule.icmp.iter().any(|wanted| {
                let named = if question.protocol == ICMPV6 { wanted.v6 } else { wanted.v4 };
                named == Some(kind) && wanted.code.is_none_or(|wanted| wanted == code)
            })
        });
    is_meant && port && icmp
}

fn holds(rules: &RuleSet, remote: &RemoteMatch, address: Addr) -> bool {
    match remote {
        RemoteMatch::Prefix(prefix) => prefix.contains(address),
        RemoteMatch::Set(name) => {
            let set = rules.address_sets.get(name);
            set.is_some_and(|set| set.members.iter().any(|member| member.prefix.contains(address)))
        }
    }
}
