//! The walk of a frame from the guest to the uplink.
//!
//! Taken off the ring, judged as the private copy that leaves, sent with the guest's payload behind it, given back.
//! Knows rings, the desk and the uplink. Never knows why a verdict is what it is.

use std::io;

use fw_engine::{Answer, Answers, FRAME_LEN_MAX, Frame, Tick, Verdict, VnetHeader};
use fw_model::{Direction, Reason};

use super::desk::{Desk, GuestDoor};
use super::{BATCH, OUTBOX, Step, Worker};
use crate::features::Acked;
use crate::queue::memory::{Slice, cut};
use crate::queue::ring::{Cursor, Stopped, View};
use crate::queue::tx::{Batch, Slot};
use crate::uplink::Uplink;
use crate::vring::{Live, Look, Ring};

/// A tail in more pieces than this is put together first: a write takes a bounded number.
const TAIL_SLICES_MAX: usize = 60;

/// Scratch and place of the transmit ring.
pub(super) struct Outward {
    cursor: Cursor,
    batch: Batch,
    /// For a frame that is fetched whole: its record.
    whole: Box<[u8]>,
    /// For judging that one alone.
    alone: Answers,
}

impl Outward {
    pub(super) fn new() -> Self {
        Self {
            cursor: Cursor::default(),
            batch: Batch::new(),
            whole: vec![0; VnetHeader::LEN + FRAME_LEN_MAX].into_boxed_slice(),
            alone: Answers::with_capacity(1, OUTBOX),
        }
    }

    /// The rings are others now.
    pub(super) fn forget(&mut self) {
        self.cursor = Cursor::default();
    }

    /// Asks for a kick with the next chain; `true` if there is one already.
    pub(super) fn listen(&mut self, ring: &Ring, acked: Acked) -> bool {
        match ring.look() {
            Look::Wanted => true,
            Look::Idle => false,
            Look::Live(live) => open(&mut self.cursor, &live, acked, Direction::Out)
                .is_some_and(|view| self.cursor.listen(&view)),
        }
    }
}

/// Opens a ring for a batch. Says so, once, when it stops.
pub(super) fn open<'l>(
    cursor: &mut Cursor,
    live: &'l Live<'_>,
    acked: Acked,
    direction: Direction,
) -> Option<View<'l>> {
    match cursor.open(live.memory(), &live.geometry(), acked, live.epoch()) {
        Ok(view) => view,
        Err(stopped) => {
            tell(direction, stopped);
            None
        }
    }
}

pub(super) fn tell(direction: Direction, stopped: Stopped) {
    log::warn!("the {direction} ring is stopped until it is set up anew: {stopped}");
}

impl Worker {
    /// One batch from the guest.
    pub(super) fn step_outward(&mut self, now: Tick) -> io::Result<Step> {
        let Some(rings) = &self.rings else { return Ok(Step::Idle) };
        let live = match rings.outward.look() {
            Look::Live(live) => live,
            Look::Idle => return Ok(Step::Idle),
            Look::Wanted => return Ok(Step::Busy),
        };
        if self.plug.acked() != self.acked {
            return Ok(Step::Busy);
        }
        let Some(view) = open(&mut self.outward.cursor, &live, self.acked, Direction::Out) else {
            return Ok(Step::Idle);
        };
        let waiting = match self.outward.cursor.waiting(&view) {
            Ok(0) => return Ok(Step::Idle),
            Ok(waiting) => waiting,
            Err(stopped) => {
                tell(Direction::Out, stopped);
                return Ok(Step::Idle);
            }
        };
        let from = self.outward.cursor.next();
        let Outward { cursor, batch, whole, alone } = &mut self.outward;
        cursor.hush(&view);
        let mut slices = Vec::with_capacity(BATCH + BATCH / 4);
        batch.collect(&view, live.memory(), cursor, waiting, self.acked.header_len(), &mut slices);
        self.desk.count_bad(u64::try_from(batch.bad()).unwrap_or(0));
        let (frames, count) = batch.frames();
        self.desk.engine.judge(frames.get(..count).unwrap_or_default(), now, &mut self.answers);

        let mut door = GuestDoor {
            ring: Some(&rings.inward),
            inward: &mut self.inward,
            acked: self.acked,
            frozen: self.frozen,
        };
        let mut exit =
            Exit { desk: &mut self.desk, uplink: self.uplink.as_mut(), whole, alone, door: &mut door, now };
        for (slot, answer) in batch.slots().zip(self.answers.drain()) {
            exit.act(slot, answer, &mut slices)?;
        }
        batch.give_back(&view, from);
        let call = cursor.publish(&view, from);
        live.settle(cursor.next(), call);
        self.desk.empty_outbox(&mut self.answers, self.uplink.as_mut(), &mut door)?;
        Ok(Step::Busy)
    }
}

/// What acting on a verdict about a guest's frame needs.
struct Exit<'w, 'd> {
    desk: &'w mut Desk,
    uplink: &'w mut dyn Uplink,
    whole: &'w mut [u8],
    alone: &'w mut Answers,
    door: &'w mut GuestDoor<'d>,
    now: Tick,
}

impl Exit<'_, '_> {
    #[inline(always)]
    fn act(&mut self, slot: &mut Slot, answer: Answer, slices: &mut [Slice<'_>]) -> io::Result<()> {
        self.desk.show(Direction::Out, &answer, slot.head(), slot.length());
        match answer.verdict {
            Verdict::NeedWhole => self.judge_whole(slot, slices),
            Verdict::Pass(permit) => {
                let (record, rest) = slot.parts();
                if rest.is_empty() {
                    return self.desk.send(self.uplink, permit, record, &[]);
                }
                let tail = slices.get_mut(rest).unwrap_or_default();
                let pieces = cut(tail, (VnetHeader::LEN + permit.length()).saturating_sub(record.len()));
                if pieces > TAIL_SLICES_MAX {
                    let whole = slot.fetch(slices, self.whole);
                    return self.desk.send(self.uplink, permit, whole, &[]);
                }
                let tail = tail.get(..pieces).unwrap_or_default();
                self.desk.send(self.uplink, permit, record, tail)
            }
            Verdict::Release | Verdict::Hold | Verdict::Drop | Verdict::Reject => Ok(()),
        }
    }

    /// Fetches the whole frame, once, judges that copy and sends that copy.
    fn judge_whole(&mut self, slot: &Slot, slices: &mut [Slice<'_>]) -> io::Result<()> {
        let record = slot.fetch(slices, self.whole);
        let bytes = record.get(VnetHeader::LEN..).unwrap_or_default();
        let length = bytes.len();
        let frame = Frame { direction: Direction::Out, bytes, length, vnet: slot.vnet() };
        self.desk.engine.judge(&[frame], self.now, self.alone);
        let answer = self.alone.drain().next();
        if let Some(answer) = answer {
            self.desk.show(Direction::Out, &answer, bytes, length);
            match answer.verdict {
                Verdict::Pass(permit) => self.desk.send(self.uplink, permit, record, &[])?,
                // A whole frame has no rest to be asked for; if it is, nothing leaves.
                Verdict::NeedWhole => self.desk.engine.count_drop(Reason::HeadersTooLong),
                Verdict::Release | Verdict::Hold | Verdict::Drop | Verdict::Reject => {}
            }
        }
        self.desk.empty_outbox(self.alone, self.uplink, self.door)
    }
}
