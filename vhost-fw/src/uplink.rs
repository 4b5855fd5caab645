//! The network side of the NIC.
//!
//! One narrow contract: a permitted frame goes out, a frame comes in. Knows file descriptors and the virtio-net
//! header the kernel speaks. Never knows the guest's memory layout, the rules or the conns.

use std::io;
use std::os::fd::RawFd;

use fw_engine::{GuestOffloads, Permit};
use vm_memory::VolatileSlice;

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

    /// Sends one frame: the private `head`, then `tail` straight from guest memory, in one write, with the permit's
    /// virtio-net header before them. The caller has finished the head ([`Permit::finish`]) and cut the tail to the
    /// permit's length.
    ///
    /// # Errors
    /// The uplink is gone for good: the process ends with code 75.
    fn send(&mut self, permit: Permit, head: &[u8], tail: &[VolatileSlice<'_>]) -> io::Result<Sent>;

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
