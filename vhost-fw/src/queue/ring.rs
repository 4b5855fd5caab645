//! One split ring (virtio 1.2 section 2.7): where it stands in guest memory, and how far we are on it.
//!
//! A [`View`] lives for one batch; a [`Cursor`] remembers the place between batches. Used elements are written
//! first and shown by one store of the index. Knows a ring's layout. Never follows a descriptor to its buffer.

use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE,
    VRING_USED_F_NO_NOTIFY,
};
use virtio_queue::QueueState;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::memory::{Memory, Slice};
use crate::features::Acked;

/// Bytes of flags and index before a ring's entries.
const HEAD: usize = 4;
const FLAGS: usize = 0;
const INDEX: usize = 2;
const AVAIL_ENTRY: usize = 2;
const USED_ELEMENT: usize = 8;

/// Why a ring is no longer served until it is set up anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stopped {
    /// Its tables are not in guest memory, or not aligned there.
    #[error("its descriptor table, available ring or used ring is not in guest memory")]
    Unmapped,
    /// The driver claims more chains than the ring has room for.
    #[error("its available index is {ahead} ahead in a ring of {size}")]
    RanAway {
        /// How far ahead of us.
        ahead: u16,
        /// The ring's size.
        size: u16,
    },
}

/// A descriptor as it was read (virtio 1.2 section 2.7.5): two words, which stay in registers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descriptor {
    address: u64,
    /// Length, flags and next, from the low end.
    rest: u64,
}

impl Descriptor {
    /// Bytes of it in a table.
    pub(super) const LEN: usize = 16;

    #[inline]
    pub(super) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let bits = u128::from_le_bytes(bytes);
        let low = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0);
        Self { address: low(bits), rest: low(bits >> 64) }
    }

    pub(super) const fn address(self) -> GuestAddress {
        GuestAddress(self.address)
    }

    /// Bytes of its buffer.
    pub(super) const fn length(self) -> u64 {
        self.rest & 0xffff_ffff
    }

    pub(super) const fn has_next(self) -> bool {
        self.has(VRING_DESC_F_NEXT)
    }

    pub(super) const fn is_for_writing(self) -> bool {
        self.has(VRING_DESC_F_WRITE)
    }

    pub(super) const fn is_indirect(self) -> bool {
        self.has(VRING_DESC_F_INDIRECT)
    }

    pub(super) const fn next(self) -> u16 {
        let [.., low, high] = self.rest.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    const fn has(self, flag: u32) -> bool {
        self.rest >> 32 & flag as u64 != 0
    }
}

/// A ring's three tables for the length of a batch.
pub(crate) struct View<'m> {
    descriptors: Slice<'m>,
    avail: Slice<'m>,
    used: Slice<'m>,
    size: u16,
    event_idx: bool,
    indirect: bool,
}

impl<'m> View<'m> {
    /// The ring that `geometry` describes, if all of it is in guest memory.
    pub(crate) fn open(memory: &'m Memory, geometry: &QueueState, acked: Acked) -> Result<Self, Stopped> {
        let size = usize::from(geometry.size);
        let event = if acked.event_idx() { 2 } else { 0 };
        let table = |address, length| {
            GuestMemoryBackend::get_slice(memory, GuestAddress(address), length)
                .map_err(|_| Stopped::Unmapped)
        };
        let view = Self {
            descriptors: table(geometry.desc_table, Descriptor::LEN * size)?,
            avail: table(geometry.avail_ring, HEAD + AVAIL_ENTRY * size + event)?,
            used: table(geometry.used_ring, HEAD + USED_ELEMENT * size + event)?,
            size: geometry.size,
            event_idx: acked.event_idx(),
            indirect: acked.indirect(),
        };
        // What is loaded and stored below has these alignments (virtio 1.2 section 2.7 asks for no less) and lies
        // within. No ring is empty: the queue's owner refuses that.
        view.descriptors.load::<u64>(0, Ordering::Relaxed).map_err(|_| Stopped::Unmapped)?;
        view.avail.load::<u16>(INDEX, Ordering::Relaxed).map_err(|_| Stopped::Unmapped)?;
        view.used.load::<u32>(HEAD, Ordering::Relaxed).map_err(|_| Stopped::Unmapped)?;
        Ok(view)
    }

    pub(crate) const fn size(&self) -> u16 {
        self.size
    }

    /// Whether chains may use indirect tables.
    pub(crate) const fn indirect(&self) -> bool {
        self.indirect
    }

    /// The head the driver wrote for the chain at `position`.
    pub(crate) fn head(&self, position: u16) -> u16 {
        let offset = HEAD + AVAIL_ENTRY * self.place(position);
        u16::from_le(self.avail.load(offset, Ordering::Relaxed).unwrap_or(u16::MAX))
    }

    /// Reads a descriptor, once; `None` beyond the table.
    #[inline(always)]
    pub(super) fn descriptor(&self, index: u16) -> Option<Descriptor> {
        if index >= self.size {
            return None;
        }
        let at = Descriptor::LEN * usize::from(index);
        let half = |at| self.descriptors.load(at, Ordering::Relaxed).map(u64::from_le).ok();
        Some(Descriptor { address: half(at)?, rest: half(at + Descriptor::LEN / 2)? })
    }

    /// Writes the used element at `position`; the driver sees it after [`Cursor::publish`].
    pub(crate) fn write_used(&self, position: u16, id: u16, length: u32) {
        let offset = HEAD + USED_ELEMENT * self.place(position);
        // Within the table by construction, so there is no error to meet.
        let _ = self.used.store(u32::from(id).to_le(), offset, Ordering::Relaxed);
        let _ = self.used.store(length.to_le(), offset + USED_ELEMENT / 2, Ordering::Relaxed);
    }

    fn place(&self, position: u16) -> usize {
        // The size is a power of two: the queue's owner refuses any other.
        usize::from(position & self.size.wrapping_sub(1))
    }

    fn avail_index(&self, order: Ordering) -> u16 {
        u16::from_le(self.avail.load(INDEX, order).unwrap_or(0))
    }

    fn used_index(&self) -> u16 {
        u16::from_le(self.used.load(INDEX, Ordering::Relaxed).unwrap_or(0))
    }

    /// Whether the driver wants to be called for the used elements from `from` up to `to` (virtio 1.2 section
    /// 2.7.7). Loads after the index was stored.
    fn wants_call(&self, from: u16, to: u16) -> bool {
        fence(Ordering::SeqCst);
        if self.event_idx {
            let offset = HEAD + AVAIL_ENTRY * usize::from(self.size);
            let event = u16::from_le(self.avail.load(offset, Ordering::Relaxed).unwrap_or(0));
            return to.wrapping_sub(event).wrapping_sub(1) < to.wrapping_sub(from);
        }
        let flags = u16::from_le(self.avail.load(FLAGS, Ordering::Relaxed).unwrap_or(0));
        u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
    }

    fn set_kick_event(&self, position: u16) {
        let offset = HEAD + USED_ELEMENT * usize::from(self.size);
        let _ = self.used.store(position.to_le(), offset, Ordering::Relaxed);
    }

    fn set_used_flags(&self, quiet: bool) {
        let flags = if quiet { u16::try_from(VRING_USED_F_NO_NOTIFY).unwrap_or(0) } else { 0 };
        let _ = self.used.store(flags.to_le(), FLAGS, Ordering::Relaxed);
    }
}

/// How far we are on a ring. Chains complete in order, so one number says both what was taken and what was given
/// back; it starts from the used index in guest memory whatever base the VMM names.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    next: u16,
    seen: u16,
    epoch: Option<u64>,
    stopped: Option<Stopped>,
    /// What the driver's index was when its chains were too few.
    short: Option<u16>,
    quiet: bool,
}

impl Cursor {
    /// The position of the next chain.
    pub(crate) const fn next(&self) -> u16 {
        self.next
    }

    pub(crate) const fn advance(&mut self) {
        self.next = self.next.wrapping_add(1);
    }

    /// Opens the ring, from its used index if it was set up anew (`epoch` is another). `None` while it is stopped;
    /// `Err` when it stops now.
    pub(crate) fn open<'m>(
        &mut self,
        memory: &'m Memory,
        geometry: &QueueState,
        acked: Acked,
        epoch: u64,
    ) -> Result<Option<View<'m>>, Stopped> {
        let anew = self.epoch != Some(epoch);
        if !anew && self.stopped.is_some() {
            return Ok(None);
        }
        let view = View::open(memory, geometry, acked);
        if anew {
            *self = Self { epoch: Some(epoch), ..Self::default() };
            self.next = view.as_ref().map_or(0, View::used_index);
            self.seen = self.next;
        }
        self.stopped = view.as_ref().err().copied();
        view.map(Some)
    }

    /// How many chains wait. The driver's index is read once; one that is more than the ring's size ahead stops
    /// the ring.
    pub(crate) fn waiting(&mut self, view: &View<'_>) -> Result<u16, Stopped> {
        self.seen = view.avail_index(Ordering::Acquire);
        let ahead = self.seen.wrapping_sub(self.next);
        if ahead > view.size {
            let stopped = Stopped::RanAway { ahead, size: view.size };
            self.stopped = Some(stopped);
            return Err(stopped);
        }
        Ok(ahead)
    }

    /// The driver's index as [`Cursor::waiting`] read it.
    pub(crate) const fn seen(&self) -> u16 {
        self.seen
    }

    /// Notes that the chains there are do not suffice.
    pub(crate) const fn mark_short(&mut self) {
        self.short = Some(self.seen);
    }

    pub(crate) const fn mark_enough(&mut self) {
        self.short = None;
    }

    /// Whether we wait for the driver to add chains.
    pub(crate) const fn is_short(&self) -> bool {
        self.short.is_some()
    }

    /// Whether the driver has added none since [`Cursor::mark_short`], as far as was read.
    pub(crate) fn still_short(&self) -> bool {
        self.short == Some(self.seen)
    }

    /// Shows the driver every used element up to here, in one store; `from` is where the batch began. Says whether
    /// the driver wants to be called.
    pub(crate) fn publish(&self, view: &View<'_>, from: u16) -> bool {
        if self.next == from {
            return false;
        }
        let _ = view.used.store(self.next.to_le(), INDEX, Ordering::Release);
        view.wants_call(from, self.next)
    }

    /// Asks the driver not to kick while we are busy. With `EVENT_IDX` it does not anyway, past the position named
    /// last.
    pub(crate) fn hush(&mut self, view: &View<'_>) {
        if !view.event_idx && !self.quiet {
            self.quiet = true;
            view.set_used_flags(true);
        }
    }

    /// Asks the driver to kick for the next chain it adds, and says whether it added one meanwhile: then there will
    /// be no kick, and work to do.
    pub(crate) fn listen(&mut self, view: &View<'_>) -> bool {
        if view.event_idx {
            view.set_kick_event(self.seen);
        } else {
            self.quiet = false;
            view.set_used_flags(false);
        }
        fence(Ordering::SeqCst);
        view.avail_index(Ordering::Acquire) != self.seen
    }
}

#[cfg(test)]
mod tests;
