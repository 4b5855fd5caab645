//! The story of a frame, top to bottom.
//!
//! Only orders the stations: read, settle, guard, fragment, conntrack, matcher, verdict. Knows which comes first
//! and who decided. Never knows how any of them decides.

mod decide;
mod reading;

use fw_model::{By, Direction, Reason};

use crate::fragment::{Added, DatagramId};
use crate::frame::Frame;
use crate::guard::{Cleared, GuardRule};
use crate::headers::{self, Headers, IcmpMessage, L4, Net, Parsed};
use crate::in_force::InForce;
use crate::reply;
use crate::state::State;
use crate::time::Tick;
use crate::verdict::{Answer, Answers, Permit, RuleSlot, Verdict};
use crate::vnet::{self, Link, VnetHeader};
pub(crate) use decide::{is_group, question};
pub(crate) use reading::Readings;
use reading::{BATCH, Flow, Outcome as Read, Reading};

/// Judges a batch in order; without rules every frame is dropped for the reason there are none.
pub(crate) fn judge(
    state: &mut State,
    rules: Result<&InForce, Reason>,
    readings: &mut Readings,
    batch: &[Frame<'_>],
    now: Tick,
    answers: &mut Answers,
) {
    answers.clear();
    for (chunk_place, chunk) in batch.chunks(BATCH).enumerate() {
        readings.read(chunk, &state.link, &state.table);
        for (place, (frame, reading)) in chunk.iter().zip(readings.iter()).enumerate() {
            let cause = chunk_place * BATCH + place;
            match rules {
                Ok(rules) => Station { state, rules, answers, now, cause }.judge(frame, reading),
                Err(reason) => {
                    state.ledger.count(frame, reason, None, false, now);
                    answers.push(refused(Verdict::Drop, reason, By::Guard, None));
                }
            }
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

/// How far a frame came.
enum Weighed {
    Decided(Decision),
    NeedWhole,
    Fragment,
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
    /// Judges a frame, counts it, and puts its answer among the others: there, so that it is written once.
    #[inline]
    fn judge(&mut self, frame: &Frame<'_>, reading: &Reading) {
        let decision = match self.weigh(frame, reading) {
            Weighed::Decided(decision) => decision,
            Weighed::NeedWhole => return self.answers.push(dropped_for_now()),
            Weighed::Fragment => {
                let answer = self.fragment(frame, &reading.headers);
                let passes = matches!(answer.verdict, Verdict::Release);
                self.state.ledger.count(frame, answer.reason, answer.rule, passes, self.now);
                return self.answers.push(answer);
            }
        };
        let Decision { reason, by, rule, log, outcome } = decision;
        self.state.ledger.count(frame, reason, rule, outcome == Outcome::Pass, self.now);
        match outcome {
            Outcome::Pass => self.answers.push(Answer {
                verdict: Verdict::Pass(Permit {
                    direction: frame.direction,
                    length: reading.headers.length,
                    vnet: reading.vnet,
                    patch: reading.patch,
                }),
                reason,
                by,
                rule,
                log,
            }),
            Outcome::Drop => self.answers.push(Answer { verdict: Verdict::Drop, reason, by, rule, log }),
            Outcome::Reject => {
                let verdict = self.reject(frame.direction, &reading.headers, frame.bytes);
                self.answers.push(Answer { verdict, reason, by, rule, log });
            }
        }
    }

    #[inline]
    fn weigh(&mut self, frame: &Frame<'_>, reading: &Reading) -> Weighed {
        match reading.outcome {
            Read::NeedWhole => return Weighed::NeedWhole,
            Read::Refused(reason) => {
                let sane = Some(RuleSlot::guard(GuardRule::Sane));
                return Weighed::Decided(Decision::drop(reason, By::Guard, sane));
            }
            Read::Read => {}
        }
        let headers = &reading.headers;
        if !self.state.meters.take(frame.direction, frame.length, self.now) {
            return Weighed::Decided(Decision::drop(Reason::RateLimit, By::Guard, None));
        }
        Weighed::Decided(match self.rules.guard().check(frame.direction, headers) {
            Err(refusal) => Decision::drop(refusal.reason, By::Guard, Some(RuleSlot::guard(refusal.rule))),
            Ok(Cleared::Allowed(rule)) => {
                Decision::pass(Reason::Guard, By::Guard, Some(RuleSlot::guard(rule)))
            }
            Ok(Cleared::Ask) if is_fragment(headers) => return Weighed::Fragment,
            Ok(Cleared::Ask) => self.decide(frame.direction, headers, reading.flow()),
        })
    }

    #[inline(never)]
    fn fragment(&mut self, frame: &Frame<'_>, headers: &Headers) -> Answer {
        let lifetime_s = self.rules.timers().fragment;
        let bytes = frame.bytes.get(..headers.length).unwrap_or(frame.bytes);
        let added = self.state.fragments.add(frame.direction, bytes, headers, self.now, lifetime_s);
        // What this one condemned or pushed out of its place was held until now.
        let lost = self.state.fragments.take_lost();
        self.state.ledger.count_reasons(Reason::FragmentOverlap, lost.overlap);
        self.state.ledger.count_reasons(Reason::FragmentMalformed, lost.malformed);
        self.state.ledger.count_reasons(Reason::FragmentLimit, lost.limit);
        match added {
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
                let mut held = 0_u64;
                self.state.fragments.release(id, |bytes| {
                    answers.emit(direction, bytes, Some(cause));
                    held += 1;
                });
                // The one that made it whole is counted by its own answer.
                self.state.ledger.count_forwarded(direction, held.saturating_sub(1));
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
                let flow = Flow::of(&headers, direction, &self.state.table);
                self.decide(direction, &headers, flow.as_ref())
            }
        }
    }

    #[inline(never)]
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
