//! Two ends in one process: the NIC's uplink, and whoever plays the network.
//!
//! Knows records: a 12-byte virtio-net header and a frame. Never knows what they say. Tests and the laboratory run
//! the real worker on it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::queue::memory::Slice;
use fw_engine::{GuestOffloads, Permit, VnetHeader};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::vectored::{Spare, write_record};
use super::{PEER_GONE, Sent, Uplink, outcome, permitted};

/// Both ends of a link with this MTU.
///
/// # Errors
/// The process has no descriptors left.
pub fn pair(mtu: u16) -> io::Result<(Near, Far)> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    Ok((Near { fd: near, mtu, spare: Spare::new() }, Far { fd: far }))
}

/// The NIC's end.
#[derive(Debug)]
pub struct Near {
    fd: OwnedFd,
    mtu: u16,
    spare: Spare,
}

impl Near {
    pub(super) fn write(&mut self, record: &[u8], tail: &[Slice<'_>]) -> io::Result<Sent> {
        outcome(write_record(self.fd.as_fd(), record, tail, &mut self.spare), PEER_GONE)
    }
}

impl Uplink for Near {
    fn readable_fd(&self) -> Option<RawFd> {
        Some(self.fd.as_raw_fd())
    }

    fn send(&mut self, permit: Permit, record: &mut [u8], tail: &[Slice<'_>]) -> io::Result<Sent> {
        match permitted(&permit, record, tail) {
            Some(record) => self.write(record, tail),
            None => Ok(Sent::Refused),
        }
    }

    /// An end that was let go of is an uplink gone for good, as a vanished tap is.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match read_record(&self.fd, buffer) {
            Ok(0) => Err(Errno::CONNRESET.into()),
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn set_offloads(&mut self, _offloads: GuestOffloads) -> io::Result<()> {
        Ok(())
    }
}

/// The network's end.
#[derive(Debug)]
pub struct Far {
    fd: OwnedFd,
}

impl Far {
    /// Puts a frame on the wire; `WouldBlock` if too many wait.
    ///
    /// # Errors
    /// The other end is gone, or has no room.
    pub fn send(&self, vnet: VnetHeader, frame: &[u8]) -> io::Result<()> {
        let record = [&vnet.to_bytes(), frame].concat();
        write_record(self.fd.as_fd(), &record, &[], &mut Spare::new())
    }

    /// Takes the next frame from the wire as virtio-net header and frame; `None` if none waits.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn recv(&self) -> io::Result<Option<(VnetHeader, Vec<u8>)>> {
        let mut record = vec![0; VnetHeader::LEN + fw_engine::FRAME_LEN_MAX];
        let length = match read_record(&self.fd, &mut record) {
            Ok(0) => return Err(Errno::CONNRESET.into()),
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        record.truncate(length);
        let Some((vnet, frame)) = record.split_first_chunk() else { return Err(Errno::BADMSG.into()) };
        Ok(Some((VnetHeader::from_bytes(*vnet), frame.to_vec())))
    }

    /// Becomes readable when a frame waits.
    #[must_use]
    pub fn readable_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// Reads one record, cut to the buffer; 0 if the other end is gone.
pub(super) fn read_record(fd: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::read(fd, &mut *buffer))
}
