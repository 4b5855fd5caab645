//! The walk of a frame from the uplink to the guest.
//!
//! Read into private memory, judged there, and copied to the guest only after the verdict: what is refused never
//! touches guest memory. The uplink is read only while the guest has buffers; a frame the guest has no room for
//! waits. Knows rings, the desk and the uplink. Never knows why a verdict is what it is.

use std::io;

use fw_engine::{FRAME_LEN_MAX, Frame, Permit, Tick, Verdict, VnetHeader};
use fw_model::{Direction, Reason};

use super::desk::{Desk, GuestDoor};
use super::outward::{open, tell};
use super::{BATCH, Step, Worker};
use crate::features::Acked;
use crate::queue::ring::Cursor;
use crate::queue::rx::{Buffers, Placed, Placer};
use crate::uplink::Uplink;
use crate::vring::{Look, Ring};

/// Room for the longest frame and its header, in whole cache lines.
const PLACE: usize = (VnetHeader::LEN + FRAME_LEN_MAX).next_multiple_of(64);

/// Frames from the uplink on their way, and the place of the receive ring.
pub(super) struct Inward {
    cursor: Cursor,
    placer: Placer,
    /// One place after the other; the kernel gives it memory as it is touched.
    arena: Box<[u8]>,
    items: Vec<Item>,
    /// Items before this one are done.
    first: usize,
}

struct Item {
    length: usize,
    state: State,
}

enum State {
    Unjudged,
    Allowed(Permit),
    Done,
}

impl Inward {
    pub(super) fn new() -> Self {
        Self {
            cursor: Cursor::default(),
            placer: Placer::default(),
            arena: vec![0; BATCH * PLACE].into_boxed_slice(),
            items: Vec::with_capacity(BATCH),
            first: 0,
        }
    }

    /// The rings are others now.
    pub(super) fn forget(&mut self) {
        self.cursor = Cursor::default();
        self.judge_again();
    }

    /// Takes the permits of waiting frames back.
    pub(super) fn judge_again(&mut self) {
        for item in &mut self.items {
            if matches!(item.state, State::Allowed(_)) {
                item.state = State::Unjudged;
            }
        }
    }

    /// Asks for a kick with the next buffer if we wait for one; `true` if there is one already.
    pub(super) fn listen(&mut self, ring: &Ring, acked: Acked) -> bool {
        if !self.cursor.is_short() {
            return false;
        }
        match ring.look() {
            Look::Wanted => true,
            Look::Idle => false,
            Look::Live(live) => open(&mut self.cursor, &live, acked, Direction::In)
                .is_some_and(|view| !self.cursor.still_short() || self.cursor.listen(&view)),
        }
    }

    /// Puts one frame into the guest's buffers now, or says why not.
    pub(super) fn deliver_now(
        &mut self,
        desk: &mut Desk,
        ring: &Ring,
        acked: Acked,
        permit: Permit,
        bytes: &mut [u8],
    ) -> Result<(), Reason> {
        let Look::Live(live) = ring.look() else { return Err(Reason::RxBufferTooSmall) };
        let view = open(&mut self.cursor, &live, acked, Direction::In).ok_or(Reason::RxBufferTooSmall)?;
        if let Err(stopped) = self.cursor.waiting(&view) {
            tell(Direction::In, stopped);
            return Err(Reason::RxBufferTooSmall);
        }
        let from = self.cursor.next();
        let mut buffers = Buffers::new(&view, live.memory(), acked);
        let placed = self.placer.place(&mut buffers, &mut self.cursor, permit, bytes);
        desk.count_bad(self.placer.take_bad());
        let call = self.cursor.publish(&view, from);
        live.settle(self.cursor.next(), call);
        match placed {
            Placed::Yes => Ok(()),
            Placed::NoRoom(_) | Placed::TooSmall => Err(Reason::RxBufferTooSmall),
        }
    }

    /// Reads frames while the uplink has any, `most` at most. `false` when it has no more.
    fn fill(&mut self, uplink: &mut dyn Uplink, most: usize) -> io::Result<bool> {
        self.items.clear();
        self.first = 0;
        for place in self.arena.chunks_exact_mut(PLACE).take(most) {
            let Some(length) = uplink.recv(place)? else { return Ok(false) };
            let state = if length < VnetHeader::LEN { State::Done } else { State::Unjudged };
            self.items.push(Item { length, state });
        }
        Ok(true)
    }

    /// The frames that have no verdict, in order, and where they stand.
    fn unjudged(&self) -> ([Frame<'_>; BATCH], [usize; BATCH], usize) {
        const NOTHING: Frame<'static> =
            Frame { direction: Direction::In, bytes: &[], length: 0, vnet: VnetHeader::NONE };
        let mut frames = [NOTHING; BATCH];
        let mut places = [0; BATCH];
        let items = self.items.iter().zip(self.arena.chunks_exact(PLACE)).enumerate();
        let waiting = items.filter(|(_, (item, _))| matches!(item.state, State::Unjudged));
        let mut count = 0;
        for ((frame, place), (index, (item, bytes))) in frames.iter_mut().zip(&mut places).zip(waiting) {
            *place = index;
            *frame = frame_of(bytes, item.length);
            count += 1;
        }
        (frames, places, count)
    }

    /// Delivers in order while the guest has room.
    fn deliver(&mut self, desk: &mut Desk, mut buffers: Buffers<'_, '_>) {
        while let Some(item) = self.items.get_mut(self.first) {
            let permit = match std::mem::replace(&mut item.state, State::Done) {
                State::Allowed(permit) => permit,
                State::Unjudged | State::Done => {
                    self.first += 1;
                    continue;
                }
            };
            let start = PLACE * self.first + VnetHeader::LEN;
            let end = PLACE * self.first + item.length;
            let bytes = self.arena.get_mut(start..end).unwrap_or_default();
            match self.placer.place(&mut buffers, &mut self.cursor, permit, bytes) {
                Placed::Yes => {}
                Placed::NoRoom(permit) => {
                    item.state = State::Allowed(permit);
                    self.cursor.mark_short();
                    break;
                }
                Placed::TooSmall => desk.engine.count_drop(Reason::RxBufferTooSmall),
            }
            self.first += 1;
        }
        desk.count_bad(self.placer.take_bad());
    }
}

fn frame_of(place: &[u8], length: usize) -> Frame<'_> {
    let (header, bytes) =
        place.get(..length).unwrap_or_default().split_at_checked(VnetHeader::LEN).unwrap_or_default();
    let vnet = header.try_into().map_or(VnetHeader::NONE, VnetHeader::from_bytes);
    Frame { direction: Direction::In, bytes, length: bytes.len(), vnet }
}

impl Worker {
    /// One batch from the uplink.
    pub(super) fn step_inward(&mut self, now: Tick) -> io::Result<Step> {
        let Some(rings) = &self.rings else { return Ok(Step::Idle) };
        let inward = &mut self.inward;
        let pending = inward.first < inward.items.len();
        if !(pending || self.uplink_ready) {
            return Ok(Step::Idle);
        }
        let live = match rings.inward.look() {
            Look::Live(live) => live,
            Look::Idle => return Ok(Step::Idle),
            Look::Wanted => return Ok(Step::Busy),
        };
        if self.plug.acked() != self.acked {
            return Ok(Step::Busy);
        }
        let Some(view) = open(&mut inward.cursor, &live, self.acked, Direction::In) else {
            return Ok(Step::Idle);
        };
        let waiting = match inward.cursor.waiting(&view) {
            Ok(waiting) => usize::from(waiting),
            Err(stopped) => {
                tell(Direction::In, stopped);
                return Ok(Step::Idle);
            }
        };
        if waiting == 0 {
            inward.cursor.mark_short();
        }
        // Nothing to fill, or nothing new since there was too little.
        if inward.cursor.still_short() {
            return Ok(Step::Idle);
        }
        inward.cursor.mark_enough();
        inward.cursor.hush(&view);
        if !pending {
            self.uplink_ready = inward.fill(self.uplink.as_mut(), waiting)?;
        }
        judge(inward, &mut self.desk, &mut self.answers, now);
        let from = inward.cursor.next();
        inward.deliver(&mut self.desk, Buffers::new(&view, live.memory(), self.acked));
        let call = inward.cursor.publish(&view, from);
        live.settle(inward.cursor.next(), call);
        let mut door =
            GuestDoor { ring: Some(&rings.inward), inward, acked: self.acked, frozen: self.frozen };
        self.desk.empty_outbox(&mut self.answers, self.uplink.as_mut(), &mut door)?;
        Ok(if self.inward.items.is_empty() { Step::Idle } else { Step::Busy })
    }
}

/// Gives every frame without a verdict one.
fn judge(inward: &mut Inward, desk: &mut Desk, answers: &mut fw_engine::Answers, now: Tick) {
    let (frames, places, count) = inward.unjudged();
    let frames = frames.get(..count).unwrap_or_default();
    desk.engine.judge(frames, now, answers);
    let mut verdicts: [State; BATCH] = std::array::from_fn(|_| State::Done);
    for ((frame, answer), verdict) in frames.iter().zip(answers.drain()).zip(&mut verdicts) {
        desk.show(Direction::In, &answer, frame.bytes, frame.length);
        match answer.verdict {
            Verdict::Pass(permit) => *verdict = State::Allowed(permit),
            // Inbound frames are whole: there is nothing to ask for, and nothing is delivered.
            Verdict::NeedWhole => desk.engine.count_drop(Reason::HeadersTooLong),
            Verdict::Release | Verdict::Hold | Verdict::Drop | Verdict::Reject => {}
        }
    }
    for (place, verdict) in places.into_iter().take(count).zip(verdicts) {
        if let Some(item) = inward.items.get_mut(place) {
            item.state = verdict;
        }
    }
}
