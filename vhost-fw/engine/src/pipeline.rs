//! The story of a frame, top to bottom.
//!
//! Only orders the stations: read, settle, guard, fragment, conntrack, matcher, verdict. Knows which comes first
//! and who decided. Never knows how any of them decides.

use std::hint::black_box;

use fw_model::{Action, By, DefaultAction, Direction, FlowKey, Reason};

use crate::conntrack::{Admitted, ConnId, Opening, Step, Table};
use crate::engine::State;
use crate::expectation::Expected;
use crate::fragment::{Added, DatagramId};
use crate::frame::Frame;
use crate::guard::{Cleared, GuardRule};
use crate::headers::{self, Headers, IcmpMessage, L4, Net, Parsed};
use crate::in_force::InForce;
use crate::matcher::{Match, Question};
use crate::reply;
use crate::time::Tick;
use crate::verdict::{Answer, Answers, Patch, Permit, RuleSlot, Verdict};
use crate::vnet::{self, Link, Settled, VnetHeader};

/// Frames whose table lines are loaded together before the first of them is judged: memory is then waited for
/// once (1 M conns cost 250 ns a frame one by one, 45 ns in batches of 32).
pub(crate) const BATCH: usize = 32;

/// What reading a frame gave, before anything that changes state.
#[derive(Debug)]
pub(crate) enum Reading {
    Refused(Reason),
    NeedWhole,
    Read(Read),
}

/// A frame that could be read.
#[derive(Debug)]
pub(crate) struct Read {
    headers: Headers,
    vnet: VnetHeader,
    patch: Option<Patch>,
    flow: Option<(FlowKey, u64)>,
}

/// Judges a batch in order.
pub(crate) fn judge(
    state: &mut State,
    rules: Option<&InForce>,
    readings: &mut Vec<Reading>,
    batch: &[Frame<'_>],
    now: Tick,
    answers: &mut Answers,
) {
    answers.clear();
    for (chunk_place, chunk) in batch.chunks(BATCH).enumerate() {
        readings.clear();
        readings.extend(chunk.iter().map(|frame| read(frame, &state.link, &state.table)));
        warm(readings, &state.table, now);
        for (place, (frame, reading)) in chunk.iter().zip(readings.iter()).enumerate() {
            let cause = chunk_place * BATCH + place;
            let answer = match rules {
                Some(rules) => Station { state, rules, answers, now, cause }.judge(frame, reading),
                None => refused(Verdict::Drop, Reason::NoRules, By::Guard, None),
            };
            state.ledger.count(frame.direction, frame.length, &answer, now);
            answers.push(answer);
        }
    }
}

fn read(frame: &Frame<'_>, link: &Link, table: &Table) -> Reading {
    let headers = match headers::parse(frame.bytes, frame.length) {
        Ok(Parsed::Headers(headers)) => headers,
        Ok(Parsed::NeedWhole) => return Reading::NeedWhole,
        Err(malformed) => return Reading::Refused(malformed.reason()),
    };
    match vnet::settle(frame, &headers, link) {
        Ok(Settled::Leaves { vnet, patch }) => {
            let flow = headers.flow(frame.direction).map(|flow| {
                let hash = table.hash(&flow);
                black_box(table.warm(hash));
                (flow, hash)
            });
            Reading::Read(Read { headers, vnet, patch, flow })
        }
        Ok(Settled::NeedWhole) => Reading::NeedWhole,
        Err(reason) => Reading::Refused(reason),
    }
}

fn warm(readings: &[Reading], table: &Table, now: Tick) {
    for reading in readings {
        if let Reading::Read(Read { flow: Some((flow, hash)), .. }) = reading {
            black_box(table.find(flow, *hash, now));
        }
    }
}

fn refused(verdict: Verdict, reason: Reason, by: By, rule: Option<RuleSlot>) -> Answer {
    Answer { verdict, reason, by, rule, log: false }
}

fn dropped(reason: Reason, by: By, rule: Option<RuleSlot>) -> Answer {
    refused(Verdict::Drop, reason, by, rule)
}

/// How a judged datagram may go on. The verdict on a reassembled datagram is that of its fragments.
struct Decision {
    reason: Reason,
    by: By,
    rule: Option<RuleSlot>,
    log: bool,
    outcome: Outcome,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Pass,
    Drop,
    Reject,
}

impl Decision {
    fn pass(reason: Reason, by: By, rule: Option<RuleSlot>) -> Self {
        Self { reason, by, rule, log: false, outcome: Outcome::Pass }
    }

    fn drop(reason: Reason, by: By, rule: Option<RuleSlot>) -> Self {
        Self { reason, by, rule, log: false, outcome: Outcome::Drop }
    }

    fn answer(self, verdict: Verdict) -> Answer {
        Answer { verdict, reason: self.reason, by: self.by, rule: self.rule, log: self.log }
    }
}

/// One frame on its way through the stations.
struct Station<'a> {
    state: &'a mut State,
    rules: &'a InForce,
    answers: &'a mut Answers,
    now: Tick,
    cause: usize,
}

impl Station<'_> {
    fn judge(&mut self, frame: &Frame<'_>, reading: &Reading) -> Answer {
        let read = match reading {
            Reading::NeedWhole => return dropped_for_now(),
            Reading::Refused(reason) => {
                return dropped(*reason, By::Guard, Some(RuleSlot::guard(GuardRule::Sane)));
            }
            Reading::Read(read) => read,
        };
        if !self.state.meters.take(frame.direction, frame.length, self.now) {
            return dropped(Reason::RateLimit, By::Guard, None);
        }
        let decision = match self.rules.guard().check(frame.direction, &read.headers) {
            Err(refusal) => Decision::drop(refusal.reason, By::Guard, Some(RuleSlot::guard(refusal.rule))),
            Ok(Cleared::Allowed(rule)) => {
                Decision::pass(Reason::Guard, By::Guard, Some(RuleSlot::guard(rule)))
            }
            Ok(Cleared::Ask) if is_fragment(&read.headers) => return self.fragment(frame, &read.headers),
            Ok(Cleared::Ask) => self.decide(frame.direction, &read.headers, read.flow),
        };
        let verdict = match decision.outcome {
            Outcome::Pass => Verdict::Pass(Permit {
                direction: frame.direction,
                length: read.headers.length,
                vnet: read.vnet,
                patch: read.patch,
            }),
            Outcome::Drop => Verdict::Drop,
            Outcome::Reject => self.reject(frame.direction, &read.headers, frame.bytes),
        };
        decision.answer(verdict)
    }

    fn fragment(&mut self, frame: &Frame<'_>, headers: &Headers) -> Answer {
        let lifetime_s = self.rules.timers().fragment;
        let bytes = frame.bytes.get(..headers.length).unwrap_or(frame.bytes);
        match self.state.fragments.add(frame.direction, bytes, headers, self.now, lifetime_s) {
            Added::Held => refused(Verdict::Hold, Reason::FragmentHeld, By::Guard, None),
            Added::Refused(reason) => dropped(reason, By::Guard, Some(RuleSlot::guard(GuardRule::Sane))),
            Added::Whole(id) => self.datagram(frame.direction, id),
        }
    }

    /// Judges a reassembled datagram like a frame of its own, and its fragments by that.
    fn datagram(&mut self, direction: Direction, id: DatagramId) -> Answer {
        let decision = self.judge_datagram(direction, id);
        let verdict = match decision.outcome {
            Outcome::Pass => {
                let (answers, cause) = (&mut *self.answers, self.cause);
                self.state.fragments.release(id, |bytes| answers.emit(direction, bytes, Some(cause)));
                return decision.answer(Verdict::Release);
            }
            Outcome::Drop => Verdict::Drop,
            Outcome::Reject => {
                let reply_to = headers_of(self.state.fragments.datagram(id), &self.state.link, direction);
                match reply_to {
                    Ok(headers) => self.reject_datagram(direction, &headers, id),
                    Err(_) => Verdict::Drop,
                }
            }
        };
        self.state.fragments.discard(id);
        decision.answer(verdict)
    }

    fn judge_datagram(&mut self, direction: Direction, id: DatagramId) -> Decision {
        let sane = Some(RuleSlot::guard(GuardRule::Sane));
        let headers = match headers_of(self.state.fragments.datagram(id), &self.state.link, direction) {
            Ok(headers) => headers,
            Err(reason) => return Decision::drop(reason, By::Guard, sane),
        };
        // RFC 6980 section 5: neighbour discovery never comes in fragments.
        if matches!(&headers.net, Net::Ip(ip) if matches!(ip.l4, L4::Icmp(icmp) if matches!(icmp.message, IcmpMessage::Nd(_))))
        {
            return Decision::drop(Reason::NdMalformed, By::Guard, Some(RuleSlot::guard(GuardRule::Nd)));
        }
        match self.rules.guard().check(direction, &headers) {
            Err(refusal) => Decision::drop(refusal.reason, By::Guard, Some(RuleSlot::guard(refusal.rule))),
            Ok(Cleared::Allowed(rule)) => {
                Decision::pass(Reason::Guard, By::Guard, Some(RuleSlot::guard(rule)))
            }
            Ok(Cleared::Ask) if is_fragment(&headers) => {
                Decision::drop(Reason::FragmentMalformed, By::Guard, sane)
            }
            Ok(Cleared::Ask) => {
                let flow = headers.flow(direction).map(|flow| (flow, self.state.table.hash(&flow)));
                self.decide(direction, &headers, flow)
            }
        }
    }

    /// Conns first, rules for what has none.
    fn decide(&mut self, direction: Direction, headers: &Headers, flow: Option<(FlowKey, u64)>) -> Decision {
        let Net::Ip(ip) = &headers.net else {
            let question = Question::Ethertype { direction, ethertype: headers.ether.ethertype };
            return self.stateless(&question, Reason::EthertypeRefused);
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
        let question = question(direction, ip);
        match flow {
            Some(flow) if !is_group(headers, ip) => self.conn(direction, headers, &ip.l4, flow, &question),
            _ if matches!(ip.l4, L4::Tcp(_)) => {
                Decision::drop(Reason::Martian, By::Guard, Some(RuleSlot::guard(GuardRule::Sane)))
            }
            _ => self.group(direction, headers, ip, &question),
        }
    }

    fn related(&mut self, id: ConnId) -> Decision {
        match self.current(id) {
            Ok(admitted) => Decision::pass(Reason::Related, By::Conn, admitted.rule),
            Err(rule) => Decision::drop(Reason::Revoked, By::Conn, rule),
        }
    }

    fn conn(
        &mut self,
        direction: Direction,
        headers: &Headers,
        l4: &L4,
        (flow, hash): (FlowKey, u64),
        question: &Question,
    ) -> Decision {
        if let Some(id) = self.state.table.find(&flow, hash, self.now) {
            let admitted = match self.current(id) {
                Ok(admitted) => admitted,
                Err(rule) => return Decision::drop(Reason::Revoked, By::Conn, rule),
            };
            let decision = match self.state.table.step(id, direction, l4, self.now, self.rules.timers()) {
                Step::Pass => Decision::pass(Reason::Established, By::Conn, admitted.rule),
                Step::Refuse(reason) => Decision::drop(reason, By::Conn, admitted.rule),
                Step::Reopen => {
                    self.close(id);
                    return self.first(direction, headers, l4, (flow, hash), question);
                }
            };
            return Decision { log: admitted.log && decision.outcome != Outcome::Pass, ..decision };
        }
        self.first(direction, headers, l4, (flow, hash), question)
    }

    /// The conn's admission under the rules in force; `Err` if they closed it, with the rule that had admitted it.
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
    fn first(
        &mut self,
        direction: Direction,
        headers: &Headers,
        l4: &L4,
        (flow, hash): (FlowKey, u64),
        question: &Question,
    ) -> Decision {
        if let Some(reason) = Table::cannot_open(l4) {
            return Decision::drop(reason, By::Conn, None);
        }
        let peer_mac = match direction {
            Direction::Out => headers.ether.destination,
            Direction::In => headers.ether.source,
        };
        let opening = |admitted| Opening { flow, hash, opener: direction, peer_mac, admitted };
        let expected = match direction {
            Direction::In => self.state.expectations.find(&flow, self.now),
            Direction::Out => None,
        };
        if let Some(expected) = expected.filter(|expected| self.may_answer(expected, &flow)) {
            let admitted = self.rules.admission_of(expected.place, true);
            // The guest asked: what it expects is opened from its side.
            return self.open(&Opening { opener: Direction::Out, ..opening(admitted) }, l4, expected.place);
        }
        match self.rules.first_match(question) {
            Match::Rule(place) => {
                let rule = self.rules.slot(place);
                let log = self.rules.log(place);
                let decision = match self.rules.action(place) {
                    Action::Allow => self.open(&opening(self.rules.admission_of(place, false)), l4, place),
                    Action::Drop | Action::Pass(_) => Decision::drop(Reason::RuleDrop, By::Rule, rule),
                    Action::Reject => Decision {
                        outcome: Outcome::Reject,
                        ..Decision::drop(Reason::RuleReject, By::Rule, rule)
                    },
                };
                Decision { log, ..decision }
            }
            Match::Default(DefaultAction::Allow) => {
                self.open_default(&opening(self.rules.default_admission()), l4)
            }
            Match::Default(default) => refused_by_default(default),
        }
    }

    fn may_answer(&self, expected: &Expected, flow: &FlowKey) -> bool {
        expected.epoch == self.rules.epoch() && self.rules.may_answer(expected.place, flow.remote)
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
    fn group(
        &mut self,
        direction: Direction,
        headers: &Headers,
        ip: &headers::Ip,
        question: &Question,
    ) -> Decision {
        let decision = self.stateless(question, Reason::DefaultDrop);
        if direction == Direction::Out
            && decision.outcome == Outcome::Pass
            && let (L4::Udp(udp), Match::Rule(place)) = (&ip.l4, self.rules.first_match(question))
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

    fn stateless(&mut self, question: &Question, unmatched: Reason) -> Decision {
        match self.rules.first_match(question) {
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

    fn reject(&mut self, direction: Direction, headers: &Headers, bytes: &[u8]) -> Verdict {
        if self.state.meters.take_reply(self.now) {
            let mut out = [0; reply::REPLY_LEN_MAX];
            if let Some(answer) =
                reply::refusal(headers, bytes, &mut out).and_then(|length| out.get(..length))
            {
                self.answers.emit(direction.opposite(), answer, Some(self.cause));
            }
        }
        Verdict::Reject
    }

    fn reject_datagram(&mut self, direction: Direction, headers: &Headers, id: DatagramId) -> Verdict {
        if self.state.meters.take_reply(self.now) {
            let mut out = [0; reply::REPLY_LEN_MAX];
            let length = reply::refusal(headers, self.state.fragments.datagram(id), &mut out);
            if let Some(answer) = length.and_then(|length| out.get(..length)) {
                self.answers.emit(direction.opposite(), answer, Some(self.cause));
            }
        }
        Verdict::Reject
    }
}

fn dropped_for_now() -> Answer {
    refused(Verdict::NeedWhole, Reason::HeadersTooLong, By::Guard, None)
}

fn refused_by_default(default: DefaultAction) -> Decision {
    match default {
        DefaultAction::Reject => {
            Decision { outcome: Outcome::Reject, ..Decision::drop(Reason::DefaultReject, By::Default, None) }
        }
        DefaultAction::Allow | DefaultAction::Drop => Decision::drop(Reason::DefaultDrop, By::Default, None),
    }
}

/// Reads and settles a reassembled datagram. It is longer than the MTU by nature.
fn headers_of(bytes: &[u8], link: &Link, direction: Direction) -> Result<Headers, Reason> {
    let headers = match headers::parse(bytes, bytes.len()) {
        Ok(Parsed::Headers(headers)) => headers,
        Ok(Parsed::NeedWhole) => return Err(Reason::FragmentMalformed),
        Err(malformed) => return Err(malformed.reason()),
    };
    let frame = Frame { direction, bytes, length: bytes.len(), vnet: VnetHeader::NONE };
    let unbounded = Link { mtu: crate::frame::FRAME_LEN_MAX, guest: link.guest };
    vnet::settle(&frame, &headers, &unbounded).map(|_| headers)
}

fn is_fragment(headers: &Headers) -> bool {
    matches!(&headers.net, Net::Ip(ip) if ip.fragment.is_some())
}

fn is_group(headers: &Headers, ip: &headers::Ip) -> bool {
    headers.ether.destination.is_group() || ip.destination.is_group()
}

/// What the rules are asked about a first frame.
pub(crate) fn question(direction: Direction, ip: &headers::Ip) -> Question {
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
