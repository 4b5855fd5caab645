//! What no transmit ring can leave out: find each descriptor, copy the head it names, note that it was used.
//!
//! On memory of our own, which needs no care: it may believe what it reads. It must never be mistaken for a device.

use std::hint::black_box;

/// Descriptors of the ring, frames of a batch, and bytes from one buffer to the next, as ours has them.
const SIZE: usize = 256;
const BATCH: usize = 32;
const STRIDE: usize = 2304;
/// Bytes of a virtio-net header, and of the head behind it at most.
const HEADER: usize = 12;
const HEAD: usize = 256;

/// A ring whose every descriptor is one frame.
pub(crate) struct Ring {
    avail: Vec<u16>,
    descriptors: Vec<[u64; 2]>,
    used: Vec<[u32; 2]>,
    buffers: Vec<u8>,
    heads: Vec<[u8; HEADER + HEAD]>,
}

impl Ring {
    pub(crate) fn new(length: u32) -> Self {
        let bytes = u64::from(length) + HEADER as u64;
        Self {
            avail: (0..SIZE).filter_map(|index| u16::try_from(index).ok()).collect(),
            descriptors: (0..SIZE).map(|index| [(STRIDE * index) as u64, bytes]).collect(),
            used: vec![[0; 2]; SIZE],
            buffers: vec![1; STRIDE * SIZE],
            heads: vec![[0; HEADER + HEAD]; BATCH],
        }
    }

    /// Takes the whole ring, batch by batch. Gives a sum over what was copied.
    pub(crate) fn take_all(&mut self) -> usize {
        let mut sum = 0;
        let Self { avail, descriptors, used, buffers, heads } = self;
        for (ids, used) in black_box(&*avail).chunks(BATCH).zip(used.chunks_mut(BATCH)) {
            for ((id, used), head) in ids.iter().zip(used).zip(heads.iter_mut()) {
                let Some([address, length]) = descriptors.get(usize::from(*id)).copied() else { continue };
                let start = usize::try_from(address).unwrap_or(0);
                let length = usize::try_from(length).unwrap_or(0).min(HEADER + HEAD);
                if let (Some(from), Some(to)) = (buffers.get(start..start + length), head.get_mut(..length)) {
                    to.copy_from_slice(from);
                    sum += usize::from(to.first().copied().unwrap_or(0)) + length;
                }
                *used = [u32::from(*id), 0];
            }
            black_box(&mut *heads);
        }
        black_box(&self.used);
        sum
    }
}
