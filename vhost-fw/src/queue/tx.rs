//! Frames the driver transmits: taken off the ring in batches, their headers copied once.
//!
//! What a slot holds is private and is what gets judged and sent; the rest of a frame stays in guest memory until it
//! is sent or fetched, once. Knows rings and chains. Never knows what a header means.

use std::ops::Range;

use fw_engine::{FRAME_LEN_MAX, Frame, HEAD_LEN, VnetHeader};
use fw_model::Direction;

use super::BATCH;
use super::chain::{Way, walk};
use super::memory::{Memory, Slice, take};
use super::ring::{Cursor, View};

/// A batch ends early when its chains name this many buffers: one-byte descriptors must not make it long.
const SLICES_MAX: usize = 2048;

/// One frame of a batch.
pub(crate) struct Slot {
    vnet: VnetHeader,
    head: [u8; HEAD_LEN],
    head_len: usize,
    length: usize,
    /// Its buffers behind the head, in the batch's slices.
    rest: Range<usize>,
}

impl Slot {
    const EMPTY: Self =
        Self { vnet: VnetHeader::NONE, head: [0; HEAD_LEN], head_len: 0, length: 0, rest: 0..0 };

    /// The frame as it is judged.
    pub(crate) fn frame(&self) -> Frame<'_> {
        Frame { direction: Direction::Out, bytes: self.head(), length: self.length, vnet: self.vnet }
    }

    /// Whole length in bytes, without the virtio-net header.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    pub(crate) const fn vnet(&self) -> VnetHeader {
        self.vnet
    }

    pub(crate) fn head(&self) -> &[u8] {
        self.head.get(..self.head_len).unwrap_or_default()
    }

    /// The private head, to be finished and sent, and where the rest stands in the batch's slices.
    pub(crate) fn parts(&mut self) -> (&mut [u8], Range<usize>) {
        (self.head.get_mut(..self.head_len).unwrap_or_default(), self.rest.clone())
    }

    /// Puts the whole frame together in `whole`: the head that was judged, and the rest, copied now.
    pub(crate) fn fetch<'w>(&self, slices: &mut [Slice<'_>], whole: &'w mut [u8]) -> &'w mut [u8] {
        let Some(whole) = whole.get_mut(..self.length) else { return Default::default() };
        let (head, rest) = whole.split_at_mut(self.head_len.min(self.length));
        head.copy_from_slice(self.head.get(..head.len()).unwrap_or_default());
        take(slices.get_mut(self.rest.clone()).unwrap_or_default(), rest);
        whole
    }
}

/// Chains taken together, with their frames.
pub(crate) struct Batch {
    slots: Box<[Slot]>,
    good: usize,
    ids: [u16; BATCH],
    taken: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self { slots: (0..BATCH).map(|_| Slot::EMPTY).collect(), good: 0, ids: [0; BATCH], taken: 0 }
    }

    /// Takes up to a batch of the `waiting` chains and copies their heads. `slices` gets the buffers.
    pub(crate) fn collect<'m>(
        &mut self,
        view: &View<'m>,
        memory: &'m Memory,
        cursor: &mut Cursor,
        waiting: u16,
        header_len: usize,
        slices: &mut Vec<Slice<'m>>,
    ) {
        self.good = 0;
        self.taken = 0;
        for id in self.ids.iter_mut().take(usize::from(waiting)) {
            if slices.len() >= SLICES_MAX {
                break;
            }
            *id = view.head(cursor.next());
            cursor.advance();
            self.taken += 1;
            let start = slices.len();
            let Ok(total) = walk(view, memory, *id, Way::FromGuest, header_len + FRAME_LEN_MAX, slices)
            else {
                continue;
            };
            let Some(length) = total.checked_sub(header_len) else { continue };
            if let Some(slot) = self.slots.get_mut(self.good) {
                slot.fill(slices.get_mut(start..).unwrap_or_default(), start, header_len, length);
                self.good += 1;
            }
        }
    }

    /// Chains that were no frames.
    pub(crate) const fn bad(&self) -> usize {
        self.taken - self.good
    }

    /// The frames, in order.
    pub(crate) fn frames(&self) -> ([Frame<'_>; BATCH], usize) {
        let mut slots = self.slots.iter();
        (std::array::from_fn(|_| slots.next().unwrap_or(&Slot::EMPTY).frame()), self.good)
    }

    pub(crate) fn slots(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().take(self.good)
    }

    /// Gives every chain back, with its id as read and nothing written; `from` is where the batch began.
    pub(crate) fn give_back(&self, view: &View<'_>, from: u16) {
        let mut position = from;
        for id in self.ids.iter().take(self.taken) {
            view.write_used(position, *id, 0);
            position = position.wrapping_add(1);
        }
    }
}

impl Slot {
    fn fill(&mut self, slices: &mut [Slice<'_>], start: usize, header_len: usize, length: usize) {
        let mut header = [0; VnetHeader::LEN];
        self.length = length;
        self.head_len = length.min(HEAD_LEN);
        let end = start + slices.len();
        let used_up = take(slices, header.get_mut(..header_len).unwrap_or_default());
        let behind = slices.get_mut(used_up..).unwrap_or_default();
        let used_up = used_up + take(behind, self.head.get_mut(..self.head_len).unwrap_or_default());
        self.vnet = VnetHeader::from_bytes(header);
        self.rest = start + used_up..end;
    }
}

#[cfg(test)]
mod tests;
