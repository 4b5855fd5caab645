//! ICMP and `ICMPv6`: any message, errors that quote, neighbour discovery.

use std::net::{IpAddr, Ipv6Addr};

use super::{End, ip};

const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;

/// A message of the ends' family: type, code, the four bytes behind the checksum, the rest.
///
/// # Panics
/// If the ends are of two families.
#[must_use]
pub fn icmp(from: &End, to: &End, (kind, code): (u8, u8), word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    with_hops(from, to, 64, (kind, code), word, rest)
}

#[expect(clippy::expect_used, reason = "frames of these sizes can be built")]
fn with_hops(from: &End, to: &End, hops: u8, (kind, code): (u8, u8), word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let (step, mut frame) = (ip(from, to, hops), Vec::new());
    if from.ip.is_ipv4() {
        step.icmpv4_raw(kind, code, word).write(&mut frame, rest).expect("a message");
    } else {
        step.icmpv6_raw(kind, code, word).write(&mut frame, rest).expect("a message");
    }
    frame
}

/// An error about an untagged frame, with as much of it as routers quote.
///
/// # Panics
/// If the ends are of two families.
#[must_use]
pub fn icmp_error(from: &End, to: &End, (kind, code): (u8, u8), word: [u8; 4], about: &[u8]) -> Vec<u8> {
    let datagram = about.get(14..).unwrap_or_default();
    icmp(from, to, (kind, code), word, datagram.get(..128).unwrap_or(datagram))
}

/// A neighbour solicitation: who has `target`? `from.mac` is told along.
///
/// # Panics
/// If the ends are not IPv6.
#[must_use]
pub fn solicitation(from: &End, to: &End, target: Ipv6Addr) -> Vec<u8> {
    let rest = [target.octets().as_slice(), &[1, 1], &from.mac].concat();
    with_hops(from, to, 255, (SOLICITATION, 0), [0; 4], &rest)
}

/// A neighbour advertisement: the sender's address is at `mac`.
///
/// # Panics
/// If the ends are not IPv6.
#[must_use]
pub fn advertisement(from: &End, to: &End, mac: [u8; 6]) -> Vec<u8> {
    let IpAddr::V6(target) = from.ip else { return Vec::new() };
    let rest = [target.octets().as_slice(), &[2, 1], &mac].concat();
    // An answer to one is solicited, an announcement to all is not (RFC 4861 section 7.1.2).
    let flags = if to.mac[0] & 1 == 0 { 0x60 } else { 0x20 };
    with_hops(from, to, 255, (ADVERTISEMENT, 0), [flags, 0, 0, 0], &rest)
}
