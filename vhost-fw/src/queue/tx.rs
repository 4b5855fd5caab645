//! Frames the driver transmits: taken off the ring in batches, their headers copied once.
//!
//! What a slot holds is private and is what gets judged and sent; the rest of a frame stays in guest memory until it
//! is sent or fetched, once. Knows rings and chains. Never knows what a header means.

use std::ops::Range;

use fw_engine::{FRAME_LEN_MAX, Frame, HEAD_LEN, VnetHeader};
use fw_model::Direction;

use super::BATCH;
use super::chain::{Chains, Way};
use super::memory::{Memory, Slice, take};
use super::ring::{Cursor, View};

/// A batch ends early when its chains name this many buffers: one-byte descriptors must not make it long.
const SLICES_MAX: usize = 2048;

/// One frame of a batch.
pub(crate) struct Slot {
    /// The virtio-net header as the driver wrote it, and the head behind it: copied together, once. The head always
    /// stands behind [`VnetHeader::LEN`] bytes, so that what leaves can be put before it.
    copied: [u8; VnetHeader::LEN + HEAD_LEN],
    /// Where the driver's header starts in `copied`: one from before virtio 1.0 is shorter.
    header_at: usize,
    /// Where the head ends in `copied`.
    end: usize,
    length: usize,
    /// Its buffers in the batch's slices: all of them, and once the head is copied those behind it.
    rest: Range<usize>,
}

impl Slot {
    const EMPTY: Self = Self {
        copied: [0; VnetHeader::LEN + HEAD_LEN],
        header_at: 0,
        end: VnetHeader::LEN,
        length: 0,
        rest: 0..0,
    };

    /// The frame as it is judged.
    #[inline(always)]
    pub(crate) fn frame(&self) -> Frame<'_> {
        Frame { direction: Direction::Out, bytes: self.head(), length: self.length, vnet: self.vnet() }
    }

    /// Whole length in bytes, without the virtio-net header.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    /// What the driver claims. A header from before virtio 1.0 is shorter: what it lacks is 0.
    #[inline(always)]
    pub(crate) fn vnet(&self) -> VnetHeader {
        let Some(header) = self.copied.first_chunk() else { return VnetHeader::NONE };
        if self.header_at == 0 {
            return VnetHeader::from_bytes(*header);
        }
        let mut shorter = [0; VnetHeader::LEN];
        for (to, from) in shorter.iter_mut().zip(header.iter().skip(self.header_at)) {
            *to = *from;
        }
        VnetHeader::from_bytes(shorter)
    }

    #[inline(always)]
    pub(crate) fn head(&self) -> &[u8] {
        self.copied.get(VnetHeader::LEN..self.end).unwrap_or_default()
    }

    /// The record: the private head, to be finished and sent, behind the room for a header; and where the rest stands in
    /// the batch's slices.
    pub(crate) fn parts(&mut self) -> (&mut [u8], Range<usize>) {
        (self.copied.get_mut(..self.end).unwrap_or_default(), self.rest.clone())
    }

    /// Puts the whole frame together in `whole`, as a record: room for a header, the head that was judged, and the rest,
    /// copied now.
    pub(crate) fn fetch<'w>(&self, slices: &mut [Slice<'_>], whole: &'w mut [u8]) -> &'w mut [u8] {
        let Some(whole) = whole.get_mut(..VnetHeader::LEN + self.length) else { return Default::default() };
        let (head, rest) = whole.split_at_mut(self.end.min(VnetHeader::LEN + self.length));
        head.copy_from_slice(self.copied.get(..head.len()).unwrap_or_default());
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
    ///
    /// Heads are copied after the last chain was walked, one close behind the other: the guest wrote them on another
    /// core, and so they are waited for together.
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
        let mut chains = Chains::new(view, memory, Way::FromGuest, header_len + FRAME_LEN_MAX);
        for id in self.ids.iter_mut().take(usize::from(waiting)) {
            if slices.len() >= SLICES_MAX {
                break;
            }
            *id = view.head(cursor.next());
            cursor.advance();
            self.taken += 1;
            let start = slices.len();
            let Ok(total) = chains.walk(*id, slices) else { continue };
            let Some(length) = total.checked_sub(header_len) else { continue };
            if let Some(slot) = self.slots.get_mut(self.good) {
                slot.length = length;
                slot.rest = start..slices.len();
                self.good += 1;
            }
        }
        for slot in self.slots.iter_mut().take(self.good) {
            slot.copy_head(slices, header_len);
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
    fn copy_head(&mut self, slices: &mut [Slice<'_>], header_len: usize) {
        self.header_at = VnetHeader::LEN - header_len.min(VnetHeader::LEN);
        self.end = VnetHeader::LEN + self.length.min(HEAD_LEN);
        let copied = self.copied.get_mut(self.header_at..self.end).unwrap_or_default();
        self.rest.start += take(slices.get_mut(self.rest.clone()).unwrap_or_default(), copied);
    }
}

#[cfg(test)]
mod tests;
