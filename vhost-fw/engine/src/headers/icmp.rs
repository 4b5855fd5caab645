//! ICMP (RFC 792) and `ICMPv6` (RFC 4443): echo, errors with what they quote, and whom the rest belongs to.
//!
//! Knows messages, whole, and verifies their checksum. Never knows whether a quoted conn lives.

use fw_model::{Addr, Protocol};

use super::checksum::Sum;
use super::ipv6;
use super::view::{Stop, View, chunk};
use super::{Icmp, IcmpMessage, Ip, L4, Malformed, Quote, group, nd};

const HEADER: usize = 8;
/// The least MTU a link of each family may have (RFC 791 section 3.2, RFC 8200 section 5).
const MTU_MIN: u16 = 68;
const MTU_MIN_V6: u32 = 1280;
/// Least length of a quote that extensions follow (RFC 4884 section 4).
const QUOTE_MIN: usize = 128;

pub(super) fn parse(datagram: View<'_>, ip: &Ip) -> Result<L4, Stop> {
    let header: &[u8; HEADER] = datagram.header(ip.l4_offset, Malformed::IcmpShort)?;
    let message = datagram.message(ip.l4_offset)?;
    if !Sum::ZERO.bytes(message).is_right() {
        return Err(Malformed::IcmpChecksum.into());
    }
    let [kind, code, _, _, b4, b5, b6, b7] = *header;
    let id = u16::from_be_bytes([b4, b5]);
    let read = match kind {
        0 | 8 if code != 0 => return Err(Malformed::IcmpCode.into()),
        0 => IcmpMessage::EchoReply { id },
        8 => IcmpMessage::EchoRequest { id },
        3 if code == 4 && u16::from_be_bytes([b6, b7]) < MTU_MIN => return Err(Malformed::IcmpMtu.into()),
        3 | 11 | 12 => IcmpMessage::Error(quote(quoted(message, usize::from(b5) * 4)?, ip)?),
        5 => IcmpMessage::Redirect,
        _ => IcmpMessage::Other,
    };
    Ok(L4::Icmp(Icmp { kind, code, message: read }))
}

pub(super) fn parse_v6(datagram: View<'_>, ip: &Ip) -> Result<L4, Stop> {
    let header: &[u8; HEADER] = datagram.header(ip.l4_offset, Malformed::IcmpShort)?;
    let message = datagram.message(ip.l4_offset)?;
    let length = u32::try_from(message.len()).map_err(|_| Malformed::IcmpShort)?;
    if !Sum::pseudo(ip.source, ip.destination, Protocol::ICMPV6, length).bytes(message).is_right() {
        return Err(Malformed::IcmpChecksum.into());
    }
    let [kind, code, _, _, b4, b5, b6, b7] = *header;
    if matches!(kind, 130..=132 | 143) {
        return Ok(L4::Group(group::mld(kind, message, ip)?));
    }
    if ip.router_alert {
        return Err(Malformed::ExtensionRefused.into());
    }
    let id = u16::from_be_bytes([b4, b5]);
    let read = match kind {
        128 | 129 if code != 0 => return Err(Malformed::IcmpCode.into()),
        128 => IcmpMessage::EchoRequest { id },
        129 => IcmpMessage::EchoReply { id },
        2 if u32::from_be_bytes([b4, b5, b6, b7]) < MTU_MIN_V6 => return Err(Malformed::IcmpMtu.into()),
        1 | 3 => IcmpMessage::Error(quote_v6(quoted(message, usize::from(b4) * 8)?, ip)?),
        2 | 4 => IcmpMessage::Error(quote_v6(quoted(message, 0)?, ip)?),
        133..=136 => IcmpMessage::Nd(nd::parse(kind, code, message, ip)?),
        137 => IcmpMessage::Redirect,
        _ => IcmpMessage::Other,
    };
    Ok(L4::Icmp(Icmp { kind, code, message: read }))
}

/// The bytes an error quotes: `length` of them where that is given (RFC 4884), else all there are.
fn quoted(message: &[u8], length: usize) -> Result<&[u8], Malformed> {
    let rest = message.get(HEADER..).unwrap_or_default();
    match length {
        0 => Ok(rest),
        QUOTE_MIN.. => rest.get(..length).ok_or(Malformed::IcmpQuoteLength),
        _ => Err(Malformed::IcmpQuoteLength),
    }
}

/// Reads a quoted IPv4 datagram: a whole one or a first fragment, its header and eight bytes (RFC 792).
fn quote(quoted: &[u8], ip: &Ip) -> Result<Quote, Malformed> {
    let fixed: &[u8; 20] = chunk(quoted, 0).ok_or(Malformed::IcmpQuote)?;
    let [first, _, n0, n1, _, _, f0, f1, _, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *fixed;
    let header = usize::from(first & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([n0, n1]));
    let is_first = u16::from_be_bytes([f0, f1]) & 0x1fff == 0;
    // To 224.0.0.0 and above: groups, reserved, broadcast. No error answers those (RFC 1122 section 3.2.2).
    if first >> 4 != 4 || header < fixed.len() || total < header + 8 || !is_first || d0 >= 224 {
        return Err(Malformed::IcmpQuote);
    }
    let upper = chunk(quoted, header).ok_or(Malformed::IcmpQuote)?;
    let (source, destination) = (Addr::v4([s0, s1, s2, s3]), Addr::v4([d0, d1, d2, d3]));
    quote_of(source, destination, Protocol(protocol), upper, ip)
}

/// Reads a quoted IPv6 datagram, whose extension headers must be ones we let pass.
fn quote_v6(quoted: &[u8], ip: &Ip) -> Result<Quote, Malformed> {
    let view = View::of_quote(quoted);
    let not_readable = |_| Malformed::IcmpQuote;
    let fixed = ipv6::fixed(view, 0).map_err(not_readable)?;
    let chain = ipv6::walk(view, 0, fixed.next).map_err(not_readable)?;
    let is_first = chain.fragment.is_none_or(|found| found.fragment.offset == 0);
    let is_group = fixed.destination.bits() >> 120 == 0xff;
    if !is_first || is_group || fixed.payload + 40 < chain.at + 8 {
        return Err(Malformed::IcmpQuote);
    }
    let upper = chunk(quoted, chain.at).ok_or(Malformed::IcmpQuote)?;
    quote_of(fixed.source, fixed.destination, Protocol(chain.upper), upper, ip)
}

fn quote_of(
    source: Addr,
    destination: Addr,
    protocol: Protocol,
    upper: &[u8; 8],
    ip: &Ip,
) -> Result<Quote, Malformed> {
    // An error goes to whom it is about.
    if source != ip.destination {
        return Err(Malformed::IcmpQuoteSource);
    }
    let [b0, b1, b2, b3, b4, b5, b6, b7] = *upper;
    let (first, second) = (u16::from_be_bytes([b0, b1]), u16::from_be_bytes([b2, b3]));
    let id = u16::from_be_bytes([b4, b5]);
    let (source_port, destination_port, sequence) = match (protocol, b0) {
        (Protocol::TCP, _) => (first, second, Some(u32::from_be_bytes([b4, b5, b6, b7]))),
        (Protocol::UDP, _) => (first, second, None),
        (Protocol::ICMP, 8) | (Protocol::ICMPV6, 128) => (id, 0, None),
        (Protocol::ICMP, 0) | (Protocol::ICMPV6, 129) => (0, id, None),
        // No error about an error, and we remember no other message of these.
        (Protocol::ICMP | Protocol::ICMPV6, _) => return Err(Malformed::IcmpQuote),
        _ => (0, 0, None),
    };
    Ok(Quote { source, destination, protocol, source_port, destination_port, sequence })
}
