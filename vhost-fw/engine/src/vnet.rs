//! The virtio-net header: a claim on the way in, built from the parse on the way out.
//!
//! Knows virtio 1.2 section 5.1.6 and what the parse found. Never knows who sent the frame, nor the rules.

use fw_model::Reason;

use crate::frame::Frame;
use crate::headers::Headers;
use crate::verdict::Patch;

/// `struct virtio_net_hdr_v1` as values (virtio 1.2 section 5.1.6), little-endian on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VnetHeader {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`.
    pub gso_type: u8,
    /// Length of the headers, in bytes; a hint.
    pub hdr_len: u16,
    /// Payload bytes of each segment.
    pub gso_size: u16,
    /// Where the checksummed part starts, in bytes from the frame's start.
    pub csum_start: u16,
    /// Where the checksum stands, in bytes from `csum_start`.
    pub csum_offset: u16,
    /// Buffers the frame was spread over; only the device writes it.
    pub num_buffers: u16,
}

impl VnetHeader {
    /// Bytes of the header on the wire.
    pub const LEN: usize = 12;

    /// No claim: a whole frame with complete checksums.
    pub const NONE: Self = Self {
        flags: 0,
        gso_type: 0,
        hdr_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
        num_buffers: 0,
    };
}

impl VnetHeader {
    /// Reads the header from the wire.
    #[must_use]
    pub fn from_bytes(_bytes: [u8; Self::LEN]) -> Self {
        todo!("H1")
    }

    /// Writes the header for the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        todo!("H1")
    }
}

/// What the guest's driver said it can receive (`VIRTIO_NET_F_GUEST_*`, as acknowledged).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestOffloads {
    /// Frames with incomplete checksums.
    pub csum: bool,
    /// TCP super-segments over IPv4.
    pub tso4: bool,
    /// TCP super-segments over IPv6.
    pub tso6: bool,
    /// Super-segments with ECN.
    pub ecn: bool,
}

/// The link's limits, which the shell knows and `settle` needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// Largest IP datagram in bytes that leaves in one piece.
    pub(crate) mtu: usize,
    pub(crate) guest: GuestOffloads,
}

/// How a frame's checksum and segmentation leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// With this header, and this checksum field written.
    Leaves { vnet: VnetHeader, patch: Option<Patch> },
    /// Nobody vouches for its checksum and it is not here whole.
    NeedWhole,
}

/// Compares a frame's claim with its parse and builds what leaves; verifies TCP's and UDP's checksum where nobody
/// vouches for it (CONTRACT 3). `Err` is the reason to drop it.
pub(crate) fn settle(_frame: &Frame<'_>, _headers: &Headers, _link: &Link) -> Result<Settled, Reason> {
    todo!("H1")
}
