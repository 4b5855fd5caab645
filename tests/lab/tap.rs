//! A tap of the laboratory's own: whoever reads and writes there plays the network, with nothing of the product.
//!
//! The kernel finishes checksums and segments before it hands frames over here, as a wire would want them. It may know
//! the tun driver's ioctl and its header. It must never judge a frame.
#![expect(unsafe_code, reason = "an ioctl has no safe form")]

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_ref};

mod request {
    use std::ffi::{c_int, c_uint};

    use vmm_sys_util::ioctl_iow_nr;

    const TUN: c_uint = 0x54;
    ioctl_iow_nr!(TUNSETIFF, TUN, 202, c_int);
    ioctl_iow_nr!(TUNSETVNETHDRSZ, TUN, 216, c_int);
}

/// `struct ifreq` as the tun driver uses it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

// IFF_TAP, IFF_NO_PI and IFF_VNET_HDR of <linux/if_tun.h>.
const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The driver's own header length.
pub const HEADER: usize = 10;
/// The one a firewall asks for: with the number of buffers.
pub const LONG_HEADER: usize = 12;
/// The longest frame it hands over: everything is segmented before.
const FRAME: usize = 9 * 1024;

/// A tap, up or not, that takes whole frames only.
#[derive(Debug)]
pub struct Tap(File);

impl Tap {
    /// Makes the tap `name`, or attaches to it.
    ///
    /// # Errors
    /// No such device on this machine, or no right to it.
    pub fn open(name: &str) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
        let mut request = Request { name: [0; 16], flags: FLAGS, rest: [0; 22] };
        for (to, from) in request.name.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        // SAFETY: the kernel reads and writes one `struct ifreq`, whose size and layout `Request` has.
        let answer = unsafe { ioctl_with_mut_ref(&file, request::TUNSETIFF(), &mut request) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(Self(file)) }
    }

    /// As [`Tap::open`], with headers of [`LONG_HEADER`] bytes: for records written and read as they are.
    ///
    /// # Errors
    /// As [`Tap::open`].
    pub fn open_with_long_header(name: &str) -> io::Result<Self> {
        let tap = Self::open(name)?;
        let length = 12_i32;
        // SAFETY: the kernel reads one int, which lives through the call.
        let answer = unsafe { ioctl_with_ref(&tap.0, request::TUNSETVNETHDRSZ(), &length) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(tap) }
    }

    /// Writes one record that lies in parts.
    ///
    /// # Errors
    /// The kernel refuses it, or takes a part.
    pub fn write_parts(&mut self, parts: &[IoSlice<'_>]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.0.write_vectored(parts)? == length { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }

    /// Reads one record as it is; `None` if none waits.
    ///
    /// # Errors
    /// The device is gone.
    pub fn read(&mut self, record: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.read(record) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes one record, header and frame.
    ///
    /// # Errors
    /// The kernel refuses it, or takes a part.
    pub fn write(&mut self, record: &[u8]) -> io::Result<()> {
        if self.0.write(record)? == record.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }

    /// Writes one frame that claims nothing.
    ///
    /// # Errors
    /// As [`Tap::write`].
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.write(&[&[0; HEADER], frame].concat())
    }

    /// The next frame that waits, without its header; `None` if there is none.
    ///
    /// # Errors
    /// The device is gone, or hands over what this tap does not take.
    pub fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut record = vec![0; HEADER + FRAME];
        let length = match self.0.read(&mut record) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        record.truncate(length);
        if record.len() < HEADER {
            return Err(ErrorKind::InvalidData.into());
        }
        let frame = record.split_off(HEADER);
        // DATA_VALID may stand there; a checksum or segmentation still to be done may not.
        match record.as_slice() {
            [flags, 0, ..] if flags & 1 == 0 => Ok(Some(frame)),
            _ => Err(io::Error::other(format!("a frame that is not finished: {record:02x?}"))),
        }
    }
}
