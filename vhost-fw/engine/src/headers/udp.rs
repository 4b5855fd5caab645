//! UDP (RFC 768).
//!
//! Knows the header, and which ports are DHCP's. Never knows the conn it belongs to.

use super::view::{Stop, View};
use super::{Ip, L4, Malformed, Udp, dhcp};

const HEADER: usize = 8;

/// Reads the datagram behind the header of `ip` into it.
#[inline]
pub(super) fn parse(datagram: View<'_>, ip: &mut Ip) -> Result<(), Stop> {
    let at = ip.l4_offset;
    let [p0, p1, q0, q1, n0, n1, c0, c1] = *datagram.header(at, Malformed::UdpShort)?;
    let (source_port, destination_port) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([q0, q1]));
    let length = usize::from(u16::from_be_bytes([n0, n1]));
    // Shorter than the datagram would leave bytes nobody judged (RFC 9868's options live there): refused as well.
    if length < HEADER || length != datagram.end() - at {
        return Err(Malformed::UdpLength.into());
    }
    // Source port 0 is legal: no answer wanted.
    if destination_port == 0 {
        return Err(Malformed::UdpPort.into());
    }
    let checksum = u16::from_be_bytes([c0, c1]);
    let is_v4 = ip.source.is_v4();
    if checksum == 0 && !is_v4 {
        return Err(Malformed::UdpNoChecksum.into());
    }
    let dhcp = match destination_port {
        dhcp::SERVER | dhcp::CLIENT if is_v4 => {
            Some(dhcp::parse(datagram.message(at + HEADER)?, source_port, destination_port)?)
        }
        dhcp::SERVER_V6 | dhcp::CLIENT_V6 if !is_v4 => {
            Some(dhcp::parse_v6(datagram.message(at + HEADER)?, destination_port)?)
        }
        _ => None,
    };
    ip.l4 = L4::Udp(Udp { source_port, destination_port, checksum, dhcp });
    Ok(())
}
