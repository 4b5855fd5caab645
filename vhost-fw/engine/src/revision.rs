//! What new rules do to living conns.
//!
//! A conn is judged again by its opener's key and direction: before its next frame, and by a sweep that visits every
//! conn after a change. Knows conns' admissions and the rules in force. Never knows the frame that happens to arrive.

use fw_model::{Action, DefaultAction, Direction, FlowKey, OnRevoke, Protocol};

use crate::conntrack::{Admitted, ConnId, View};
use crate::in_force::InForce;
use crate::matcher::{Match, Question};
use crate::reply::{self, Reset};
use crate::state::{State, Sweep};
use crate::time::Tick;
use crate::verdict::{Answers, RuleSlot};

/// Conns one step of the sweep visits: well under 50 µs.
const SWEEP_STEP: u32 = 128;

impl State {
    /// Judges a conn of an older epoch by the rules in force: still allowed, it gets a new admission; else what its
    /// rule says of revoking happens. `None` if that closed it.
    pub(crate) fn judge_again(
        &mut self,
        rules: &InForce,
        id: ConnId,
        now: Tick,
        answers: &mut Answers,
    ) -> Option<Admitted> {
        let held = self.table.admitted(id)?;
        let (flow, opener) = self.table.flow(id)?;
        let owned = is_owned(rules, &flow, &held);
        let verdict = if owned { readmission(rules, &flow, opener, &held) } else { None };
        let admitted = match (verdict, held.on_revoke) {
            (Some(admitted), _) => admitted,
            (None, OnRevoke::Keep) if owned => Admitted { epoch: rules.epoch(), ..held },
            (None, OnRevoke::Drain) if owned => {
                self.table.drain(id, now);
                // Drained once is drained: it keeps its end through later generations.
                Admitted { epoch: rules.epoch(), on_revoke: OnRevoke::Keep, ..held }
            }
            (None, OnRevoke::Kill | OnRevoke::Keep | OnRevoke::Drain) => {
                self.revoke(rules, id, now, answers);
                return None;
            }
        };
        self.ledger.conn_moved(held.rule, admitted.rule);
        self.table.readmit(id, admitted);
        Some(admitted)
    }

    /// Visits the next conns of the sweep.
    pub(crate) fn sweep(&mut self, rules: &InForce, now: Tick, answers: &mut Answers) {
        let Some(sweep) = self.sweep else { return };
        let end = sweep.next_slot.saturating_add(SWEEP_STEP).min(self.table.slots());
        for slot in sweep.next_slot..end {
            let old = self.table.id_at(slot).filter(|id| {
                self.table.admitted(*id).is_some_and(|admitted| admitted.epoch != rules.epoch())
            });
            if let Some(id) = old {
                self.judge_again(rules, id, now, answers);
            }
        }
        if end == self.table.slots() {
            self.sweep = None;
            self.swept = Some(sweep.generation);
        } else {
            self.sweep = Some(Sweep { next_slot: end, ..sweep });
        }
    }

    /// Closes a conn and tells TCP at both ends.
    pub(crate) fn revoke(&mut self, rules: &InForce, id: ConnId, now: Tick, answers: &mut Answers) {
        let view = self.table.info(id, now);
        if let Some(closed) = self.table.close(id) {
            self.ledger.conn_closed(closed.rule);
        }
        if let Some(view) = view {
            self.reset_both(rules, &view, now, answers);
        }
    }

    fn reset_both(&mut self, rules: &InForce, view: &View, now: Tick, answers: &mut Answers) {
        let Some(tcp) = view.tcp else { return };
        let reset = |sequence, acknowledgement| Reset {
            flow: view.flow,
            guest_mac: rules.guard().own_mac(view.flow.local),
            peer_mac: view.peer_mac,
            sequence,
            acknowledgement,
        };
        let mut out = [0; reply::REPLY_LEN_MAX];
        let to_guest = reset(tcp.guest_sequence, tcp.guest_ack);
        let to_peer = reset(tcp.peer_sequence, tcp.peer_ack);
        for (direction, told) in [(Direction::In, to_guest), (Direction::Out, to_peer)] {
            let length = reply::reset_to(&told, direction, &mut out);
            let Some(frame) = length.and_then(|length| out.get(..length)) else { continue };
            if self.meters.take_reply(now) {
                answers.emit(direction, frame, None);
            }
        }
    }
}

/// The rule a conn would live by if it were judged now: [`State::judge_again`] without its effects. `None` if it would
/// be closed.
pub(crate) fn living_by(
    rules: &InForce,
    flow: &FlowKey,
    opener: Direction,
    held: &Admitted,
) -> Option<Option<RuleSlot>> {
    if held.epoch == rules.epoch() {
        return Some(held.rule);
    }
    if !is_owned(rules, flow, held) {
        return None;
    }
    match readmission(rules, flow, opener, held) {
        Some(admitted) => Some(admitted.rule),
        None => (held.on_revoke != OnRevoke::Kill).then_some(held.rule),
    }
}

/// Whether the NIC is still who it was when the conn was admitted: a change of its own identity always kills
/// (CONTRACT 4).
fn is_owned(rules: &InForce, flow: &FlowKey, held: &Admitted) -> bool {
    rules.guard().owns(flow.local) && flow.vlan == rules.guard().vlan() && rules.is_same_nic_as_in(held.epoch)
}

/// What the rules say of a conn that lives: its new admission, or `None`.
pub(crate) fn readmission(
    rules: &InForce,
    flow: &FlowKey,
    opener: Direction,
    held: &Admitted,
) -> Option<Admitted> {
    if held.expected {
        let place = rules.place(held.rule?)?;
        return rules.may_answer(place, flow.remote).then(|| rules.admission_of(place, true));
    }
    match rules.first_match(&opening_question(flow, opener)) {
        Match::Rule(place) => match rules.action(place) {
            Action::Allow => Some(rules.admission_of(place, false)),
            Action::Drop | Action::Reject | Action::Pass(_) => None,
        },
        Match::Default(DefaultAction::Allow) => Some(rules.default_admission()),
        Match::Default(DefaultAction::Drop | DefaultAction::Reject) => None,
    }
}

/// The question the opener's first frame asked.
pub(crate) fn opening_question(flow: &FlowKey, opener: Direction) -> Question {
    let port = match opener {
        Direction::Out => flow.remote_port,
        Direction::In => flow.local_port,
    };
    let (port, icmp) = match flow.protocol {
        Protocol::ICMP => (0, Some((8, 0))),
        Protocol::ICMPV6 => (0, Some((128, 0))),
        _ => (port, None),
    };
    Question::Ip { direction: opener, remote: flow.remote, protocol: flow.protocol, port, icmp }
}
