//! Frames for the driver: put into the buffers it posted, whole or not at all.
//!
//! Buffers are reserved first and written only when they suffice, so that nothing is taken for a frame that does not
//! fit. Takes a permit for every frame. Knows rings and chains. Never knows why a frame may pass.

use fw_engine::{Permit, VnetHeader};

use super::chain::{Chains, Way};
use super::memory::{Memory, Scatter, Slice};
use super::ring::{Cursor, View};
use crate::features::Acked;

/// Where `num_buffers` stands in the header (virtio 1.2 section 5.1.6).
const NUM_BUFFERS: usize = 10;

/// What became of a frame for the guest.
#[must_use]
pub(crate) enum Placed {
    /// It stands in the guest's buffers.
    Yes,
    /// The guest has too few buffers just now; the permit comes back for another try.
    NoRoom(Permit),
    /// It does not fit and never will.
    TooSmall,
}

/// The receive ring for a batch.
pub(crate) struct Buffers<'v, 'm> {
    chains: Chains<'v, 'm>,
    acked: Acked,
    /// The buffers of one frame after the other.
    slices: Vec<Slice<'m>>,
}

impl<'v, 'm> Buffers<'v, 'm> {
    pub(crate) const fn new(view: &'v View<'m>, memory: &'m Memory, acked: Acked) -> Self {
        Self { chains: Chains::new(view, memory, Way::ToGuest, usize::MAX), acked, slices: Vec::new() }
    }
}

/// Puts frames into the guest's buffers.
#[derive(Default)]
pub(crate) struct Placer {
    reserved: Vec<Reserved>,
    bad: u64,
}

struct Reserved {
    id: u16,
    capacity: usize,
}

impl Placer {
    /// Writes one permitted frame, with its header before it, into the buffers at the cursor. [`Cursor::waiting`]
    /// was asked before; nothing shows until [`Cursor::publish`].
    pub(crate) fn place(
        &mut self,
        buffers: &mut Buffers<'_, '_>,
        cursor: &mut Cursor,
        permit: Permit,
        bytes: &mut [u8],
    ) -> Placed {
        permit.finish(bytes);
        let header_len = buffers.acked.header_len();
        let Some(frame) = bytes.get(..permit.length()) else { return Placed::TooSmall };
        match self.reserve(buffers, cursor, header_len + frame.len()) {
            Room::Enough => {}
            Room::NotYet => return Placed::NoRoom(permit),
            Room::Never => return Placed::TooSmall,
        }
        let header = self.header(permit.vnet());
        let mut scatter = Scatter::new(&buffers.slices);
        scatter.put(header.get(..header_len).unwrap_or(&header));
        scatter.put(frame);
        self.commit(buffers.chains.view(), cursor, header_len + frame.len());
        Placed::Yes
    }

    /// Chains retired as bad since the last call.
    pub(crate) fn take_bad(&mut self) -> u64 {
        std::mem::take(&mut self.bad)
    }

    /// Reserves chains for `need` bytes. Chains that are bad are retired on the way, and with them the good ones
    /// reserved before them: the ring completes in order.
    fn reserve(&mut self, buffers: &mut Buffers<'_, '_>, cursor: &mut Cursor, need: usize) -> Room {
        let Buffers { chains, acked, slices } = buffers;
        let view = chains.view();
        self.reserved.clear();
        slices.clear();
        let mut position = cursor.next();
        let mut capacity = 0_usize;
        while capacity < need {
            if !acked.mergeable() && !self.reserved.is_empty() {
                return Room::Never;
            }
            if position == cursor.seen() {
                let all = position.wrapping_sub(cursor.next()) >= view.size();
                return if all { Room::Never } else { Room::NotYet };
            }
            let id = view.head(position);
            position = position.wrapping_add(1);
            let chain = chains.walk(id, slices).unwrap_or(0);
            self.reserved.push(Reserved { id, capacity: chain });
            if chain == 0 {
                self.retire(view, cursor);
                slices.clear();
                capacity = 0;
            } else {
                capacity = capacity.saturating_add(chain);
            }
        }
        Room::Enough
    }

    fn retire(&mut self, view: &View<'_>, cursor: &mut Cursor) {
        self.bad += 1;
        for reserved in self.reserved.drain(..) {
            view.write_used(cursor.next(), reserved.id, 0);
            cursor.advance();
        }
    }

    fn header(&self, vnet: VnetHeader) -> [u8; VnetHeader::LEN] {
        let mut header = vnet.to_bytes();
        let buffers = u16::try_from(self.reserved.len()).unwrap_or(u16::MAX);
        if let Some(field) = header.get_mut(NUM_BUFFERS..) {
            field.copy_from_slice(&buffers.to_le_bytes());
        }
        header
    }

    fn commit(&mut self, view: &View<'_>, cursor: &mut Cursor, length: usize) {
        let mut left = length;
        for reserved in self.reserved.drain(..) {
            let written = left.min(reserved.capacity);
            left -= written;
            view.write_used(cursor.next(), reserved.id, u32::try_from(written).unwrap_or(0));
            cursor.advance();
        }
    }
}

enum Room {
    Enough,
    NotYet,
    Never,
}

#[cfg(test)]
mod tests;
