//! IPv6 (RFC 8200): its header and the extension headers on the allow-list.
//!
//! Passes: one hop-by-hop header with a router alert before MLD, two destination-options headers that only pad,
//! one fragment header. Knows the chain of headers. Never knows what the datagram carries beyond its first byte.

use fw_model::{Addr, Protocol};

use super::view::View;
use super::{Fragment, Ip, L4, Malformed};

const HOP_BY_HOP: u8 = 0;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
const HEADER: usize = 40;
const PAYLOAD_MAX: usize = 65_535;
/// More padding than this aligns nothing; Linux refuses it as well.
const PADDING_MAX: usize = 7;
const DESTINATIONS_MAX: usize = 2;

/// Reads the header at `offset` and its extension headers into `ip`; returns the frame cut to the datagram. Layer 4
/// is left open.
#[inline]
pub(super) fn parse<'a>(frame: View<'a>, offset: usize, ip: &mut Ip) -> Result<View<'a>, Malformed> {
    let Fixed { payload, next, hop_limit, source, destination } = fixed(frame, offset)?;
    let datagram = frame.until(offset + HEADER + payload).ok_or(Malformed::Ipv6PayloadLength)?;
    if hop_limit == 0 {
        return Err(Malformed::TtlZero);
    }
    let chain = walk(datagram, offset, next)?;
    *ip = Ip {
        source,
        destination,
        protocol: Protocol(chain.upper),
        hop_limit,
        router_alert: chain.router_alert,
        offset,
        l4_offset: chain.at,
        fragment: None,
        l4: L4::Other,
    };
    if chain.router_alert && (ip.protocol != Protocol::ICMPV6 || chain.fragment.is_some()) {
        return Err(Malformed::ExtensionRefused);
    }
    if let Some(found) = chain.fragment {
        refuse_nd(datagram, &chain, found)?;
        if found.fragment.more || found.fragment.offset != 0 {
            check_length(&found, datagram.end(), offset)?;
            ip.protocol = Protocol(found.next);
            ip.l4_offset = found.data;
            ip.fragment = Some(found.fragment);
        }
    }
    Ok(datagram)
}

/// The fixed header.
pub(super) struct Fixed {
    pub(super) payload: usize,
    pub(super) next: u8,
    pub(super) hop_limit: u8,
    pub(super) source: Addr,
    pub(super) destination: Addr,
}

#[inline]
pub(super) fn fixed(frame: View<'_>, offset: usize) -> Result<Fixed, Malformed> {
    let fixed: &[u8; 8] = frame.header(offset, Malformed::Ipv6Short)?;
    let addresses: &[u8; 32] = frame.header(offset + 8, Malformed::Ipv6Short)?;
    let [first, _, _, _, n0, n1, next, hop_limit] = *fixed;
    if first >> 4 != 6 {
        return Err(Malformed::Ipv6Version);
    }
    let (source, destination) = (addresses.first_chunk(), addresses.last_chunk());
    let payload = usize::from(u16::from_be_bytes([n0, n1]));
    Ok(Fixed { payload, next, hop_limit, source: address(source)?, destination: address(destination)? })
}

/// An address that stands for itself. A mapped one would be taken for IPv4 by every later station.
#[inline]
pub(super) fn address(octets: Option<&[u8; 16]>) -> Result<Addr, Malformed> {
    let addr = Addr::v6(*octets.ok_or(Malformed::Ipv6Short)?);
    if addr.is_v4() { Err(Malformed::MappedAddress) } else { Ok(addr) }
}

/// What stands between the fixed header and the upper layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    /// The upper-layer protocol; of a fragment that is not the first, what its fragment header says.
    pub(super) upper: u8,
    /// Where that starts, in bytes of the frame.
    pub(super) at: usize,
    pub(super) router_alert: bool,
    pub(super) fragment: Option<Found>,
}

/// A fragment header, atomic or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) fragment: Fragment,
    /// The protocol it names.
    next: u8,
    /// Where the data behind it starts.
    data: usize,
}

/// Walks the extension headers behind the fixed header at `offset`. A first fragment must hold them all (RFC 7112).
#[inline]
pub(super) fn walk(datagram: View<'_>, offset: usize, next: u8) -> Result<Chain, Malformed> {
    let mut chain = Chain { upper: next, at: offset + HEADER, router_alert: false, fragment: None };
    let mut named_at = offset + 6;
    let mut destinations = 0;
    // Bounded: each arm that goes on may do so a fixed number of times.
    loop {
        let at = chain.at;
        match chain.upper {
            HOP_BY_HOP if at == offset + HEADER => {
                let (upper, behind, alert) = options(datagram, at, HOP_BY_HOP)?;
                if !alert {
                    return Err(Malformed::ExtensionRefused);
                }
                chain = Chain { upper, at: behind, router_alert: true, ..chain };
            }
            DESTINATION if destinations < DESTINATIONS_MAX => {
                destinations += 1;
                let (upper, behind, _) = options(datagram, at, DESTINATION)?;
                chain = Chain { upper, at: behind, ..chain };
            }
            FRAGMENT => {
                if chain.fragment.is_some() {
                    return Err(Malformed::FragmentTwice);
                }
                let found = fragment_header(datagram, at, named_at)?;
                chain = Chain { upper: found.next, at: found.data, fragment: Some(found), ..chain };
                if found.fragment.offset != 0 {
                    return Ok(chain);
                }
            }
            HOP_BY_HOP | DESTINATION => return Err(Malformed::ExtensionRefused),
            upper if is_refused(upper) => return Err(Malformed::ExtensionRefused),
            _ => return Ok(chain),
        }
        named_at = at;
    }
}

/// The other extension headers (IANA "IPv6 Extension Header Types") and "no next header": routing, AH,
/// mobility, HIP, shim6, and those kept for experiments.
const fn is_refused(number: u8) -> bool {
    matches!(number, 43 | 51 | 59 | 135 | 139 | 140 | 253 | 254)
}

fn fragment_header(datagram: View<'_>, at: usize, named_at: usize) -> Result<Found, Malformed> {
    let [next, reserved, o0, o1, i0, i1, i2, i3] = *datagram.header(at, Malformed::FragmentHeader)?;
    let field = u16::from_be_bytes([o0, o1]);
    if reserved != 0 || field & 0b110 != 0 {
        return Err(Malformed::FragmentHeader);
    }
    let fragment = Fragment {
        id: u32::from_be_bytes([i0, i1, i2, i3]),
        offset: usize::from(field & 0xfff8),
        more: field & 1 != 0,
        header_offset: at,
        named_at,
    };
    Ok(Found { fragment, next, data: at + 8 })
}

fn check_length(found: &Found, end: usize, offset: usize) -> Result<(), Malformed> {
    let Found { fragment: Fragment { offset: place, more, header_offset, .. }, data, .. } = *found;
    let length = end - data;
    let before = header_offset - offset - HEADER;
    if length == 0 || (more && !length.is_multiple_of(8)) || before + place + length > PAYLOAD_MAX {
        return Err(Malformed::FragmentLength);
    }
    Ok(())
}

/// Neighbour discovery never stands behind a fragment header, not even an atomic one (RFC 6980 section 5).
fn refuse_nd(datagram: View<'_>, chain: &Chain, found: Found) -> Result<(), Malformed> {
    if found.fragment.offset != 0 || Protocol(chain.upper) != Protocol::ICMPV6 {
        return Ok(());
    }
    let [kind] = *datagram.header(chain.at, Malformed::IcmpShort)?;
    if (133..=137).contains(&kind) { Err(Malformed::NdFragment) } else { Ok(()) }
}

/// Reads an options header: the next header, where that starts, and whether there is a router alert.
fn options(datagram: View<'_>, at: usize, of: u8) -> Result<(u8, usize, bool), Malformed> {
    let [next, units] = *datagram.header(at, Malformed::ExtensionShort)?;
    let length = 8 + usize::from(units) * 8;
    let mut list = datagram.part(at, length, Malformed::ExtensionShort)?.get(2..).unwrap_or_default();
    let mut alert = false;
    let mut padding = 0;
    loop {
        list = match list {
            [] => return Ok((next, at + length, alert)),
            [0, rest @ ..] => {
                padding += 1;
                rest
            }
            [1, size, rest @ ..] => {
                let Some((zeros, rest)) = rest.split_at_checked(usize::from(*size)) else {
                    return Err(Malformed::ExtensionOption);
                };
                if zeros.iter().any(|byte| *byte != 0) {
                    return Err(Malformed::ExtensionOption);
                }
                padding += 2 + zeros.len();
                rest
            }
            // Router alert, value 0: MLD (RFC 2711 section 2.1).
            [5, 2, 0, 0, rest @ ..] if of == HOP_BY_HOP && !alert => {
                alert = true;
                padding = 0;
                rest
            }
            _ => return Err(Malformed::ExtensionOption),
        };
        if padding > PADDING_MAX {
            return Err(Malformed::ExtensionOption);
        }
    }
}
