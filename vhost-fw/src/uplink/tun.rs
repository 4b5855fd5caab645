//! The ioctls of `/dev/net/tun`.
//!
//! Knows the kernel's numbers and the request's layout. Never knows which tap, when or why.
#![expect(unsafe_code, reason = "ioctls have no safe form; an inherited descriptor is a number")]

use std::ffi::{c_int, c_uint, c_ulong};
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use fw_engine::{GuestOffloads, VnetHeader};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref, ioctl_with_val};
use vmm_sys_util::{ioctl_ior_nr, ioctl_iow_nr};

const TUN: c_uint = 0x54;

ioctl_iow_nr!(TUNSETIFF, TUN, 202, c_int);
ioctl_iow_nr!(TUNSETPERSIST, TUN, 203, c_int);
ioctl_iow_nr!(TUNSETOWNER, TUN, 204, c_int);
ioctl_iow_nr!(TUNSETOFFLOAD, TUN, 208, c_uint);
ioctl_ior_nr!(TUNGETIFF, TUN, 210, c_uint);
ioctl_iow_nr!(TUNSETVNETHDRSZ, TUN, 216, c_int);
ioctl_iow_nr!(TUNSETVNETLE, TUN, 220, c_int);

/// The ioctls of a worker that takes a tap over from another one.
pub(crate) fn takeover_requests() -> [c_ulong; 3] {
    [TUNSETVNETHDRSZ(), TUNSETVNETLE(), TUNSETOFFLOAD()]
}

/// The one ioctl a running data thread makes.
pub(crate) fn offload_request() -> c_ulong {
    TUNSETOFFLOAD()
}

/// `struct ifreq` as the tun driver uses it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// What a descriptor is attached to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) name: String,
    /// Whether it is a tap whose frames bear a virtio-net header and nothing else before them.
    pub(super) is_ours: bool,
}

// IFF_TAP, IFF_NO_PI and IFF_VNET_HDR of <linux/if_tun.h>; a request holds 16 bits.
const TAP: u16 = 0x0002;
const NO_PI: u16 = 0x1000;
const VNET_HDR: u16 = 0x4000;
const OURS: u16 = TAP | NO_PI | VNET_HDR;

/// Makes `fd` the tap `name`, which is made if absent. The caller has checked the name's length.
pub(super) fn attach(fd: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    let mut request = Request { name: [0; 16], flags: OURS, rest: [0; 22] };
    for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: the kernel reads and writes one `struct ifreq`, whose size and layout `Request` has.
    done(unsafe { ioctl_with_mut_ref(&fd, TUNSETIFF(), &mut request) })
}

/// Lets this user, and no other without privilege, attach to the tap.
pub(super) fn set_owner(fd: BorrowedFd<'_>, uid: u32) -> io::Result<()> {
    // SAFETY: the argument is a number, not an address.
    done(unsafe { ioctl_with_val(&fd, TUNSETOWNER(), c_ulong::from(uid)) })
}

/// Whether the tap outlives its descriptor.
pub(super) fn set_persistent(fd: BorrowedFd<'_>, stays: bool) -> io::Result<()> {
    // SAFETY: the argument is a number, not an address.
    done(unsafe { ioctl_with_val(&fd, TUNSETPERSIST(), c_ulong::from(stays)) })
}

/// What `fd` is attached to; an error if it is no tun descriptor or not attached.
pub(super) fn attached(fd: BorrowedFd<'_>) -> io::Result<Attached> {
    let mut request = Request { name: [0; 16], flags: 0, rest: [0; 22] };
    // SAFETY: the kernel writes one `struct ifreq`, whose size and layout `Request` has.
    done(unsafe { ioctl_with_mut_ref(&fd, TUNGETIFF(), &mut request) })?;
    let name = request.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(Attached { name: String::from_utf8_lossy(name).into_owned(), is_ours: request.flags & OURS == OURS })
}

/// Makes the virtio-net header 12 bytes long and little-endian.
pub(super) fn set_header(fd: BorrowedFd<'_>) -> io::Result<()> {
    const LENGTH: c_int = 12;
    const { assert!(VnetHeader::LEN == 12) };
    // SAFETY: the kernel reads one int.
    done(unsafe { ioctl_with_ref(&fd, TUNSETVNETHDRSZ(), &LENGTH) })?;
    let little: c_int = 1;
    // SAFETY: the kernel reads one int.
    done(unsafe { ioctl_with_ref(&fd, TUNSETVNETLE(), &little) })
}

/// Tells the kernel what may be delivered unfinished. Without checksums nothing else is possible.
pub(super) fn set_offloads(fd: BorrowedFd<'_>, offloads: GuestOffloads) -> io::Result<()> {
    // SAFETY: the argument is a number, not an address.
    done(unsafe { ioctl_with_val(&fd, TUNSETOFFLOAD(), offload_bits(offloads)) })
}

/// `TUN_F_*`. The kernel refuses segmentation without checksums, and ECN without segmentation.
pub(super) fn offload_bits(offloads: GuestOffloads) -> c_ulong {
    const CSUM: c_ulong = 1;
    const TSO4: c_ulong = 2;
    const TSO6: c_ulong = 4;
    const ECN: c_ulong = 8;
    if !offloads.csum {
        return 0;
    }
    let wanted = |on: bool, bit: c_ulong| if on { bit } else { 0 };
    let segmentation = wanted(offloads.tso4, TSO4) | wanted(offloads.tso6, TSO6);
    CSUM | segmentation | wanted(offloads.ecn && segmentation != 0, ECN)
}

/// Takes over a descriptor that was inherited under this number.
pub(super) fn inherit(fd: RawFd) -> io::Result<OwnedFd> {
    // Standard streams are not ours to take, and nothing below them is a descriptor.
    if fd <= libc::STDERR_FILENO {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: F_GETFD takes no address; a number that is no descriptor is answered with EBADF.
    done(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: it is open, and inherited by number: no other object of this process was made to own it. The caller
    // takes it once, at start.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn done(answer: c_int) -> io::Result<()> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
