//! The network side of the NIC.
//!
//! One narrow contract: a permitted frame goes out, a frame comes in. Knows file descriptors and the virtio-net
//! header the kernel speaks. Never knows the guest's memory layout, the rules or the conns.

mod bridge;
mod error;
mod link;
mod null;
mod pair;
pub(crate) mod persistent;
mod tap;
mod tun;
mod unix;
mod vectored;

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::path::PathBuf;
use std::str::FromStr;

use crate::queue::memory::Slice;
use fw_engine::{GuestOffloads, Permit, VnetHeader};
use fw_model::{Direction, NicId};

pub(crate) use bridge::tap_name;
pub use error::UplinkError;
pub use null::Null;
pub use pair::{Far, Near, pair};
pub use tap::Tap;
pub(crate) use tun::{offload_request, takeover_requests};
pub use unix::Unix;

/// The MTU where neither the operator nor a device names one.
const MTU_DEFAULT: u16 = 1500;

/// The shortest frame: an Ethernet header. Less is never written to a tap, whose kernel may misread it.
const FRAME_LEN_MIN: usize = 14;

/// Which uplink the operator asked for (CONTRACT 8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UplinkChoice {
    /// `--tap NAME`: opened, made if absent, set up.
    Tap(String),
    /// `--bridge NAME`: a tap is made and becomes a port of that bridge.
    Bridge(String),
    /// `--tap-fd N`: an inherited tap that is set up already.
    TapFd(RawFd),
    /// `--uplink null`: judge and discard.
    Null,
    /// `--uplink unix:PATH`: records on a `SOCK_SEQPACKET` socket that is listened on.
    Unix(PathBuf),
}

impl UplinkChoice {
    /// Whether it accepts connections while it runs; the data thread's sandbox must know.
    #[must_use]
    pub const fn listens(&self) -> bool {
        matches!(self, Self::Unix(_))
    }
}

/// The forms of `--uplink`.
impl FromStr for UplinkChoice {
    type Err = UplinkError;

    fn from_str(text: &str) -> Result<Self, UplinkError> {
        match text.split_once(':') {
            None if text == "null" => Ok(Self::Null),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(PathBuf::from(path))),
            None | Some(_) => Err(UplinkError::Choice(text.to_owned())),
        }
    }
}

/// Opens the uplink of `nic`. `mtu` is what the operator asked for; each uplink's own module says what that changes.
///
/// # Errors
/// What is missing, where, and what to do about it.
pub fn open(choice: &UplinkChoice, nic: &NicId, mtu: Option<u16>) -> Result<Box<dyn Uplink>, UplinkError> {
    Ok(match choice {
        UplinkChoice::Tap(name) => Box::new(Tap::open(name, mtu)?),
        UplinkChoice::Bridge(bridge) => Box::new(bridge::open(bridge, nic, mtu)?),
        UplinkChoice::TapFd(fd) => Box::new(Tap::adopt(*fd, mtu)?),
        UplinkChoice::Null => Box::new(Null::new(mtu)),
        UplinkChoice::Unix(path) => Box::new(Unix::listen(path, mtu)?),
    })
}

/// An uplink that is open and that nobody uses yet.
pub(crate) struct Held {
    /// Its tap or listening socket; null has none.
    pub(crate) fd: Option<OwnedFd>,
    /// Its MTU, in bytes.
    pub(crate) mtu: u16,
}

/// As [`open`], for another process that will use it.
pub(crate) fn hold(choice: &UplinkChoice, nic: &NicId, mtu: Option<u16>) -> Result<Held, UplinkError> {
    let tap = match choice {
        UplinkChoice::Tap(name) => Tap::open(name, mtu)?,
        UplinkChoice::Bridge(bridge) => bridge::open(bridge, nic, mtu)?,
        UplinkChoice::TapFd(fd) => Tap::adopt(*fd, mtu)?,
        UplinkChoice::Null => return Ok(Held { fd: None, mtu: mtu.unwrap_or(MTU_DEFAULT) }),
        UplinkChoice::Unix(path) => {
            return Ok(Held { fd: Some(Unix::bind(path)?), mtu: mtu.unwrap_or(MTU_DEFAULT) });
        }
    };
    let mtu = tap.mtu();
    Ok(Held { fd: Some(tap.into_fd()), mtu })
}

/// What another process holds, for this one to use.
pub(crate) fn take(choice: &UplinkChoice, held: Held) -> Result<Box<dyn Uplink>, UplinkError> {
    Ok(match (choice, held.fd) {
        (UplinkChoice::Unix(path), Some(listener)) => Box::new(Unix::on(listener, path, Some(held.mtu))?),
        (UplinkChoice::Tap(_) | UplinkChoice::Bridge(_) | UplinkChoice::TapFd(_), Some(tap)) => {
            Box::new(Tap::again(tap, held.mtu)?)
        }
        // Without a descriptor nothing leaves.
        (_, None) | (UplinkChoice::Null, Some(_)) => Box::new(Null::new(Some(held.mtu))),
    })
}

/// Writes the permit's virtio-net header into its place before the head. `None` if the bytes are not those the permit
/// was given for: its direction, its length, a whole Ethernet header.
#[inline]
fn permitted<'r>(permit: &Permit, record: &'r mut [u8], tail: &[Slice<'_>]) -> Option<&'r [u8]> {
    let length = tail.iter().fold(record.len(), |length, part| length.saturating_add(part.len()));
    let is_this = permit.direction() == Direction::Out && length == VnetHeader::LEN + permit.length();
    if !is_this || permit.length() < FRAME_LEN_MIN {
        return None;
    }
    *record.first_chunk_mut()? = permit.vnet().to_bytes();
    Some(record)
}

/// What became of a write. `gone` are the errors by which this kind of uplink says that it is gone; they come back.
#[inline]
fn outcome(written: io::Result<()>, gone: &[i32]) -> io::Result<Sent> {
    let Err(error) = written else { return Ok(Sent::Yes) };
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Ok(Sent::Full),
        Some(errno) if gone.contains(&errno) => Err(error),
        Some(_) | None => Ok(Sent::Refused),
    }
}

/// What a socket answers whose other end is gone.
const PEER_GONE: &[i32] = &[libc::EPIPE, libc::ECONNRESET, libc::ENOTCONN];

/// What became of a frame handed to the uplink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It left.
    Yes,
    /// No room just now (`EAGAIN`, `ENOBUFS`); it is dropped and counted.
    Full,
    /// The uplink will not have this frame (`EINVAL` and kin); it is dropped and counted.
    Refused,
}

/// The network side of the NIC.
pub trait Uplink: Send {
    /// Becomes readable when frames wait; `None` if none ever will.
    fn readable_fd(&self) -> Option<RawFd>;

    /// Sends one frame: the private `record`, then `tail` straight from guest memory, in one write. A record is
    /// [`VnetHeader::LEN`] bytes of room, into which the permit's virtio-net header is written, and the head: so they
    /// leave together and are not copied again. The caller has finished the head ([`Permit::finish`]) and cut the tail
    /// to the permit's length.
    ///
    /// # Errors
    /// The uplink is gone for good: the process ends with code 75.
    fn send(&mut self, permit: Permit, record: &mut [u8], tail: &[Slice<'_>]) -> io::Result<Sent>;

    /// Reads one frame into `buffer` as virtio-net header (12 bytes) and frame; `None` if none waits. A longer frame
    /// is cut, never spilt.
    ///
    /// # Errors
    /// The uplink is gone for good.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Largest IP datagram in bytes.
    fn mtu(&self) -> u16;

    /// Tells the uplink what the guest can receive (`TUNSETOFFLOAD` on a tap).
    ///
    /// # Errors
    /// The uplink is gone for good.
    fn set_offloads(&mut self, offloads: GuestOffloads) -> io::Result<()>;
}

#[cfg(test)]
mod tests;
