//! What the shell hands in: frames as bytes we own.
//!
//! Knows a frame's private bytes, its length and its virtio-net header. Never knows guest memory.

use fw_model::Direction;

use crate::vnet::VnetHeader;

/// Bytes of a frame that are copied once into its private head; longer headers are refused
/// ([`fw_model::Reason::HeadersTooLong`]).
pub const HEAD_LEN: usize = 256;

/// The longest frame: a 65,535-byte IP datagram and an Ethernet header with one VLAN tag.
pub const FRAME_LEN_MAX: usize = 65_535 + 18;

/// A frame to be judged. `bytes` are private: nobody else can change them.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Which way it goes.
    pub direction: Direction,
    /// Its first [`HEAD_LEN`] bytes, or all of it.
    pub bytes: &'a [u8],
    /// Its whole length in bytes, without the virtio-net header.
    pub length: usize,
    /// What its sender claims about checksums and segmentation.
    pub vnet: VnetHeader,
}

impl Frame<'_> {
    /// Whether `bytes` are the whole frame.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.bytes.len() >= self.length
    }
}
