//! IPv4 (RFC 791): its header, the few options that pass, and what makes a fragment.
//!
//! Knows the header. Never knows what the datagram carries, nor whether its addresses make sense.

use fw_model::{Addr, Protocol};

use super::checksum::Sum;
use super::view::View;
use super::{Fragment, Ip, L4, Malformed};

const RESERVED: u16 = 0x8000;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
const HEADER_MIN: usize = 20;
const DATAGRAM_MAX: usize = 65_535;

/// Reads the header at `offset` into `ip`; returns the frame cut to the datagram. Layer 4 is left open.
#[inline]
pub(super) fn parse<'a>(frame: View<'a>, offset: usize, ip: &mut Ip) -> Result<View<'a>, Malformed> {
    let fixed: &[u8; HEADER_MIN] = frame.header(offset, Malformed::Ipv4Short)?;
    let [first, _, n0, n1, i0, i1, f0, f1, hop_limit, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] =
        *fixed;
    if first >> 4 != 4 {
        return Err(Malformed::Ipv4Version);
    }
    let header = usize::from(first & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([n0, n1]));
    if header < HEADER_MIN {
        return Err(Malformed::Ipv4HeaderLength);
    }
    if total < header {
        return Err(Malformed::Ipv4TotalLength);
    }
    let datagram = frame.until(offset + total).ok_or(Malformed::Ipv4TotalLength)?;
    let options = datagram.part(offset + HEADER_MIN, header - HEADER_MIN, Malformed::Ipv4HeaderLength)?;
    let sum = Sum::plain_ipv4(fixed);
    let sum = if options.is_empty() { sum } else { sum.bytes(options) };
    if !sum.is_right() {
        return Err(Malformed::Ipv4Checksum);
    }
    if hop_limit == 0 {
        return Err(Malformed::TtlZero);
    }
    let protocol = Protocol(protocol);
    let router_alert = !options.is_empty() && read_options(options, protocol)?;
    let id = u32::from(u16::from_be_bytes([i0, i1]));
    let fragment = fragment(u16::from_be_bytes([f0, f1]), id, header, total)?;
    *ip = Ip {
        source: Addr::v4([s0, s1, s2, s3]),
        destination: Addr::v4([d0, d1, d2, d3]),
        protocol,
        hop_limit,
        router_alert,
        offset,
        l4_offset: offset + header,
        fragment,
        l4: L4::Other,
    };
    Ok(datagram)
}

#[inline]
fn fragment(field: u16, id: u32, header: usize, total: usize) -> Result<Option<Fragment>, Malformed> {
    if field & RESERVED != 0 {
        return Err(Malformed::Ipv4ReservedFlag);
    }
    let more = field & MORE_FRAGMENTS != 0;
    let offset = usize::from(field & 0x1fff) * 8;
    if !more && offset == 0 {
        return Ok(None);
    }
    if field & DONT_FRAGMENT != 0 {
        return Err(Malformed::FragmentFlags);
    }
    let data = total - header;
    if data == 0 || (more && !data.is_multiple_of(8)) || offset + total > DATAGRAM_MAX {
        return Err(Malformed::FragmentLength);
    }
    Ok(Some(Fragment { id, offset, more, header_offset: 0, named_at: 0 }))
}

/// Padding passes, and a router alert (RFC 2113) with IGMP, where it belongs. Says whether there is one.
fn read_options(mut options: &[u8], protocol: Protocol) -> Result<bool, Malformed> {
    let mut alert = false;
    loop {
        options = match options {
            // End of options: what follows is padding, and padding is zero (RFC 791 section 3.1).
            [0, rest @ ..] if rest.iter().all(|byte| *byte == 0) => return Ok(alert),
            [] => return Ok(alert),
            [1, rest @ ..] => rest,
            [0x94, 4, 0, 0, rest @ ..] if protocol == Protocol::IGMP && !alert => {
                alert = true;
                rest
            }
            _ => return Err(Malformed::Ipv4Option),
        };
    }
}
