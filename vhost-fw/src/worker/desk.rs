//! Where verdicts are acted upon: the engine, the onlooker, and the two doors that ask for a permit.
//!
//! Knows verdicts, permits and reasons. Never knows how a frame was taken off a ring.

use std::io;

use fw_engine::{Answer, Answers, Engine, FRAME_LEN_MAX, Permit, Verdict, VnetHeader};
use fw_model::{Direction, Reason};

use super::inward::Inward;
use crate::decision::{Decision, Observer, SHOWN_LEN};
use crate::features::Acked;
use crate::queue::memory::Slice;
use crate::uplink::{Sent, Uplink};
use crate::vring::Ring;

pub(super) struct Desk {
    pub(super) engine: Engine,
    pub(super) observer: Box<dyn Observer>,
    /// For frames of the engine's own making: room for a header, and one of them.
    own: Box<[u8]>,
}

impl Desk {
    pub(super) fn new(engine: Engine, observer: Box<dyn Observer>) -> Self {
        Self { engine, observer, own: vec![0; VnetHeader::LEN + FRAME_LEN_MAX].into_boxed_slice() }
    }

    /// Shows the onlooker refusals, and what a rule wants logged.
    #[inline(always)]
    pub(super) fn show(&mut self, direction: Direction, answer: &Answer, bytes: &[u8], length: usize) {
        let refused = matches!(answer.verdict, Verdict::Drop | Verdict::Reject);
        if refused || answer.log {
            self.show_this(direction, answer, bytes, length);
        }
    }

    #[cold]
    fn show_this(&mut self, direction: Direction, answer: &Answer, bytes: &[u8], length: usize) {
        let Some(verdict) = answer.name().filter(|_| self.observer.wants(answer.reason)) else { return };
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

    /// The door to the network. `record` is room for a header and the private head, which is finished here; `tail` was
    /// cut to the permit's length.
    #[inline(always)]
    pub(super) fn send(
        &mut self,
        uplink: &mut dyn Uplink,
        permit: Permit,
        record: &mut [u8],
        tail: &[Slice<'_>],
    ) -> io::Result<()> {
        let end = record.len().min(VnetHeader::LEN + permit.length());
        let record = record.get_mut(..end).unwrap_or_default();
        permit.finish(record.get_mut(VnetHeader::LEN..).unwrap_or_default());
        match uplink.send(permit, record, tail)? {
            Sent::Yes => {}
            Sent::Full => self.engine.count_drop(Reason::UplinkFull),
            Sent::Refused => self.engine.count_drop(Reason::UplinkRefused),
        }
        Ok(())
    }

    /// As [`Desk::send`], for a frame with no room before it.
    fn send_own(&mut self, uplink: &mut dyn Uplink, permit: Permit, frame: &[u8]) -> io::Result<()> {
        let mut own = std::mem::take(&mut self.own);
        let sent = match own.get_mut(..VnetHeader::LEN + frame.len()) {
            Some(record) => {
                if let Some((_, head)) = record.split_at_mut_checked(VnetHeader::LEN) {
                    head.copy_from_slice(frame);
                }
                self.send(uplink, permit, record, &[])
            }
            None => {
                self.engine.count_drop(Reason::UplinkRefused);
                Ok(())
            }
        };
        self.own = own;
        sent
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
            Direction::Out if gone.is_ok() => gone = self.send_own(uplink, permit, bytes),
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
