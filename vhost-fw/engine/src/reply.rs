//! Frames of our own making: the answer to a rejected frame, the resets that end a revoked conn, and the announcement of
//! a guest that has moved.
//!
//! The only place that writes frames. Knows how they are written. Never knows why one is sent, nor how often.

#[cfg(test)]
mod tests;
mod write;

use fw_model::{Addr, Direction, FlowKey, MacAddr, Protocol};

use crate::headers::{Headers, Icmp, IcmpMessage, Ip, L4, Net, Tcp, TcpFlags};
use write::{Envelope, Segment};

/// Room every reply fits in, in bytes.
pub(crate) const REPLY_LEN_MAX: usize = 1294;

const HOP_LIMIT: u8 = 64;
/// Of neighbour discovery (RFC 4861 section 7.1.2).
const ND_HOP_LIMIT: u8 = 255;
/// `ff02::1` (RFC 4291 section 2.7.1), and the MAC address it maps to (RFC 2464 section 7).
const ALL_NODES: Addr = Addr::v6([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const ALL_NODES_MAC: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

/// Writes the answer to a rejected frame: TCP RST for TCP (RFC 9293 section 3.10.7.1), else ICMP destination
/// unreachable, administratively prohibited (RFC 1812 section 5.2.7.1; RFC 4443 section 3.1). Its source is the
/// refused destination. Says how many bytes it has; `None` where no answer is due: to RST, to ICMP errors, to and
/// from group addresses, to anything that is not IP.
pub(crate) fn refusal(headers: &Headers, frame: &[u8], out: &mut [u8; REPLY_LEN_MAX]) -> Option<usize> {
    let Net::Ip(ip) = &headers.net else { return None };
    let ether = &headers.ether;
    let single = !ether.destination.is_group()
        && !ether.source.is_group()
        && is_single(ip.source)
        && is_single(ip.destination);
    if !single {
        return None;
    }
    let envelope = Envelope {
        destination_mac: ether.source,
        source_mac: ether.destination,
        vlan: ether.vlan,
        source: ip.destination,
        destination: ip.source,
        hop_limit: HOP_LIMIT,
    };
    match &ip.l4 {
        L4::Tcp(tcp) => envelope.write_tcp(&reset_for(tcp)?, out),
        L4::Icmp(icmp) if is_error(ip, icmp) => None,
        L4::Udp(_) | L4::Icmp(_) | L4::Other => {
            let judged = frame.get(..headers.length.min(frame.len()))?;
            envelope.write_prohibited(judged.get(ip.offset..)?, out)
        }
        L4::Group(_) | L4::Fragment => None,
    }
}

/// What a reset needs to know of the conn it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reset {
    pub(crate) flow: FlowKey,
    pub(crate) guest_mac: MacAddr,
    pub(crate) peer_mac: MacAddr,
    /// The receiver's next expected sequence number: what it acknowledged last.
    pub(crate) sequence: u32,
    /// The next sequence number the receiver will send, as far as it was seen.
    pub(crate) acknowledgement: u32,
}

/// Writes the RST+ACK that tells one end: the guest if it goes [`Direction::In`], else the other end.
pub(crate) fn reset_to(reset: &Reset, direction: Direction, out: &mut [u8; REPLY_LEN_MAX]) -> Option<usize> {
    let flow = &reset.flow;
    if flow.protocol != Protocol::TCP {
        return None;
    }
    let guest = (reset.guest_mac, flow.local, flow.local_port);
    let peer = (reset.peer_mac, flow.remote, flow.remote_port);
    let (from, to) = match direction {
        Direction::In => (peer, guest),
        Direction::Out => (guest, peer),
    };
    let (source_mac, source, source_port) = from;
    let (destination_mac, destination, destination_port) = to;
    let vlan = (flow.vlan != 0).then_some(flow.vlan);
    let envelope = Envelope { destination_mac, source_mac, vlan, source, destination, hop_limit: HOP_LIMIT };
    let segment = Segment {
        source_port,
        destination_port,
        sequence: reset.sequence,
        acknowledgement: reset.acknowledgement,
        flags: TcpFlags(TcpFlags::RST | TcpFlags::ACK),
    };
    envelope.write_tcp(&segment, out)
}

/// What is told of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announcement {
    /// The guest's MAC address.
    pub(crate) mac: MacAddr,
    pub(crate) vlan: Option<u16>,
    /// An address of its own; none = only that the MAC address is here.
    pub(crate) address: Option<Addr>,
}

/// Writes a frame to everybody that says where a guest is: RARP (RFC 903) without an address, an ARP announcement (RFC
/// 5227 section 2.3) or an unsolicited neighbour advertisement (RFC 4861 section 7.2.6) with one.
pub(crate) fn announcement(told: &Announcement, out: &mut [u8; REPLY_LEN_MAX]) -> Option<usize> {
    let Announcement { mac, vlan, address } = *told;
    match address {
        None => write::write_rarp(mac, vlan, out),
        Some(address) if address.is_v4() => write::write_arp_announcement(mac, vlan, address, out),
        Some(address) => {
            let envelope = Envelope {
                destination_mac: ALL_NODES_MAC,
                source_mac: mac,
                vlan,
                source: address,
                destination: ALL_NODES,
                hop_limit: ND_HOP_LIMIT,
            };
            envelope.write_advertisement(out)
        }
    }
}

/// The reset that answers a segment which belongs to no conn.
fn reset_for(tcp: &Tcp) -> Option<Segment> {
    if tcp.flags.rst() {
        return None;
    }
    let (sequence, acknowledgement, flags) = if tcp.flags.ack() {
        (tcp.acknowledgement, 0, TcpFlags::RST)
    } else {
        let counted =
            tcp.payload.wrapping_add(u32::from(tcp.flags.syn())).wrapping_add(u32::from(tcp.flags.fin()));
        (0, tcp.sequence.wrapping_add(counted), TcpFlags::RST | TcpFlags::ACK)
    };
    Some(Segment {
        source_port: tcp.destination_port,
        destination_port: tcp.source_port,
        sequence,
        acknowledgement,
        flags: TcpFlags(flags),
    })
}

/// Errors and redirects are never answered with an error (RFC 1122 section 3.2.2, RFC 4443 section 2.4), nor are
/// messages of neighbour discovery.
fn is_error(ip: &Ip, icmp: &Icmp) -> bool {
    match icmp.message {
        IcmpMessage::Error(_) | IcmpMessage::Redirect | IcmpMessage::Nd(_) => true,
        IcmpMessage::EchoRequest { .. } | IcmpMessage::EchoReply { .. } => false,
        IcmpMessage::Other if ip.source.is_v4() => matches!(icmp.kind, 3..=5 | 11 | 12),
        IcmpMessage::Other => icmp.kind < 128 || icmp.kind == 137,
    }
}

/// Whether an address names one host: neither unspecified nor a group.
fn is_single(addr: Addr) -> bool {
    let bits = addr.bits();
    if addr.is_v4() { !matches!(bits >> 24 & 0xff, 0 | 224..) } else { bits != 0 && bits >> 120 != 0xff }
}
