//! Whether a frame that guard leaves open may go on: conns first, rules for what has none.
//!
//! Orders conntrack, expectations, matcher and the counts of conns. Knows one frame's headers. Never knows its bytes,
//! nor how it leaves.

use fw_model::{Action, By, DefaultAction, Direction, Reason};

use super::{Decision, Flow, Outcome, Station};
use crate::conntrack::{Admitted, ConnId, Opening, Step, Table};
use crate::expectation::Expected;
use crate::guard::GuardRule;
use crate::headers::{Headers, IcmpMessage, Ip, L4, Net};
use crate::matcher::{Match, Question};
use crate::verdict::RuleSlot;

impl Station<'_> {
    /// Conns first, rules for what has none.
    #[inline]
    pub(super) fn decide(
        &mut self,
        direction: Direction,
        headers: &Headers,
        flow: Option<&Flow>,
    ) -> Decision {
        let Net::Ip(ip) = &headers.net else {
            let question = Question::Ethertype { direction, ethertype: headers.ether.ethertype };
            return self.stateless(self.rules.first_match(&question), Reason::EthertypeRefused);
        };
        if let L4::Icmp(icmp) = &ip.l4
            && let IcmpMessage::Error(quote) = &icmp.message
        {
            let vlan = headers.ether.vlan.unwrap_or(0);
            return match self.state.table.related(quote, direction, vlan, self.now) {
                Ok(id) => self.related(id),
                Err(reason) => Decision::drop(reason, By::Conn, None),
            };
        }
        match flow {
            Some(flow) if makes_conn(&ip.l4) && !is_group(headers, ip) => {
                self.conn(direction, headers, ip, flow)
            }
            _ if matches!(ip.l4, L4::Tcp(_)) => {
                Decision::drop(Reason::Martian, By::Guard, Some(RuleSlot::guard(GuardRule::Sane)))
            }
            _ => self.group(direction, headers, ip),
        }
    }

    #[inline(never)]
    fn related(&mut self, id: ConnId) -> Decision {
        match self.current(id) {
            Ok(admitted) => Decision::pass(Reason::Related, By::Conn, admitted.rule),
            Err(rule) => Decision::drop(Reason::Revoked, By::Conn, rule),
        }
    }

    #[inline]
    fn conn(&mut self, direction: Direction, headers: &Headers, ip: &Ip, flow: &Flow) -> Decision {
        if let Some(id) = self.state.table.find_at(flow.likely, &flow.key, flow.hash, self.now) {
            let admitted = match self.current(id) {
                Ok(admitted) => admitted,
                Err(rule) => return Decision::drop(Reason::Revoked, By::Conn, rule),
            };
            let decision = match self.state.table.step(id, direction, &ip.l4, self.now, self.rules.timers()) {
                Step::Pass => Decision::pass(Reason::Established, By::Conn, admitted.rule),
                Step::Refuse(reason) => Decision::drop(reason, By::Conn, admitted.rule),
                Step::Reopen => {
                    self.close(id);
                    return self.first(direction, headers, ip, flow);
                }
            };
            return Decision { log: admitted.log && decision.outcome != Outcome::Pass, ..decision };
        }
        self.first(direction, headers, ip, flow)
    }

    /// The conn's admission under the rules in force; `Err` if they closed it, with the rule that had admitted it.
    #[inline]
    fn current(&mut self, id: ConnId) -> Result<Admitted, Option<RuleSlot>> {
        let admitted = self.state.table.admitted(id).ok_or(None)?;
        if admitted.epoch == self.rules.epoch() {
            return Ok(admitted);
        }
        self.state.judge_again(self.rules, id, self.now, self.answers).ok_or(admitted.rule)
    }

    fn close(&mut self, id: ConnId) {
        if let Some(closed) = self.state.table.close(id) {
            self.state.ledger.conn_closed(closed.rule);
        }
    }

    /// A frame of no living conn: may it open one, and do the rules let it?
    #[inline(never)]
    fn first(&mut self, direction: Direction, headers: &Headers, ip: &Ip, flow: &Flow) -> Decision {
        if let Some(reason) = Table::cannot_open(&ip.l4) {
            return Decision::drop(reason, By::Conn, None);
        }
        let peer_mac = match direction {
            Direction::Out => headers.ether.destination,
            Direction::In => headers.ether.source,
        };
        // Frames that have a key as words have it as this too.
        let Some(key) = headers.flow(direction) else {
            return Decision::drop(Reason::NoConn, By::Conn, None);
        };
        let hash = flow.hash;
        let opening = |admitted| Opening { flow: key, hash, opener: direction, peer_mac, admitted };
        if let Some(place) = self.state.expectations.expecting(self.rules, &key, direction, self.now) {
            let admitted = self.rules.admission_of(place, true);
            // The guest asked: what it expects is opened from its side.
            return self.open(&Opening { opener: Direction::Out, ..opening(admitted) }, &ip.l4, place);
        }
        match self.rules.first_match(&question(direction, ip)) {
            Match::Rule(place) => {
                let rule = self.rules.slot(place);
                let log = self.rules.log(place);
                let decision = match self.rules.action(place) {
                    Action::Allow => {
                        self.open(&opening(self.rules.admission_of(place, false)), &ip.l4, place)
                    }
                    Action::Drop | Action::Pass(_) => Decision::drop(Reason::RuleDrop, By::Rule, rule),
                    Action::Reject => Decision {
                        outcome: Outcome::Reject,
                        ..Decision::drop(Reason::RuleReject, By::Rule, rule)
                    },
                };
                Decision { log, ..decision }
            }
            Match::Default(DefaultAction::Allow) => {
                self.open_default(&opening(self.rules.default_admission()), &ip.l4)
            }
            Match::Default(default) => refused_by_default(default),
        }
    }

    fn open(&mut self, opening: &Opening, l4: &L4, place: usize) -> Decision {
        let rule = opening.admitted.rule;
        if let Err(reason) = self.state.ledger.may_open(rule, self.rules.limits_of(place), self.now) {
            return Decision::drop(reason, By::Rule, rule);
        }
        let decision = self.open_default(opening, l4);
        Decision { by: By::Rule, rule, ..decision }
    }

    fn open_default(&mut self, opening: &Opening, l4: &L4) -> Decision {
        if !self.state.meters.take_conn(self.now) {
            return Decision::drop(Reason::NewConnRate, By::Default, None);
        }
        match self.state.table.open(opening, l4, self.now, self.rules.timers()) {
            Ok(evicted) => {
                if let Some(evicted) = evicted {
                    self.state.ledger.conn_closed(evicted.rule);
                }
                self.state.ledger.conn_opened(opening.admitted.rule);
                Decision::pass(Reason::New, By::Default, None)
            }
            Err(reason) => Decision::drop(reason, By::Default, None),
        }
    }

    /// Broadcast, multicast and messages that make no conn: the rules alone decide, frame by frame.
    #[inline(never)]
    fn group(&mut self, direction: Direction, headers: &Headers, ip: &Ip) -> Decision {
        let found = self.rules.first_match(&question(direction, ip));
        let decision = self.stateless(found, Reason::DefaultDrop);
        if direction == Direction::Out
            && decision.outcome == Outcome::Pass
            && let (L4::Udp(udp), Match::Rule(place)) = (&ip.l4, found)
            && self.rules.has_reply_from(place)
        {
            let vlan = headers.ether.vlan.unwrap_or(0);
            let lives_until = self.now.after_s(self.rules.timers().udp);
            self.state.expectations.add(
                Expected {
                    local: ip.source,
                    port: udp.source_port,
                    vlan,
                    place,
                    epoch: self.rules.epoch(),
                    lives_until,
                },
                self.now,
            );
        }
        decision
    }

    #[inline(never)]
    fn stateless(&self, found: Match, unmatched: Reason) -> Decision {
        match found {
            Match::Rule(place) => {
                let rule = self.rules.slot(place);
                let decision = match self.rules.action(place) {
                    Action::Allow => Decision::pass(Reason::Stateless, By::Rule, rule),
                    Action::Drop | Action::Pass(_) => Decision::drop(Reason::RuleDrop, By::Rule, rule),
                    Action::Reject => Decision {
                        outcome: Outcome::Reject,
                        ..Decision::drop(Reason::RuleReject, By::Rule, rule)
                    },
                };
                Decision { log: self.rules.log(place), ..decision }
            }
            Match::Default(_) if unmatched != Reason::DefaultDrop => {
                Decision::drop(unmatched, By::Guard, Some(RuleSlot::guard(GuardRule::Sane)))
            }
            Match::Default(DefaultAction::Allow) => Decision::pass(Reason::Stateless, By::Default, None),
            Match::Default(default) => refused_by_default(default),
        }
    }
}

fn refused_by_default(default: DefaultAction) -> Decision {
    match default {
        DefaultAction::Reject => {
            Decision { outcome: Outcome::Reject, ..Decision::drop(Reason::DefaultReject, By::Default, None) }
        }
        DefaultAction::Allow | DefaultAction::Drop => Decision::drop(Reason::DefaultDrop, By::Default, None),
    }
}

/// Whether frames like this belong to conns. Of ICMP only echo does: other messages have nothing an answer could be
/// told by.
const fn makes_conn(l4: &L4) -> bool {
    match l4 {
        L4::Icmp(icmp) => {
            matches!(icmp.message, IcmpMessage::EchoRequest { .. } | IcmpMessage::EchoReply { .. })
        }
        L4::Tcp(_) | L4::Udp(_) | L4::Other => true,
        L4::Group(_) | L4::Fragment => false,
    }
}

pub(crate) fn is_group(headers: &Headers, ip: &Ip) -> bool {
    headers.ether.destination.is_group() || ip.destination.is_group()
}

/// What the rules are asked about a first frame.
pub(crate) fn question(direction: Direction, ip: &Ip) -> Question {
    let remote = match direction {
        Direction::Out => ip.destination,
        Direction::In => ip.source,
    };
    let (port, icmp) = match &ip.l4 {
        L4::Tcp(tcp) => (tcp.destination_port, None),
        L4::Udp(udp) => (udp.destination_port, None),
        L4::Icmp(icmp) => (0, Some((icmp.kind, icmp.code))),
        L4::Group(_) | L4::Other | L4::Fragment => (0, None),
    };
    Question::Ip { direction, remote, protocol: ip.protocol, port, icmp }
}
