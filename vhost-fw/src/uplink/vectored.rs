//! One write of a frame whose tail lies in guest memory.
//!
//! Knows descriptors and bytes, ours and the guest's. Never looks at the guest's: they are payload nobody judged,
//! and the guest may change them while the kernel reads them.
#![expect(
    unsafe_code,
    reason = "the kernel reads guest memory by address; no safe call takes volatile slices"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::queue::memory::Slice;
use fw_engine::FRAME_LEN_MAX;

/// Most parts handed to the kernel as they are: the record, and the fragments a Linux guest spreads a super-segment over
/// (17), with room to spare.
const PARTS_MAX: usize = 24;

/// Private room for a tail cut into more parts than one write takes well.
#[derive(Debug)]
pub(super) struct Spare(Box<[u8]>);

impl Spare {
    pub(super) fn new() -> Self {
        Self(vec![0; FRAME_LEN_MAX].into_boxed_slice())
    }

    /// Copies the tail together; `EMSGSIZE` if it is longer than any frame.
    fn gather(&mut self, tail: &[Slice<'_>]) -> io::Result<&[u8]> {
        let mut used = 0_usize;
        for part in tail {
            let room = self.0.get_mut(used..).unwrap_or_default();
            if part.len() > room.len() {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            }
            used += part.copy_to(room);
        }
        Ok(self.0.get(..used).unwrap_or_default())
    }
}

/// Writes record and tail in one write. The descriptor's kind takes both whole or not at all.
#[inline]
pub(super) fn write_record(
    fd: BorrowedFd<'_>,
    record: &[u8],
    tail: &[Slice<'_>],
    spare: &mut Spare,
) -> io::Result<()> {
    if tail.is_empty() {
        // Less work than the kernel has with a list of parts.
        rustix::io::retry_on_intr(|| rustix::io::write(fd, record))?;
        return Ok(());
    }
    if tail.len() < PARTS_MAX {
        let tail = tail.iter().map(|part| (part.ptr_guard().as_ptr(), part.len()));
        return write_parts(fd, record, tail);
    }
    let gathered = spare.gather(tail)?;
    write_parts(fd, record, std::iter::once((gathered.as_ptr(), gathered.len())))
}

/// `tail` holds address and length of memory that stays mapped during the call, [`PARTS_MAX`] - 1 parts at most.
fn write_parts(
    fd: BorrowedFd<'_>,
    record: &[u8],
    tail: impl Iterator<Item = (*const u8, usize)>,
) -> io::Result<()> {
    let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; PARTS_MAX];
    let own = std::iter::once((record.as_ptr(), record.len()));
    let mut count = 0;
    for (part, (start, length)) in parts.iter_mut().zip(own.chain(tail)) {
        *part = libc::iovec { iov_base: start.cast_mut().cast(), iov_len: length };
        count += 1;
    }
    loop {
        // SAFETY: the first `count` parts are initialised. Each is either a private slice or a `VolatileSlice` that
        // lives through this call; its memory is mapped as long as it lives (a `PtrGuard` unmaps something only
        // under vm-memory's `xen` feature, which this build does not have). `writev` only reads them, through raw
        // pointers, so that the guest's concurrent writes race with no Rust reference; memory that cannot be read
        // is answered with EFAULT.
        let written = unsafe { libc::writev(fd.as_raw_fd(), parts.as_ptr(), count) };
        if written >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}
