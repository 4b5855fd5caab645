//! IGMP (RFC 1112, 2236, 3376) and MLD (RFC 2710, 3810): who listens to which group.
//!
//! Knows how messages are written and addressed. Never knows which way one may go.

use super::checksum::Sum;
use super::view::{Stop, View, chunk};
use super::{GroupMessage, Ip, Malformed};

/// Reads an IGMP message.
pub(super) fn igmp(datagram: View<'_>, ip: &Ip) -> Result<GroupMessage, Stop> {
    let header: &[u8; 8] = datagram.header(ip.l4_offset, Malformed::GroupShort)?;
    let message = datagram.message(ip.l4_offset)?;
    if !Sum::ZERO.bytes(message).is_right() {
        return Err(Malformed::GroupChecksum.into());
    }
    check_addressing(ip)?;
    let [kind, delay, ..] = *header;
    let (read, is_version_1) = match kind {
        0x11 => (GroupMessage::Query, delay == 0 && message.len() == header.len()),
        0x12 => (GroupMessage::Report, true),
        0x16 | 0x17 => (GroupMessage::Report, false),
        0x22 => {
            check_records(message, 4)?;
            (GroupMessage::Report, false)
        }
        _ => return Err(Malformed::GroupKind.into()),
    };
    // Version 1 knew no router alert.
    if !ip.router_alert && !is_version_1 {
        return Err(Malformed::GroupAlert.into());
    }
    Ok(read)
}

/// Reads an MLD message: `ICMPv6` of type 130 to 132 or 143, its checksum verified.
pub(super) fn mld(kind: u8, message: &[u8], ip: &Ip) -> Result<GroupMessage, Malformed> {
    check_addressing(ip)?;
    if !ip.router_alert {
        return Err(Malformed::GroupAlert);
    }
    let read = match kind {
        130 => GroupMessage::Query,
        143 => {
            check_records(message, 16)?;
            GroupMessage::Report
        }
        _ => GroupMessage::Report,
    };
    if kind != 143 && message.len() < 24 {
        return Err(Malformed::GroupShort);
    }
    // From a link-local address, or from none by a host that has none yet (RFC 3590 section 4).
    let is_link_local = ip.source.bits() >> 118 == 0xfe80 >> 6;
    let may_have_none = read == GroupMessage::Report && ip.source.bits() == 0;
    if is_link_local || may_have_none { Ok(read) } else { Err(Malformed::GroupAddress) }
}

fn check_addressing(ip: &Ip) -> Result<(), Malformed> {
    if ip.hop_limit != 1 {
        return Err(Malformed::GroupHopLimit);
    }
    let bits = ip.destination.bits();
    let is_group = if ip.destination.is_v4() { bits >> 28 & 0xf == 0xe } else { bits >> 120 == 0xff };
    if is_group { Ok(()) } else { Err(Malformed::GroupAddress) }
}

/// The records of a report with source lists must end inside it (RFC 3376 section 4.2, RFC 3810 section 5.2).
fn check_records(message: &[u8], address: usize) -> Result<(), Malformed> {
    let records = u16::from_be_bytes(*chunk(message, 6).ok_or(Malformed::GroupShort)?);
    let mut rest = message.get(8..).unwrap_or_default();
    for _ in 0..records {
        let [_, auxiliary, n0, n1] = *chunk(rest, 0).ok_or(Malformed::GroupShort)?;
        let addresses = 1 + usize::from(u16::from_be_bytes([n0, n1]));
        let length = 4 + addresses * address + usize::from(auxiliary) * 4;
        rest = rest.get(length..).ok_or(Malformed::GroupShort)?;
    }
    Ok(())
}
