//! The transmit ring alone, for the bench that times it: no engine, no uplink, no second core.
//!
//! Knows a ring and its driver, which takes turns with us. Never knows the time.

use virtio_queue::QueueState;
use vm_memory::{Bytes, GuestAddress};

use crate::features::{Acked, offered};
use crate::queue::BATCH;
use crate::queue::memory::Memory;
use crate::queue::ring::Cursor;
use crate::queue::tx::Batch;

/// Descriptors of the ring.
const SIZE: u16 = 256;
const DESCRIPTORS: u64 = 0x1000;
const AVAIL: u64 = 0x3000;
const USED: u64 = 0x4000;
const BUFFERS: u64 = 0x1_0000;
/// As DPDK's buffers lie.
const STRIDE: u64 = 2304;
const MEMORY: usize = 1 << 20;

/// A transmit ring in guest memory, and both its ends.
pub struct Transmit {
    memory: Memory,
    geometry: QueueState,
    acked: Acked,
    cursor: Cursor,
    batch: Batch,
    posted: u16,
}

impl Transmit {
    /// A ring whose every descriptor is a frame of `length` bytes behind its virtio-net header.
    ///
    /// # Errors
    /// The machine has no memory.
    pub fn new(length: u32) -> Result<Self, String> {
        let said = |error: &dyn std::fmt::Display| error.to_string();
        let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY)]).map_err(|error| said(&error))?;
        let acked = Acked(offered(true, true));
        let bytes = u64::from(length) + u64::try_from(acked.header_len()).unwrap_or(0);
        for index in 0..SIZE {
            let at = GuestAddress(DESCRIPTORS + 16 * u64::from(index));
            let words = [BUFFERS + STRIDE * u64::from(index), bytes].map(u64::to_le);
            let entry = GuestAddress(AVAIL + 4 + 2 * u64::from(index));
            memory
                .write_obj(words, at)
                .and_then(|()| memory.write_obj(index.to_le(), entry))
                .map_err(|error| said(&error))?;
        }
        let geometry = QueueState {
            max_size: SIZE,
            next_avail: 0,
            next_used: 0,
            event_idx_enabled: true,
            size: SIZE,
            ready: true,
            desc_table: DESCRIPTORS,
            avail_ring: AVAIL,
            used_ring: USED,
        };
        Ok(Self { memory, geometry, acked, cursor: Cursor::default(), batch: Batch::new(), posted: 0 })
    }

    /// The driver's turn: every descriptor is available again. Says how many frames that are.
    ///
    /// # Errors
    /// The machine has no memory.
    pub fn post(&mut self) -> Result<u16, String> {
        self.posted = self.posted.wrapping_add(SIZE);
        let index = GuestAddress(AVAIL + 2);
        self.memory.write_obj(self.posted.to_le(), index).map_err(|error| error.to_string())?;
        Ok(SIZE)
    }

    /// Our turn: a batch is taken off, its heads copied, and given back. Says how many frames it was, and something of
    /// each, so that none can be left out.
    pub fn take(&mut self) -> (usize, usize) {
        let Ok(Some(view)) = self.cursor.open(&self.memory, &self.geometry, self.acked, 1) else {
            return (0, 0);
        };
        let Ok(waiting) = self.cursor.waiting(&view) else { return (0, 0) };
        let from = self.cursor.next();
        let mut slices = Vec::with_capacity(BATCH);
        let header_len = self.acked.header_len();
        self.batch.collect(&view, &self.memory, &mut self.cursor, waiting, header_len, &mut slices);
        let seen = self.batch.slots().map(|slot| usize::from(slot.vnet().flags) + slot.head().len()).sum();
        let count = self.batch.slots().count();
        self.batch.give_back(&view, from);
        self.cursor.publish(&view, from);
        (count, seen)
    }
}
