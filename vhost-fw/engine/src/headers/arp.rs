//! ARP between Ethernet and IPv4 (RFC 826), and RARP, which has its form (RFC 903).
//!
//! Knows how a message is written. Never knows whether what it claims is true.

use fw_model::{Addr, MacAddr};

use super::view::View;
use super::{Arp, Malformed};

/// Bytes of a message between Ethernet and IPv4.
pub(super) const LENGTH: usize = 28;
/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const FORM: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// Reads the message at `at`, one of these two operations.
pub(super) fn parse(frame: View<'_>, at: usize, operations: [u16; 2]) -> Result<Arp, Malformed> {
    let message: &[u8; LENGTH] = frame.header(at, Malformed::ArpShort)?;
    let [f0, f1, f2, f3, f4, f5, o0, o1, rest @ ..] = *message;
    if [f0, f1, f2, f3, f4, f5] != FORM {
        return Err(Malformed::ArpForm);
    }
    let operation = u16::from_be_bytes([o0, o1]);
    if !operations.contains(&operation) {
        return Err(Malformed::ArpOperation);
    }
    let [a, b, c, d, e, f, s0, s1, s2, s3, g, h, i, j, k, l, t0, t1, t2, t3] = rest;
    Ok(Arp {
        operation,
        sender_mac: MacAddr([a, b, c, d, e, f]),
        sender: Addr::v4([s0, s1, s2, s3]),
        target_mac: MacAddr([g, h, i, j, k, l]),
        target: Addr::v4([t0, t1, t2, t3]),
    })
}
