//! Writing frames: Ethernet, IPv4 and IPv6, a TCP segment without data, ICMP destination unreachable, ARP, RARP and a
//! neighbour advertisement.
//!
//! Knows formats (RFC 791, 826, 903, 8200, 9293, 792, 4443, 4861; IEEE 802.1Q). Never knows what a frame answers.

use fw_model::{Addr, MacAddr, Protocol};

use super::REPLY_LEN_MAX;
use crate::headers::TcpFlags;
use crate::headers::checksum::{self, Sum};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
/// A neighbour advertisement with one option (RFC 4861 section 4.4).
const ADVERTISEMENT: usize = 32;
/// The longest ICMP error in bytes of IP: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c).
const ICMP_ERROR_MAX: usize = 576;
const ICMPV6_ERROR_MAX: usize = 1280;

/// Whom a frame goes to and whom it comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Envelope {
    pub(super) destination_mac: MacAddr,
    pub(super) source_mac: MacAddr,
    pub(super) vlan: Option<u16>,
    pub(super) source: Addr,
    pub(super) destination: Addr,
    pub(super) hop_limit: u8,
}

/// A TCP segment without options and data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) source_port: u16,
    pub(super) destination_port: u16,
    pub(super) sequence: u32,
    pub(super) acknowledgement: u32,
    pub(super) flags: TcpFlags,
}

impl Envelope {
    pub(super) fn write_tcp(&self, segment: &Segment, out: &mut [u8; REPLY_LEN_MAX]) -> Option<usize> {
        let mut frame = Writer { out, length: 0 };
        self.write_headers(&mut frame, Protocol::TCP, TCP_HEADER)?;
        let start = frame.length;
        frame.put(&segment.source_port.to_be_bytes())?;
        frame.put(&segment.destination_port.to_be_bytes())?;
        frame.put(&segment.sequence.to_be_bytes())?;
        frame.put(&segment.acknowledgement.to_be_bytes())?;
        // Five words of header; a window of zero, no checksum yet, no urgent data.
        frame.put(&[0x50, segment.flags.0, 0, 0, 0, 0, 0, 0])?;
        self.close_upper_layer(&mut frame, Protocol::TCP, start, 16)
    }

    /// ICMP destination unreachable, communication administratively prohibited, with as much of the refused datagram
    /// as the error may have.
    pub(super) fn write_prohibited(&self, refused: &[u8], out: &mut [u8; REPLY_LEN_MAX]) -> Option<usize> {
        let is_v4 = self.source.is_v4();
        let mut frame = Writer { out, length: 0 };
        let (protocol, kind, code, room) = if is_v4 {
            (Protocol::ICMP, 3, 13, ICMP_ERROR_MAX - IPV4_HEADER - ICMP_HEADER)
        } else {
            (Protocol::ICMPV6, 1, 1, ICMPV6_ERROR_MAX - IPV6_HEADER - ICMP_HEADER)
        };
        // A VLAN tag takes its four bytes from the quote.
        let room = room.min(REPLY_LEN_MAX - ICMP_HEADER - self.headers_length());
        let quote = refused.get(..room).unwrap_or(refused);
        self.write_headers(&mut frame, protocol, ICMP_HEADER + quote.len())?;
        let start = frame.length;
        frame.put(&[kind, code, 0, 0, 0, 0, 0, 0])?;
        frame.put(quote)?;
        self.close_upper_layer(&mut frame, protocol, start, 2)
    }

    /// An unsolicited neighbour advertisement for the source, which replaces what neighbours knew: override, and the
    /// target link-layer address option.
    pub(super) fn write_advertisement(&self, out: &mut [u8; REPLY_LEN_MAX]) -> Option<usize> {
        let mut frame = Writer { out, length: 0 };
        self.write_headers(&mut frame, Protocol::ICMPV6, ADVERTISEMENT)?;
        let start = frame.length;
        frame.put(&[136, 0, 0, 0, 0x20, 0, 0, 0])?;
        frame.put(&self.source.bits().to_be_bytes())?;
        frame.put(&[2, 1])?;
        frame.put(&self.source_mac.0)?;
        self.close_upper_layer(&mut frame, Protocol::ICMPV6, start, 2)
    }

    fn headers_length(&self) -> usize {
        let ip = if self.source.is_v4() { IPV4_HEADER } else { IPV6_HEADER };
        ip + if self.vlan.is_some() { 18 } else { 14 }
    }

    /// Ethernet and IP headers in front of `length` bytes of `protocol`; `None` if the families differ.
    fn write_headers(&self, frame: &mut Writer<'_>, protocol: Protocol, length: usize) -> Option<()> {
        if self.source.is_v4() != self.destination.is_v4() {
            return None;
        }
        let ethertype = if self.source.is_v4() { 0x0800 } else { 0x86dd };
        frame.put_ether(self.destination_mac, self.source_mac, self.vlan, ethertype)?;
        if self.source.is_v4() {
            self.write_ipv4(frame, protocol, length)
        } else {
            self.write_ipv6(frame, protocol, length)
        }
    }

    fn write_ipv4(&self, frame: &mut Writer<'_>, protocol: Protocol, length: usize) -> Option<()> {
        let start = frame.length;
        let [l0, l1] = u16::try_from(IPV4_HEADER + length).ok()?.to_be_bytes();
        // Identification 0 and DF: an atomic datagram (RFC 6864 section 4.1).
        frame.put(&[0x45, 0, l0, l1, 0, 0, 0x40, 0, self.hop_limit, protocol.0, 0, 0])?;
        for addr in [self.source, self.destination] {
            let [.., a, b, c, d] = addr.bits().to_be_bytes();
            frame.put(&[a, b, c, d])?;
        }
        let checksum = checksum::ipv4_header(frame.since(start)?);
        frame.patch(start + 10, checksum)
    }

    fn write_ipv6(&self, frame: &mut Writer<'_>, protocol: Protocol, length: usize) -> Option<()> {
        let [l0, l1] = u16::try_from(length).ok()?.to_be_bytes();
        frame.put(&[0x60, 0, 0, 0, l0, l1, protocol.0, self.hop_limit])?;
        frame.put(&self.source.bits().to_be_bytes())?;
        frame.put(&self.destination.bits().to_be_bytes())
    }

    /// Writes the checksum of what stands since `start`, `field` bytes behind it; gives the frame's length.
    fn close_upper_layer(
        &self,
        frame: &mut Writer<'_>,
        protocol: Protocol,
        start: usize,
        field: usize,
    ) -> Option<usize> {
        let upper = frame.since(start)?;
        // ICMP over IPv4 alone has no pseudo-header (RFC 792).
        let pseudo = if protocol == Protocol::ICMP {
            Sum::ZERO
        } else {
            Sum::pseudo(self.source, self.destination, protocol, u32::try_from(upper.len()).ok()?)
        };
        let checksum = pseudo.bytes(upper).checksum();
        frame.patch(start + field, checksum)?;
        Some(frame.length)
    }
}

/// A RARP request for the guest's own address, to everybody: what switches learn a moved MAC address from.
pub(super) fn write_rarp(mac: MacAddr, vlan: Option<u16>, out: &mut [u8; REPLY_LEN_MAX]) -> Option<usize> {
    let mut frame = Writer { out, length: 0 };
    frame.put_ether(BROADCAST, mac, vlan, 0x8035)?;
    frame.put_arp(3, mac, [0; 4], mac, [0; 4])?;
    Some(frame.length)
}

/// An ARP request for the guest's own address.
pub(super) fn write_arp_announcement(
    mac: MacAddr,
    vlan: Option<u16>,
    address: Addr,
    out: &mut [u8; REPLY_LEN_MAX],
) -> Option<usize> {
    let [.., a, b, c, d] = address.bits().to_be_bytes();
    let mut frame = Writer { out, length: 0 };
    frame.put_ether(BROADCAST, mac, vlan, 0x0806)?;
    frame.put_arp(1, mac, [a, b, c, d], MacAddr([0; 6]), [a, b, c, d])?;
    Some(frame.length)
}

const BROADCAST: MacAddr = MacAddr([0xff; 6]);

/// A frame as it grows.
struct Writer<'a> {
    out: &'a mut [u8; REPLY_LEN_MAX],
    length: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.length + bytes.len();
        self.out.get_mut(self.length..end)?.copy_from_slice(bytes);
        self.length = end;
        Some(())
    }

    fn put_ether(
        &mut self,
        destination: MacAddr,
        source: MacAddr,
        vlan: Option<u16>,
        ethertype: u16,
    ) -> Option<()> {
        self.put(&destination.0)?;
        self.put(&source.0)?;
        if let Some(vlan) = vlan {
            self.put(&0x8100_u16.to_be_bytes())?;
            self.put(&vlan.to_be_bytes())?;
        }
        self.put(&ethertype.to_be_bytes())
    }

    /// ARP for IPv4 over Ethernet (RFC 826), and RARP, which has the same form.
    fn put_arp(
        &mut self,
        operation: u8,
        sender_mac: MacAddr,
        sender: [u8; 4],
        target_mac: MacAddr,
        target: [u8; 4],
    ) -> Option<()> {
        self.put(&[0, 1, 8, 0, 6, 4, 0, operation])?;
        self.put(&sender_mac.0)?;
        self.put(&sender)?;
        self.put(&target_mac.0)?;
        self.put(&target)
    }

    fn since(&self, start: usize) -> Option<&[u8]> {
        self.out.get(start..self.length)
    }

    fn patch(&mut self, offset: usize, value: u16) -> Option<()> {
        self.out.get_mut(offset..offset + 2)?.copy_from_slice(&value.to_be_bytes());
        Some(())
    }
}
