//! The frame that nearly every frame is, read in one piece: TCP or UDP over IPv4, without tag, option or fragment.
//!
//! Reads what [`super::parse_into`] would read, or nothing: whatever is out of the ordinary, wrong or right, is left to
//! the readers of one header each. Knows where plain headers stand. Never knows why something is refused.

use fw_model::{Addr, MacAddr, Protocol};

use super::checksum::Sum;
use super::{Ether, Headers, Ip, L4, Net, Tcp, TcpFlags, Udp, dhcp, ether, tcp};
use crate::frame::HEAD_LEN;

const ETHER: usize = 14;
const IPV4: usize = 20;
const TCP: usize = 20;
const UDP: usize = 8;
/// With timestamps (RFC 7323 appendix A).
const TCP_STAMPED: usize = 32;
const ALL: usize = ETHER + IPV4 + TCP;
/// Everything but "don't fragment".
const FRAGMENT_BITS: u16 = 0xbfff;

/// Reads the first `bytes` of a frame of `length` bytes if it is a plain one. If not, `headers` means nothing.
#[inline]
pub(super) fn parse(bytes: &[u8], length: usize, headers: &mut Headers) -> bool {
    let Some(fixed) = bytes.first_chunk::<ALL>().filter(|_| bytes.len() >= length.min(HEAD_LEN)) else {
        return false;
    };
    let Some((ether, l3)) = fixed.split_first_chunk::<ETHER>() else { return false };
    let Some((l3, l4)) = l3.split_first_chunk::<IPV4>() else { return false };
    let Some(l4) = l4.first_chunk::<TCP>() else { return false };
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, e0, e1] = *ether;
    let [first, _, n0, n1, _, _, f0, f1, hop_limit, protocol, _, _, rest @ ..] = *l3;
    let [a0, a1, a2, a3, b0, b1, b2, b3] = rest;
    let total = usize::from(u16::from_be_bytes([n0, n1]));
    let is_plain = u16::from_be_bytes([e0, e1]) == ether::IPV4
        && first == 0x45
        && u16::from_be_bytes([f0, f1]) & FRAGMENT_BITS == 0
        && hop_limit != 0
        && (IPV4 + UDP..=length.saturating_sub(ETHER)).contains(&total);
    if !is_plain || !Sum::plain_ipv4(l3).is_right() {
        return false;
    }
    // In place: what is put together elsewhere is moved here byte by byte.
    if !matches!(headers.net, Net::Ip(_)) {
        headers.net = Net::Ip(Ip::BLANK);
    }
    let Net::Ip(ip) = &mut headers.net else { return false };
    let protocol = Protocol(protocol);
    let is_read = match protocol {
        Protocol::TCP => segment(bytes, l4, total - IPV4, &mut ip.l4),
        Protocol::UDP => datagram(l4, total - IPV4, &mut ip.l4),
        _ => false,
    };
    if !is_read {
        return false;
    }
    ip.source = Addr::v4([a0, a1, a2, a3]);
    ip.destination = Addr::v4([b0, b1, b2, b3]);
    ip.protocol = protocol;
    ip.hop_limit = hop_limit;
    ip.router_alert = false;
    ip.offset = ETHER;
    ip.l4_offset = ETHER + IPV4;
    ip.fragment = None;
    headers.ether = Ether {
        destination: MacAddr([d0, d1, d2, d3, d4, d5]),
        source: MacAddr([s0, s1, s2, s3, s4, s5]),
        vlan: None,
        ethertype: ether::IPV4,
        length: ETHER,
    };
    headers.length = ETHER + total;
    true
}

/// A segment of `length` bytes that neither opens nor resets a conn.
#[inline(always)]
fn segment(bytes: &[u8], fixed: &[u8; TCP], length: usize, l4: &mut L4) -> bool {
    let [p0, p1, q0, q1, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *fixed;
    let (source_port, destination_port) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([q0, q1]));
    let header = usize::from(offset >> 4) * 4;
    let flags = TcpFlags(flags);
    let has_plain_options = match header {
        TCP => true,
        TCP_STAMPED => bytes.get(ALL..).and_then(<[u8]>::first_chunk) == Some(&[1, 1, 8, 10]),
        _ => false,
    };
    let is_plain = source_port != 0
        && destination_port != 0
        && has_plain_options
        && !flags.syn()
        && !flags.rst()
        && tcp::is_sent_by_stacks(flags);
    let payload = length.checked_sub(header).and_then(|payload| u32::try_from(payload).ok());
    let Some(payload) = payload.filter(|_| is_plain) else { return false };
    *l4 = L4::Tcp(Tcp {
        source_port,
        destination_port,
        sequence: u32::from_be_bytes([s0, s1, s2, s3]),
        acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
        window: u16::from_be_bytes([w0, w1]),
        window_scale: None,
        payload,
        header,
    });
    true
}

/// A datagram of `length` bytes that is not DHCP's.
#[inline(always)]
fn datagram(fixed: &[u8; TCP], length: usize, l4: &mut L4) -> bool {
    let [p0, p1, q0, q1, n0, n1, c0, c1, ..] = *fixed;
    let destination_port = u16::from_be_bytes([q0, q1]);
    let is_plain = usize::from(u16::from_be_bytes([n0, n1])) == length
        && !matches!(destination_port, 0 | dhcp::SERVER | dhcp::CLIENT);
    if is_plain {
        *l4 = L4::Udp(Udp {
            source_port: u16::from_be_bytes([p0, p1]),
            destination_port,
            checksum: u16::from_be_bytes([c0, c1]),
            dhcp: None,
        });
    }
    is_plain
}
