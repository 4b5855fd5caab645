//! Guest memory by one name, and copying into and out of guest buffers.
//!
//! Knows slices of guest memory. Never keeps one beyond a batch, never makes a Rust reference to guest bytes.

use vm_memory::{Bytes, GuestMemoryAtomic, GuestMemoryMmap, VolatileSlice};

use super::dirty::{DirtyLog, DirtySlice};

/// One table of the guest's memory regions.
pub(crate) type Memory = GuestMemoryMmap<DirtyLog>;
/// The table of the moment, which the VMM may replace.
pub(crate) type CurrentMemory = GuestMemoryAtomic<Memory>;
/// A part of a guest buffer within one region.
pub(crate) type Slice<'m> = VolatileSlice<'m, DirtySlice<'m>>;

/// Copies the first bytes of `slices` into `into`, once, and moves the slices past them. Says how many slices are
/// used up.
pub(crate) fn take(slices: &mut [Slice<'_>], mut into: &mut [u8]) -> usize {
    let mut used_up = 0;
    for slice in slices {
        if into.is_empty() {
            break;
        }
        let count = slice.len().min(into.len());
        let (now, later) = into.split_at_mut(count);
        slice.copy_to(now);
        into = later;
        match slice.offset(count) {
            Ok(rest) if count < slice.len() => *slice = rest,
            _ => used_up += 1,
        }
    }
    used_up
}

/// Cuts `slices` to `length` bytes in all and says how many of them remain.
pub(crate) fn cut(slices: &mut [Slice<'_>], mut length: usize) -> usize {
    let mut remain = 0;
    for slice in slices {
        if length == 0 {
            break;
        }
        if let Ok(part) = slice.subslice(0, slice.len().min(length)) {
            *slice = part;
        }
        length = length.saturating_sub(slice.len());
        remain += 1;
    }
    remain
}

/// Writes to slices one after the other.
pub(crate) struct Scatter<'s, 'm> {
    slices: &'s [Slice<'m>],
    offset: usize,
}

impl<'s, 'm> Scatter<'s, 'm> {
    pub(crate) const fn new(slices: &'s [Slice<'m>]) -> Self {
        Self { slices, offset: 0 }
    }

    /// Writes `bytes` where the last write ended; what does not fit is not written.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) {
        while let [slice, later @ ..] = self.slices {
            if bytes.is_empty() {
                return;
            }
            let written = slice.write(bytes, self.offset).unwrap_or(0);
            bytes = bytes.get(written..).unwrap_or_default();
            self.offset += written;
            if self.offset >= slice.len() || written == 0 {
                self.slices = later;
                self.offset = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::fixture::Parts;

    #[test]
    fn bytes_are_taken_once_across_slices() {
        let parts = Parts::of([&[1, 2, 3][..], &[4], &[5, 6, 7]]);
        let mut slices = parts.slices();
        let mut first = [0; 2];
        assert_eq!(take(&mut slices, &mut first), 0);
        let mut second = [0; 3];
        assert_eq!(take(&mut slices, &mut second), 2);
        assert_eq!((first, second), ([1, 2], [3, 4, 5]));
        let mut third = [0; 2];
        assert_eq!(take(&mut slices[2..], &mut third), 1);
        assert_eq!(third, [6, 7]);
    }

    #[test]
    fn a_cut_ends_within_a_slice() {
        let parts = Parts::of([&[1, 2, 3][..], &[4, 5], &[6]]);
        let mut slices = parts.slices();
        assert_eq!(cut(&mut slices, 4), 2);
        assert_eq!((slices[0].len(), slices[1].len()), (3, 1));
        assert_eq!(cut(&mut slices, 0), 0);
    }

    #[test]
    fn a_write_fills_slices_in_turn_and_nothing_beyond() {
        let parts = Parts::of([&[0; 2][..], &[0; 3]]);
        let slices = parts.slices();
        let mut scatter = Scatter::new(&slices);
        scatter.put(&[1]);
        scatter.put(&[2, 3]);
        scatter.put(&[4, 5, 6, 7]);
        assert_eq!(parts.bytes(), [vec![1, 2], vec![3, 4, 5]]);
    }
}
