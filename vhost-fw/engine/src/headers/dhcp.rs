//! DHCP (RFC 2131) and `DHCPv6` (RFC 8415): who says it, and for which hardware.
//!
//! Knows how messages are written and which way each may go by its ports. Never knows whose hardware it is.

use fw_model::MacAddr;

use super::view::chunk;
use super::{Dhcp, Malformed};

pub(super) const SERVER: u16 = 67;
pub(super) const CLIENT: u16 = 68;
pub(super) const CLIENT_V6: u16 = 546;
pub(super) const SERVER_V6: u16 = 547;

const REQUEST: u8 = 1;
const REPLY: u8 = 2;
/// Where the options start, behind the fixed fields of BOOTP (RFC 951).
const COOKIE_AT: usize = 236;
const COOKIE: [u8; 4] = [99, 130, 83, 99];
const CHADDR_AT: usize = 28;

/// Reads a DHCP message by its ports. A request comes from a client (68 to 67) or is relayed (67 to 67); a reply
/// goes to a client (67 to 68) or to its relay (67 to 67).
pub(super) fn parse(message: &[u8], source_port: u16, destination_port: u16) -> Result<Dhcp, Malformed> {
    let [operation, hardware_type, hardware_length, _] = *chunk(message, 0).ok_or(Malformed::DhcpShort)?;
    let cookie: &[u8; 4] = chunk(message, COOKIE_AT).ok_or(Malformed::DhcpShort)?;
    let chaddr: &[u8; 6] = chunk(message, CHADDR_AT).ok_or(Malformed::DhcpShort)?;
    if (hardware_type, hardware_length) != (1, 6) || *cookie != COOKIE {
        return Err(Malformed::DhcpForm);
    }
    let hardware = Some(MacAddr(*chaddr));
    match (operation, source_port, destination_port) {
        (REQUEST, CLIENT | SERVER, SERVER) => Ok(Dhcp::Client { hardware }),
        (REPLY, SERVER, CLIENT | SERVER) => Ok(Dhcp::Server { hardware }),
        _ => Err(Malformed::DhcpPorts),
    }
}

/// Reads a `DHCPv6` message by its destination port (source ports are free). Relays' own messages are refused: a
/// guest is a client.
pub(super) fn parse_v6(message: &[u8], destination_port: u16) -> Result<Dhcp, Malformed> {
    let [kind, ..]: [u8; 4] = *chunk(message, 0).ok_or(Malformed::DhcpShort)?;
    match (kind, destination_port) {
        (1 | 3..=6 | 8 | 9 | 11, SERVER_V6) => {
            client_hardware(message)?;
            Ok(Dhcp::Client { hardware: None })
        }
        (2 | 7 | 10, CLIENT_V6) => Ok(Dhcp::Server { hardware: client_hardware(message)? }),
        _ => Err(Malformed::DhcpPorts),
    }
}

/// The Ethernet address in the client identifier (RFC 8415 section 21.2), if that is built from one.
fn client_hardware(message: &[u8]) -> Result<Option<MacAddr>, Malformed> {
    const CLIENT_IDENTIFIER: [u8; 2] = [0, 1];
    let mut options = message.get(4..).unwrap_or_default();
    let mut identifier = None;
    while !options.is_empty() {
        let [k0, k1, n0, n1] = *chunk(options, 0).ok_or(Malformed::DhcpForm)?;
        let until = 4 + usize::from(u16::from_be_bytes([n0, n1]));
        let (option, rest) = options.split_at_checked(until).ok_or(Malformed::DhcpForm)?;
        if [k0, k1] == CLIENT_IDENTIFIER && identifier.replace(option).is_some() {
            return Err(Malformed::DhcpForm);
        }
        options = rest;
    }
    Ok(match identifier.and_then(|option| option.get(4..)) {
        // DUID-LLT and DUID-LL over Ethernet (RFC 8415 sections 11.2, 11.4).
        Some(&[0, 1, 0, 1, _, _, _, _, a, b, c, d, e, f] | &[0, 3, 0, 1, a, b, c, d, e, f]) => {
            Some(MacAddr([a, b, c, d, e, f]))
        }
        _ => None,
    })
}
