//! The uplink that leads nowhere: frames are judged and discarded.
//!
//! Knows an MTU. Never knows anything else.

use std::io;
use std::os::fd::RawFd;

use crate::queue::memory::Slice;
use fw_engine::{GuestOffloads, Permit};

use super::{MTU_DEFAULT, Sent, Uplink, permitted};

/// Judge and discard.
#[derive(Debug)]
pub struct Null {
    mtu: u16,
}

impl Null {
    /// One with this MTU, else 1500.
    #[must_use]
    pub fn new(mtu: Option<u16>) -> Self {
        Self { mtu: mtu.unwrap_or(MTU_DEFAULT) }
    }
}

impl Uplink for Null {
    fn readable_fd(&self) -> Option<RawFd> {
        None
    }

    fn send(&mut self, permit: Permit, record: &mut [u8], tail: &[Slice<'_>]) -> io::Result<Sent> {
        Ok(if permitted(&permit, record, tail).is_some() { Sent::Yes } else { Sent::Refused })
    }

    fn recv(&mut self, _buffer: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(None)
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn set_offloads(&mut self, _offloads: GuestOffloads) -> io::Result<()> {
        Ok(())
    }
}
