//! The virtio-net header: a claim on the way in, built from the parse on the way out.
//!
//! Knows virtio 1.2 section 5.1.6 and what the parse found. Never knows who sent the frame, nor the rules.

use fw_model::{Direction, Reason};

use crate::frame::{FRAME_LEN_MAX, Frame};
use crate::headers::checksum::Sum;
use crate::headers::{self, Headers, Ip, L4, Net, Parsed, Tcp};
use crate::verdict::Patch;

/// `struct virtio_net_hdr_v1` as values (virtio 1.2 section 5.1.6), little-endian on the wire. It lies in memory as it
/// does there, so that reading and writing it is a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
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

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`: the checksum is still to be computed.
const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`: the checksum was verified.
const DATA_VALID: u8 = 2;
/// `VIRTIO_NET_HDR_GSO_*`. UDP's are not offered.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;
/// Smaller segments would only cost (CONTRACT 3).
const GSO_SIZE_MIN: u16 = 8;
/// What a frame has beside its datagram: an Ethernet header and one tag.
const ETHER_MAX: usize = 18;

impl VnetHeader {
    /// Reads the header from the wire.
    #[must_use]
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        let [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1] = bytes;
        Self {
            flags,
            gso_type,
            hdr_len: u16::from_le_bytes([h0, h1]),
            gso_size: u16::from_le_bytes([g0, g1]),
            csum_start: u16::from_le_bytes([s0, s1]),
            csum_offset: u16::from_le_bytes([o0, o1]),
            num_buffers: u16::from_le_bytes([n0, n1]),
        }
    }

    /// Writes the header for the wire.
    #[must_use]
    #[inline(always)]
    pub const fn to_bytes(self) -> [u8; Self::LEN] {
        let Self { flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers } = self;
        let [h0, h1] = hdr_len.to_le_bytes();
        let [g0, g1] = gso_size.to_le_bytes();
        let [s0, s1] = csum_start.to_le_bytes();
        let [o0, o1] = csum_offset.to_le_bytes();
        let [n0, n1] = num_buffers.to_le_bytes();
        [flags, gso_type, h0, h1, g0, g1, s0, s1, o0, o1, n0, n1]
    }

    const fn needs_csum(self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    const fn data_valid(self) -> bool {
        self.flags & DATA_VALID != 0
    }
}

/// What a correct driver would send with this whole frame, on a link of `mtu` bytes: segmentation asked for where a
/// TCP frame needs it, no claim otherwise.
#[must_use]
pub fn driver_claim(frame: &[u8], mtu: u16) -> VnetHeader {
    let Ok(Parsed::Headers(headers)) = headers::parse(frame, frame.len()) else { return VnetHeader::NONE };
    if headers.length <= headers.ether.length + usize::from(mtu) {
        return VnetHeader::NONE;
    }
    let Some(segment) = Segment::of(&headers).filter(|segment| segment.tcp.is_some()) else {
        return VnetHeader::NONE;
    };
    let headers_of_datagram = segment.header_end - headers.ether.length;
    match usize::from(mtu).checked_sub(headers_of_datagram).map(u16::try_from) {
        Some(Ok(gso_size)) if gso_size > 0 => {
            let gso_type = if segment.ip.source.is_v4() { GSO_TCPV4 } else { GSO_TCPV6 };
            segment.header(gso_type, gso_size).unwrap_or(VnetHeader::NONE)
        }
        _ => VnetHeader::NONE,
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
#[inline(always)]
pub(crate) fn settle(frame: &Frame<'_>, headers: &Headers, link: &Link) -> Result<Settled, Reason> {
    let claim = frame.vnet;
    if claim.flags & !(NEEDS_CSUM | DATA_VALID) != 0 {
        return Err(Reason::BadVnetHeader);
    }
    let Some(segment) = Segment::of(headers) else {
        if claim.needs_csum() || claim.gso_type != GSO_NONE {
            return Err(Reason::BadVnetHeader);
        }
        check_length(headers.length, link)?;
        return Ok(Settled::Leaves { vnet: VnetHeader::NONE, patch: None });
    };
    if claim.needs_csum() && !segment.is_where(claim) {
        return Err(Reason::BadVnetHeader);
    }
    // What the guest says it has verified is worth nothing; what the host's kernel says, it has verified.
    let vouch = match frame.direction {
        _ if claim.needs_csum() => Vouch::Unwritten,
        Direction::In if claim.data_valid() => Vouch::Verified,
        Direction::In | Direction::Out => Vouch::Nobody,
    };
    if claim.gso_type != GSO_NONE {
        let (gso_type, gso_size) = segment.gso(frame, vouch, headers, link)?;
        return segment.leaves_unwritten(gso_type, gso_size);
    }
    check_length(headers.length, link)?;
    let receiver_completes = frame.direction == Direction::Out || link.guest.csum;
    match vouch {
        Vouch::Unwritten if receiver_completes => segment.leaves_unwritten(GSO_NONE, 0),
        Vouch::Unwritten => Ok(segment.leaves_completed(frame, headers)),
        Vouch::Verified => {
            let flags = if link.guest.csum { DATA_VALID } else { 0 };
            Ok(Settled::Leaves { vnet: VnetHeader { flags, ..VnetHeader::NONE }, patch: None })
        }
        Vouch::Nobody => segment.leaves_verified(frame, headers),
    }
}

/// Who answers for a frame's TCP or UDP checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vouch {
    /// The field is still to be written, so whatever stands in it does not matter.
    Unwritten,
    /// The host's kernel verified it.
    Verified,
    Nobody,
}

fn check_length(length: usize, link: &Link) -> Result<(), Reason> {
    if length > link.mtu + ETHER_MAX { Err(Reason::Oversize) } else { Ok(()) }
}

/// The TCP segment or UDP datagram in a frame: what a claim can be about.
#[derive(Debug, Clone, Copy)]
struct Segment<'a> {
    ip: &'a Ip,
    tcp: Option<&'a Tcp>,
    /// UDP without a checksum (RFC 768).
    is_unchecked: bool,
    /// Where its checksum stands, in bytes from its header's start.
    csum_offset: u16,
    /// Where its header ends, in bytes of the frame.
    header_end: usize,
    /// Its bytes, header included.
    length: usize,
}

impl<'a> Segment<'a> {
    #[inline(always)]
    fn of(headers: &'a Headers) -> Option<Self> {
        let Net::Ip(ip) = &headers.net else { return None };
        let length = headers.length.checked_sub(ip.l4_offset)?;
        match &ip.l4 {
            L4::Tcp(tcp) => {
                let header_end = ip.l4_offset + tcp.header;
                Some(Self { ip, tcp: Some(tcp), is_unchecked: false, csum_offset: 16, header_end, length })
            }
            L4::Udp(udp) => {
                let is_unchecked = udp.checksum == 0;
                Some(Self {
                    ip,
                    tcp: None,
                    is_unchecked,
                    csum_offset: 6,
                    header_end: ip.l4_offset + 8,
                    length,
                })
            }
            L4::Icmp(_) | L4::Group(_) | L4::Other | L4::Fragment => None,
        }
    }

    #[inline]
    fn is_where(&self, claim: VnetHeader) -> bool {
        usize::from(claim.csum_start) == self.ip.l4_offset && claim.csum_offset == self.csum_offset
    }

    /// The segmentation that leaves, or why none can be. One that the payload does not need is left out.
    #[inline(never)]
    fn gso(
        &self,
        frame: &Frame<'_>,
        vouch: Vouch,
        headers: &Headers,
        link: &Link,
    ) -> Result<(u8, u16), Reason> {
        let claim = frame.vnet;
        let is_v4 = self.ip.source.is_v4();
        let (gso_type, ip_header) = if is_v4 { (GSO_TCPV4, 20) } else { (GSO_TCPV6, 40) };
        let Some(tcp) = self.tcp.filter(|_| claim.gso_type & !GSO_ECN == gso_type) else {
            return Err(Reason::BadGso);
        };
        // Options and extension headers would be copied into every segment; SYN and RST are never split; and what
        // asks for segmentation has no trailer.
        let is_plain = self.ip.l4_offset == self.ip.offset + ip_header
            && !tcp.flags.syn()
            && !tcp.flags.rst()
            && frame.length == headers.length;
        let one_segment = self.header_end - headers.ether.length + usize::from(claim.gso_size);
        let fits = claim.gso_size >= GSO_SIZE_MIN && tcp.payload > 0 && one_segment <= link.mtu;
        if vouch == Vouch::Nobody || !is_plain || !fits {
            return Err(Reason::BadGso);
        }
        if headers.length > FRAME_LEN_MAX {
            return Err(Reason::Oversize);
        }
        let ecn = if tcp.flags.cwr() { claim.gso_type & GSO_ECN } else { 0 };
        if frame.direction == Direction::In && !link.guest.takes(is_v4, ecn != 0) {
            return Err(Reason::BadGso);
        }
        let is_one_segment = tcp.payload <= u32::from(claim.gso_size);
        Ok(if is_one_segment { (GSO_NONE, 0) } else { (gso_type | ecn, claim.gso_size) })
    }

    /// The header that asks for its checksum, and for segmentation if `gso_type` says so.
    #[inline(always)]
    fn header(&self, gso_type: u8, gso_size: u16) -> Option<VnetHeader> {
        Some(VnetHeader {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: u16::try_from(self.header_end).ok()?,
            gso_size,
            csum_start: u16::try_from(self.ip.l4_offset).ok()?,
            csum_offset: self.csum_offset,
            num_buffers: 0,
        })
    }

    /// The next one completes the checksum: it finds our own pseudo-header sum in the field.
    #[inline(always)]
    fn leaves_unwritten(&self, gso_type: u8, gso_size: u16) -> Result<Settled, Reason> {
        let vnet = self.header(gso_type, gso_size).ok_or(Reason::BadVnetHeader)?;
        let patch = self.patch(self.pseudo().fold()).ok_or(Reason::BadVnetHeader)?;
        Ok(Settled::Leaves { vnet, patch: Some(patch) })
    }

    /// The guest does not complete checksums, so we do.
    #[inline(never)]
    fn leaves_completed(&self, frame: &Frame<'_>, headers: &Headers) -> Settled {
        let field = self.ip.l4_offset + usize::from(self.csum_offset);
        let before = frame.bytes.get(self.ip.l4_offset..field);
        let behind = frame.bytes.get(field + 2..headers.length);
        let (Some(before), Some(behind)) = (before, behind) else { return Settled::NeedWhole };
        let checksum = match self.pseudo().bytes(before).bytes(behind).checksum() {
            0 if self.tcp.is_none() => 0xffff,
            checksum => checksum,
        };
        let Some(patch) = self.patch(checksum) else { return Settled::NeedWhole };
        Settled::Leaves { vnet: VnetHeader::NONE, patch: Some(patch) }
    }

    #[inline(always)]
    fn leaves_verified(&self, frame: &Frame<'_>, headers: &Headers) -> Result<Settled, Reason> {
        let untouched = Ok(Settled::Leaves { vnet: VnetHeader::NONE, patch: None });
        if self.is_unchecked {
            return untouched;
        }
        let Some(segment) = frame.bytes.get(self.ip.l4_offset..headers.length) else {
            return Ok(Settled::NeedWhole);
        };
        if self.pseudo().bytes(segment).is_right() { untouched } else { Err(Reason::Checksum) }
    }

    #[inline]
    fn pseudo(&self) -> Sum {
        // Frames are shorter than 2^32 bytes; a wrong sum is all that could come of more.
        let length = u32::try_from(self.length).unwrap_or(u32::MAX);
        Sum::pseudo(self.ip.source, self.ip.destination, self.ip.protocol, length)
    }

    #[inline]
    /// Always some: checksums stand in the head.
    fn patch(&self, value: u16) -> Option<Patch> {
        let offset = self.ip.l4_offset + usize::from(self.csum_offset);
        u16::try_from(offset).ok().map(|offset| Patch { offset, value })
    }
}

impl GuestOffloads {
    const fn takes(self, is_v4: bool, ecn: bool) -> bool {
        let segments = if is_v4 { self.tso4 } else { self.tso6 };
        self.csum && segments && (self.ecn || !ecn)
    }
}

#[cfg(test)]
mod tests;
