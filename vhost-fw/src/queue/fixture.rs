//! A ring of eight in real guest memory, driven by hand.

use virtio_queue::QueueState;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::memory::{Memory, Slice};
use super::ring::{Cursor, Stopped, View};
use crate::features::{Acked, offered};

// VRING_DESC_F_* (virtio 1.2 section 2.7.5).
pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

pub(super) const SIZE: u16 = 8;
const DESCRIPTORS: u64 = 0x1000;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
/// Free for tables and buffers.
pub(super) const BUFFERS: u64 = 0x4000;
/// The first two regions touch here.
pub(super) const BORDER: u64 = 0x10000;
/// The second region ends here; a hole follows.
pub(super) const HOLE: u64 = 0x20000;

/// Bytes in guest memory, each part in a region of its own.
pub(crate) struct Parts {
    memory: Memory,
    lengths: Vec<usize>,
}

impl Parts {
    pub(crate) fn of<'b>(parts: impl IntoIterator<Item = &'b [u8]>) -> Self {
        let parts: Vec<_> = parts.into_iter().collect();
        let ranges: Vec<_> = (0..).zip(&parts).map(|(place, part)| (Self::at(place), part.len())).collect();
        let memory = Memory::from_ranges(&ranges).unwrap();
        for (place, part) in (0..).zip(&parts) {
            memory.write_slice(part, Self::at(place)).unwrap();
        }
        Self { memory, lengths: parts.iter().map(|part| part.len()).collect() }
    }

    fn at(place: u64) -> GuestAddress {
        GuestAddress(place << 32)
    }

    pub(crate) fn slices(&self) -> Vec<Slice<'_>> {
        let parts = (0..).zip(&self.lengths);
        parts
            .map(|(place, length)| {
                GuestMemoryBackend::get_slice(&self.memory, Self::at(place), *length).unwrap()
            })
            .collect()
    }

    pub(crate) fn bytes(&self) -> Vec<Vec<u8>> {
        let copy = |slice: Slice<'_>| {
            let mut bytes = vec![0; slice.len()];
            slice.copy_to(&mut bytes);
            bytes
        };
        self.slices().into_iter().map(copy).collect()
    }
}

pub(super) struct Guest {
    pub(super) memory: Memory,
    pub(super) acked: Acked,
    pub(super) geometry: QueueState,
    posted: u16,
}

impl Guest {
    pub(super) fn new() -> Self {
        let ranges =
            [(GuestAddress(0), 0x10000), (GuestAddress(BORDER), 0x10000), (GuestAddress(0x40000), 0x40000)];
        let geometry = QueueState {
            max_size: 256,
            next_avail: 77,
            next_used: 99,
            event_idx_enabled: true,
            size: SIZE,
            ready: true,
            desc_table: DESCRIPTORS,
            avail_ring: AVAIL,
            used_ring: USED,
        };
        let memory = Memory::from_ranges(&ranges).unwrap();
        Self { memory, acked: Acked(offered(true, true)), geometry, posted: 0 }
    }

    pub(super) fn without(mut self, feature: u32) -> Self {
        self.acked = Acked(self.acked.0 & !(1 << feature));
        self
    }

    /// The ring starts here.
    pub(super) fn starting_at(mut self, index: u16) -> Self {
        self.posted = index;
        self.set_avail_index(index);
        self.memory.write_obj(index.to_le(), GuestAddress(USED + 2)).unwrap();
        self
    }

    pub(super) fn descriptor(&self, index: u16, address: u64, length: u32, flags: u16, next: u16) {
        self.descriptor_at(DESCRIPTORS + 16 * u64::from(index), address, length, flags, next);
    }

    pub(super) fn descriptor_at(&self, at: u64, address: u64, length: u32, flags: u16, next: u16) {
        self.memory.write_obj(Descriptor::new(address, length, flags, next), GuestAddress(at)).unwrap();
    }

    pub(super) fn post(&mut self, head: u16) {
        let entry = AVAIL + 4 + 2 * u64::from(self.posted % SIZE);
        self.memory.write_obj(head.to_le(), GuestAddress(entry)).unwrap();
        self.posted = self.posted.wrapping_add(1);
        self.set_avail_index(self.posted);
    }

    pub(super) fn set_avail_index(&self, index: u16) {
        self.memory.write_obj(index.to_le(), GuestAddress(AVAIL + 2)).unwrap();
    }

    pub(super) fn set_avail_flags(&self, flags: u16) {
        self.memory.write_obj(flags.to_le(), GuestAddress(AVAIL)).unwrap();
    }

    pub(super) fn set_used_event(&self, index: u16) {
        self.memory.write_obj(index.to_le(), GuestAddress(AVAIL + 4 + 2 * u64::from(SIZE))).unwrap();
    }

    pub(super) fn used_index(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    pub(super) fn used_flags(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED)).unwrap()
    }

    pub(super) fn avail_event(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 4 + 8 * u64::from(SIZE))).unwrap()
    }

    /// Id and length of the used element at `position`.
    pub(super) fn used(&self, position: u16) -> (u32, u32) {
        let at = USED + 4 + 8 * u64::from(position % SIZE);
        let read = |at| self.memory.read_obj::<u32>(GuestAddress(at)).unwrap();
        (read(at), read(at + 4))
    }

    pub(super) fn fill(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub(super) fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    pub(super) fn open(&self, cursor: &mut Cursor) -> View<'_> {
        self.try_open(cursor).unwrap().unwrap()
    }

    pub(super) fn try_open(&self, cursor: &mut Cursor) -> Result<Option<View<'_>>, Stopped> {
        cursor.open(&self.memory, &self.geometry, self.acked, 1)
    }
}
