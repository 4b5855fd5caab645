//! Where verdicts are acted upon: the engine, the onlooker, and the two doors that ask for a permit.
//!
//! Knows verdicts, permits and reasons. Never knows how a frame was taken off a ring.

use std::io;

use fw_engine::{Answer, Answers, Engine, Permit};
use fw_model::{Direction, Reason, VerdictName};

use super::inward::Inward;
use crate::decision::{Decision, Observer, SHOWN_LEN};
use crate::features::Acked;
use crate::queue::memory::Slice;
use crate::uplink::{Sent, Uplink};
use crate::vring::Ring;

pub(super) struct Desk {
    pub(super) engine: Engine,
    pub(super) observer: Box<dyn Observer>,
}

impl Desk {
    pub(super) fn new(engine: Engine, observer: Box<dyn Observer>) -> Self {
        Self { engine, observer }
    }

    /// Shows the onlooker refusals, and what a rule wants logged.
    pub(super) fn show(&mut self, direction: Direction, answer: &Answer, bytes: &[u8], length: usize) {
        let Some(verdict) = answer.name() else { return };
        let refused = matches!(verdict, VerdictName::Drop | VerdictName::Reject);
        if !(refused || answer.log) || !self.observer.wants(answer.reason) {
            return;
        }
        let mut head = [0; SHOWN_LEN];
        let head_len = bytes.len().min(SHOWN_LEN);
        if let (Some(to), Some(from)) = (head.get_mut(..head_len), bytes.get(..head_len)) {
            to.copy_from_slice(from);
        }
        self.observer.decided(&Decision {
            direction,
            verdict,
            reason: answer.reason,
            by: answer.by,
            rule: answer.rule.and_then(|slot| self.engine.rule_id(slot)).cloned(),
            head,
            head_len,
            length,
        });
    }

    /// The door to the network. `head` is private and finished here; `tail` was cut to the permit's length.
    pub(super) fn send(
        &mut self,
        uplink: &mut dyn Uplink,
        permit: Permit,
        head: &mut [u8],
        tail: &[Slice<'_>],
    ) -> io::Result<()> {
        permit.finish(head);
        let head = head.get(..permit.length()).unwrap_or(head);
        match uplink.send(permit, head, tail)? {
            Sent::Yes => {}
            Sent::Full => self.engine.count_drop(Reason::UplinkFull),
            Sent::Refused => self.engine.count_drop(Reason::UplinkRefused),
        }
        Ok(())
    }

    /// Counts chains that were no frames.
    pub(super) fn count_bad(&mut self, chains: u64) {
        for _ in 0..chains {
            self.engine.count_drop(Reason::BadDescriptor);
        }
    }

    /// Lets the frames of the outbox go, each through its door.
    pub(super) fn empty_outbox(
        &mut self,
        answers: &mut Answers,
        uplink: &mut dyn Uplink,
        door: &mut GuestDoor<'_>,
    ) -> io::Result<()> {
        let mut gone = Ok(());
        answers.for_each_emission(|permit, bytes, _| match permit.direction() {
            Direction::Out if gone.is_ok() => gone = self.send(uplink, permit, bytes, &[]),
            Direction::Out => {}
            Direction::In => {
                if let Err(reason) = door.deliver(self, permit, bytes) {
                    self.engine.count_drop(reason);
                }
            }
        });
        gone
    }
}

/// The door to the guest for frames that do not wait: those of the engine's own making.
pub(super) struct GuestDoor<'w> {
    pub(super) ring: Option<&'w Ring>,
    pub(super) inward: &'w mut Inward,
    pub(super) acked: Acked,
    pub(super) frozen: bool,
}

impl GuestDoor<'_> {
    fn deliver(&mut self, desk: &mut Desk, permit: Permit, bytes: &mut [u8]) -> Result<(), Reason> {
        if self.frozen {
            return Err(Reason::Frozen);
        }
        let ring = self.ring.ok_or(Reason::RxBufferTooSmall)?;
        self.inward.deliver_now(desk, ring, self.acked, permit, bytes)
    }
}
