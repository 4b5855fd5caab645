//! TCP (RFC 9293): its header, its flags and the form of its options.
//!
//! Knows one segment. Never knows the conn it belongs to.

use super::view::View;
use super::{Ip, L4, Malformed, Tcp, TcpFlags};

const HEADER_MIN: usize = 20;
const URG: u8 = 0x20;
/// Largest shift (RFC 7323 section 2.3); a greater one is taken as this.
const WINDOW_SCALE_MAX: u8 = 14;
/// SYN and RST carry a cookie's first data (RFC 7413) or a diagnostic text (RFC 9293 section 3.5.3) at most: what one
/// frame of the usual MTU holds.
const CONTROL_DATAGRAM_MAX: usize = 1500;

/// Reads the segment behind the header of `ip` into it.
#[inline]
pub(super) fn parse(datagram: View<'_>, ip: &mut Ip) -> Result<(), Malformed> {
    let at = ip.l4_offset;
    let fixed: &[u8; HEADER_MIN] = datagram.header(at, Malformed::TcpShort)?;
    let [p0, p1, q0, q1, s0, s1, s2, s3, a0, a1, a2, a3, offset, flags, w0, w1, ..] = *fixed;
    let (source_port, destination_port) = (u16::from_be_bytes([p0, p1]), u16::from_be_bytes([q0, q1]));
    if source_port == 0 || destination_port == 0 {
        return Err(Malformed::TcpPort);
    }
    let header = usize::from(offset >> 4) * 4;
    if header < HEADER_MIN {
        return Err(Malformed::TcpDataOffset);
    }
    let flags = TcpFlags(flags);
    if !is_sent_by_stacks(flags) {
        return Err(Malformed::TcpFlags);
    }
    let options = datagram.part(at + HEADER_MIN, header - HEADER_MIN, Malformed::TcpDataOffset)?;
    let scale = read_options(options)?;
    let end = datagram.end();
    let payload = end - at - header;
    if payload > 0 && (flags.syn() || flags.rst()) && end - ip.offset > CONTROL_DATAGRAM_MAX {
        return Err(Malformed::TcpControlPayload);
    }
    let payload = u32::try_from(payload).map_err(|_| Malformed::TcpDataOffset)?;
    ip.l4 = L4::Tcp(Tcp {
        source_port,
        destination_port,
        sequence: u32::from_be_bytes([s0, s1, s2, s3]),
        acknowledgement: u32::from_be_bytes([a0, a1, a2, a3]),
        flags,
        window: u16::from_be_bytes([w0, w1]),
        // Elsewhere the option has no meaning (RFC 7323 section 2.2).
        window_scale: if flags.syn() { scale } else { None },
        payload,
        header,
    });
    Ok(())
}

/// PSH and the ECN bits may stand with any of these; the four reserved bits, AE among them, are no stack's to judge
/// (RFC 9293 section 3.1).
pub(super) const fn is_sent_by_stacks(flags: TcpFlags) -> bool {
    const SYN: u8 = TcpFlags::SYN;
    const SYN_ACK: u8 = TcpFlags::SYN | TcpFlags::ACK;
    const RST: u8 = TcpFlags::RST;
    const RST_ACK: u8 = TcpFlags::RST | TcpFlags::ACK;
    const FIN_ACK: u8 = TcpFlags::FIN | TcpFlags::ACK;
    const FIN_ACK_URG: u8 = FIN_ACK | URG;
    const ACK: u8 = TcpFlags::ACK;
    const ACK_URG: u8 = ACK | URG;
    let judged = flags.0 & (TcpFlags::FIN | TcpFlags::SYN | TcpFlags::RST | TcpFlags::ACK | URG);
    matches!(judged, ACK | SYN | SYN_ACK | FIN_ACK | RST | RST_ACK | ACK_URG | FIN_ACK_URG)
}

/// Checks the form of every option and returns the window scale. One that comes twice is malformed: stacks differ in
/// which of the two they take.
#[inline]
fn read_options(mut options: &[u8]) -> Result<Option<u8>, Malformed> {
    // Timestamps as nearly every stack aligns them (RFC 7323 appendix A).
    if let [1, 1, 8, 10, rest @ ..] = options
        && rest.len() == 8
    {
        return Ok(None);
    }
    let mut scale = None;
    loop {
        options = match options {
            [] | [0, ..] => return Ok(scale),
            [1, rest @ ..] => rest,
            [kind, length, ..] => {
                let Some((option, rest)) = options.split_at_checked(usize::from(*length)) else {
                    return Err(Malformed::TcpOption);
                };
                if !has_its_length(*kind, *length) {
                    return Err(Malformed::TcpOption);
                }
                if let [3, 3, shift] = option
                    && scale.replace(WINDOW_SCALE_MAX.min(*shift)).is_some()
                {
                    return Err(Malformed::TcpOption);
                }
                rest
            }
            [_] => return Err(Malformed::TcpOption),
        };
    }
}

/// Known options have known lengths; any other is two bytes at least.
const fn has_its_length(kind: u8, length: u8) -> bool {
    match kind {
        2 => length == 4,
        3 => length == 3,
        4 => length == 2,
        5 => length >= 10 && length % 8 == 2,
        8 => length == 10,
        _ => length >= 2,
    }
}
