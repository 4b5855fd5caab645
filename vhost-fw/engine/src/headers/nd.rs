//! Neighbour discovery (RFC 4861): the checks every receiver must make, and what a message claims.
//!
//! Knows how messages are written. Never knows whose addresses they name.

use fw_model::{Addr, MacAddr};

use super::ipv6;
use super::view::chunk;
use super::{Ip, Malformed, Nd, NdKind};

const UNSPECIFIED: u128 = 0;
/// `ff02::1:ff00:0/104` (RFC 4291 section 2.7.1).
const SOLICITED_NODE: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;
const SOLICITED: u8 = 0x40;

/// Reads a message of type 133 to 136 (RFC 4861 sections 6.1 and 7.1).
pub(super) fn parse(kind: u8, code: u8, message: &[u8], ip: &Ip) -> Result<Nd, Malformed> {
    if ip.hop_limit != 255 {
        return Err(Malformed::NdHopLimit);
    }
    if code != 0 {
        return Err(Malformed::NdCode);
    }
    let (kind, options_at) = match kind {
        133 => (NdKind::RouterSolicitation, 8),
        134 => (NdKind::RouterAdvertisement, 16),
        135 => (NdKind::NeighbourSolicitation, 24),
        _ => (NdKind::NeighbourAdvertisement, 24),
    };
    let (source_mac, target_mac) = options(message.get(options_at..).ok_or(Malformed::NdShort)?)?;
    let target = match kind {
        NdKind::NeighbourSolicitation | NdKind::NeighbourAdvertisement => Some(target(message)?),
        NdKind::RouterSolicitation | NdKind::RouterAdvertisement => None,
    };
    let nd = Nd { kind, target, source_mac, target_mac };
    let flags = message.get(4).copied().unwrap_or_default();
    if is_addressed_right(&nd, flags, ip) { Ok(nd) } else { Err(Malformed::NdAddress) }
}

fn target(message: &[u8]) -> Result<Addr, Malformed> {
    let target = ipv6::address(chunk(message, 8)).map_err(|_| Malformed::NdAddress)?;
    if is_group(target) { Err(Malformed::NdAddress) } else { Ok(target) }
}

fn is_addressed_right(nd: &Nd, flags: u8, ip: &Ip) -> bool {
    let asks_without_address = ip.source.bits() == UNSPECIFIED;
    match nd.kind {
        NdKind::RouterAdvertisement => ip.source.bits() >> 118 == 0xfe80 >> 6,
        NdKind::RouterSolicitation => !asks_without_address || nd.source_mac.is_none(),
        NdKind::NeighbourSolicitation => {
            !asks_without_address
                || (nd.source_mac.is_none() && ip.destination.bits() >> 24 == SOLICITED_NODE >> 24)
        }
        NdKind::NeighbourAdvertisement => !is_group(ip.destination) || flags & SOLICITED == 0,
    }
}

const fn is_group(addr: Addr) -> bool {
    addr.bits() >> 120 == 0xff
}

/// The source and the target link-layer address; every option must have its length.
fn options(mut list: &[u8]) -> Result<(Option<MacAddr>, Option<MacAddr>), Malformed> {
    let mut source = None;
    let mut target = None;
    while let [kind, units, ..] = *list {
        let length = usize::from(units) * 8;
        let Some((option, rest)) = list.split_at_checked(length).filter(|_| length > 0) else {
            return Err(Malformed::NdOption);
        };
        match kind {
            1 => claim(&mut source, option)?,
            2 => claim(&mut target, option)?,
            _ => {}
        }
        list = rest;
    }
    if list.is_empty() { Ok((source, target)) } else { Err(Malformed::NdOption) }
}

fn claim(seen: &mut Option<MacAddr>, option: &[u8]) -> Result<(), Malformed> {
    let &[_, _, a, b, c, d, e, f] = option else { return Err(Malformed::NdOption) };
    let claimed = MacAddr([a, b, c, d, e, f]);
    match seen.replace(claimed) {
        Some(before) if before != claimed => Err(Malformed::NdTwoAddresses),
        _ => Ok(()),
    }
}
