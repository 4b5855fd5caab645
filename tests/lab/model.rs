//! A second, stupid firewall that judges the first.
//!
//! Everything here is slow and plain: a list of rules, a map of conns, no windows, no batches, no laziness. It knows
//! what a flow said so far because the test tells it what each frame means. It must never share code with the engine
//! beyond the nouns.

use std::collections::BTreeMap;

use fw_model::{
    Action, DefaultAction, Direction, FlowKey, OnRevoke, Protocol, ProtocolMatch, RemoteMatch, Rule, RuleSet,
};

/// What a frame means, as the test that made it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// A UDP datagram.
    Datagram,
    /// An echo request.
    EchoRequest,
    /// An echo reply.
    EchoReply,
    /// A TCP segment that its place in an honest conversation allows.
    Tcp(Tcp),
    /// A TCP segment that no honest conversation holds: wrong window, wrong side, out of nowhere.
    Lie,
}

/// The steps of an honest TCP conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tcp {
    /// The opener's SYN.
    Syn,
    /// The answer to it.
    SynAck,
    /// The opener's acknowledgement of that.
    HandshakeAck,
    /// Data, acknowledgements.
    Data,
    /// A first or second FIN.
    Fin,
    /// A reset at exactly the right place.
    Reset,
    /// A reset in its receiver's window, but beyond what it has acknowledged.
    DoubtfulReset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asked,
    Answered,
    SynSent,
    SynReceived,
    Established,
    Closing,
    Closed,
}

#[derive(Debug, Clone)]
struct Conn {
    opener: Direction,
    phase: Phase,
    on_revoke: OnRevoke,
    lives_until_ms: u64,
    drained_until_ms: Option<u64>,
}

/// The second firewall.
#[derive(Debug)]
pub struct Model {
    rules: RuleSet,
    conns: BTreeMap<FlowKey, Conn>,
}

impl Model {
    /// One with these rules.
    #[must_use]
    pub const fn new(rules: RuleSet) -> Self {
        Self { rules, conns: BTreeMap::new() }
    }

    /// The rules in force.
    #[must_use]
    pub const fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Another engine takes over, with these rules: they judge every conn, and none may stay longer than they let one
    /// that has just spoken.
    pub fn hand_over(&mut self, rules: RuleSet, now_ms: u64) {
        self.install(rules, now_ms);
        for (flow, conn) in &mut self.conns {
            let end = now_ms + life_ms(&self.rules, flow.protocol, conn.phase);
            conn.lives_until_ms = conn.lives_until_ms.min(end);
        }
    }

    /// Conns alive at `now_ms`.
    pub fn conns(&mut self, now_ms: u64) -> usize {
        self.conns.retain(|_, conn| conn.lives_until_ms > now_ms);
        self.conns.len()
    }

    /// Puts new rules in force: every conn is judged again at once.
    pub fn install(&mut self, rules: RuleSet, now_ms: u64) {
        self.rules = rules;
        self.conns(now_ms);
        let rules = &self.rules;
        self.conns.retain(|flow, conn| match allows(rules, flow, conn.opener) {
            Some(on_revoke) => {
                conn.on_revoke = on_revoke;
                true
            }
            None => match conn.on_revoke {
                OnRevoke::Kill => false,
                OnRevoke::Keep => true,
                OnRevoke::Drain => {
                    let end = now_ms + 300_000;
                    conn.drained_until_ms = Some(conn.drained_until_ms.map_or(end, |known| known.min(end)));
                    conn.lives_until_ms = conn.lives_until_ms.min(end);
                    conn.on_revoke = OnRevoke::Keep;
                    true
                }
            },
        });
    }

    /// Whether a frame passes.
    pub fn judge(&mut self, flow: FlowKey, direction: Direction, meaning: Meaning, now_ms: u64) -> bool {
        self.conns.retain(|known, conn| *known != flow || conn.lives_until_ms > now_ms);
        match self.conns.get_mut(&flow) {
            Some(conn) => {
                let Some(phase) = step(conn, direction, meaning) else { return false };
                conn.phase = phase;
                let mut end = now_ms + life_ms(&self.rules, flow.protocol, phase);
                if meaning == Meaning::Tcp(Tcp::DoubtfulReset) {
                    // It may have ended the conn, and prolongs nothing.
                    end =
                        conn.lives_until_ms.min(now_ms + life_ms(&self.rules, flow.protocol, Phase::Closed));
                }
                conn.lives_until_ms = conn.drained_until_ms.map_or(end, |drained| drained.min(end));
                true
            }
            None => self.open(flow, direction, meaning, now_ms),
        }
    }

    fn open(&mut self, flow: FlowKey, opener: Direction, meaning: Meaning, now_ms: u64) -> bool {
        let phase = match meaning {
            Meaning::Datagram | Meaning::EchoRequest => Phase::Asked,
            Meaning::Tcp(Tcp::Syn) => Phase::SynSent,
            Meaning::EchoReply | Meaning::Tcp(_) | Meaning::Lie => return false,
        };
        let Some(on_revoke) = allows(&self.rules, &flow, opener) else { return false };
        let lives_until_ms = now_ms + life_ms(&self.rules, flow.protocol, phase);
        self.conns.insert(flow, Conn { opener, phase, on_revoke, lives_until_ms, drained_until_ms: None });
        true
    }
}

/// The phase after a frame; `None` if it may not pass.
fn step(conn: &Conn, direction: Direction, meaning: Meaning) -> Option<Phase> {
    let by_opener = direction == conn.opener;
    match (meaning, conn.phase) {
        (Meaning::Lie, _) => None,
        (Meaning::Datagram, Phase::Asked | Phase::Answered) if by_opener => Some(conn.phase),
        (Meaning::Datagram, Phase::Asked | Phase::Answered) => Some(Phase::Answered),
        (Meaning::EchoRequest, Phase::Asked | Phase::Answered) if by_opener => Some(conn.phase),
        (Meaning::EchoReply, Phase::Asked | Phase::Answered) if !by_opener => Some(Phase::Answered),
        (Meaning::Tcp(Tcp::Syn), Phase::SynSent) if by_opener => Some(Phase::SynSent),
        (Meaning::Tcp(Tcp::SynAck), Phase::SynSent | Phase::SynReceived) if !by_opener => {
            Some(Phase::SynReceived)
        }
        (Meaning::Tcp(Tcp::HandshakeAck), Phase::SynReceived) if by_opener => Some(Phase::Established),
        (Meaning::Tcp(Tcp::Data | Tcp::DoubtfulReset), Phase::Established | Phase::Closing) => {
            Some(conn.phase)
        }
        (Meaning::Tcp(Tcp::Fin), Phase::Established | Phase::Closing) => Some(Phase::Closing),
        (Meaning::Tcp(Tcp::Reset), Phase::Established | Phase::Closing) => Some(Phase::Closed),
        _ => None,
    }
}

fn life_ms(rules: &RuleSet, protocol: Protocol, phase: Phase) -> u64 {
    let timers = &rules.timers;
    let seconds = match phase {
        Phase::Asked | Phase::Answered if protocol != Protocol::UDP => timers.icmp,
        Phase::Asked => timers.udp,
        Phase::Answered => timers.udp_replied,
        Phase::SynSent => timers.tcp_syn_sent,
        Phase::SynReceived => timers.syn_received,
        Phase::Established => timers.established,
        Phase::Closing => timers.fin_wait,
        Phase::Closed => timers.close,
    };
    u64::from(seconds) * 1000
}

/// What revoking does to a conn that the rules allow; `None` if they do not.
fn allows(rules: &RuleSet, flow: &FlowKey, opener: Direction) -> Option<OnRevoke> {
    let mut place = 0;
    while let Some(rule) = rules.rules.get(place) {
        if !matches(rules, rule, flow, opener) {
            place += 1;
            continue;
        }
        match &rule.action {
            Action::Allow => return Some(rule.on_revoke),
            Action::Drop | Action::Reject => return None,
            Action::Pass(target) => place = rules.rules.iter().position(|rule| rule.id == *target)?,
        }
    }
    let default = match opener {
        Direction::Out => rules.defaults.out,
        Direction::In => rules.defaults.in_,
    };
    (default == DefaultAction::Allow).then_some(OnRevoke::Kill)
}

fn matches(rules: &RuleSet, rule: &Rule, flow: &FlowKey, opener: Direction) -> bool {
    let echo = matches!(flow.protocol, Protocol::ICMP | Protocol::ICMPV6);
    let protocol = match rule.protocol {
        ProtocolMatch::Usual => flow.protocol == Protocol::TCP || flow.protocol == Protocol::UDP || echo,
        ProtocolMatch::Tcp => flow.protocol == Protocol::TCP,
        ProtocolMatch::Udp => flow.protocol == Protocol::UDP,
        ProtocolMatch::Icmp => echo,
        ProtocolMatch::Any => true,
        ProtocolMatch::Number(number) => flow.protocol == Protocol(number),
    };
    let port = match opener {
        Direction::Out => flow.remote_port,
        Direction::In => flow.local_port,
    };
    let ports = rule.ports.is_empty() || (!echo && rule.ports.iter().any(|range| range.contains(port)));
    let request = |icmp: &fw_model::IcmpMatch| {
        if flow.remote.is_v4() { icmp.v4 == Some(8) } else { icmp.v6 == Some(128) }
    };
    let icmp = rule.icmp.is_empty() || (echo && rule.icmp.iter().any(request));
    let remote = rule.remote.is_empty()
        || rule.remote.iter().any(|remote| match remote {
            RemoteMatch::Prefix(prefix) => prefix.contains(flow.remote),
            RemoteMatch::Set(name) => rules
                .address_sets
                .get(name)
                .is_some_and(|set| set.members.iter().any(|member| member.prefix.contains(flow.remote))),
        });
    rule.direction == opener && rule.ethertype.is_none() && protocol && ports && icmp && remote
}
