//! Bytes to headers, or [`Malformed`].
//!
//! Everything later stations know of a frame is read here, once, from private bytes. Knows how protocols are
//! written. Never knows who the NIC is, what came before, or the rules.
//!
//! Read before working here: RFC 791, 8200, 9293, 768, 792, 4443, 4861, 826; IEEE 802.1Q.

mod arp;
pub(crate) mod checksum;
mod dhcp;
mod ether;
mod group;
mod icmp;
mod ipv4;
mod ipv6;
mod malformed;
mod nd;
mod plain;
#[cfg(test)]
pub(crate) mod samples;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod view;

use fw_model::{Addr, Direction, FlowKey, MacAddr, Protocol};

pub(crate) use malformed::Malformed;
pub(crate) use view::Stop;
use view::View;

/// What the bytes of a frame mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Headers {
    pub(crate) ether: Ether,
    pub(crate) net: Net,
    /// Bytes of the frame that were judged: up to the end of the datagram or the ARP message. What trails it is cut off.
    pub(crate) length: usize,
}

/// The Ethernet header and at most one VLAN tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ether {
    pub(crate) destination: MacAddr,
    pub(crate) source: MacAddr,
    /// The VLAN of its tag; `None` without a tag. VLAN 0 and a second tag are malformed.
    pub(crate) vlan: Option<u16>,
    /// The ethertype behind the tag.
    pub(crate) ethertype: u16,
    /// Where the layer 3 header starts, in bytes.
    pub(crate) length: usize,
}

/// Layer 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Net {
    Arp(Arp),
    Rarp(Arp),
    Ip(Ip),
    /// Another ethertype.
    Other,
}

/// An ARP message between Ethernet and IPv4 (RFC 826); RARP has the same form (RFC 903).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arp {
    /// 1 request, 2 reply; RARP 3 and 4. Others are malformed.
    pub(crate) operation: u16,
    pub(crate) sender_mac: MacAddr,
    pub(crate) sender: Addr,
    pub(crate) target_mac: MacAddr,
    pub(crate) target: Addr,
}

/// An IP datagram or a fragment of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ip {
    pub(crate) source: Addr,
    pub(crate) destination: Addr,
    /// The upper-layer protocol, behind all extension headers. Of an IPv6 fragment what its fragment header names, so
    /// that all fragments of a datagram say the same.
    pub(crate) protocol: Protocol,
    /// Time to live or hop limit.
    pub(crate) hop_limit: u8,
    /// Carries a router alert (RFC 2113, 2711).
    pub(crate) router_alert: bool,
    /// Where the IP header starts, in bytes of the frame.
    pub(crate) offset: usize,
    /// Where the upper-layer header (or a fragment's data) starts, in bytes of the frame.
    pub(crate) l4_offset: usize,
    /// Set if this is a fragment; an atomic IPv6 fragment (RFC 6946) counts as whole and has `None`.
    pub(crate) fragment: Option<Fragment>,
    pub(crate) l4: L4,
}

/// Where a fragment stands in its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fragment {
    pub(crate) id: u32,
    /// Offset of its data in the datagram's fragmentable part, in bytes.
    pub(crate) offset: usize,
    /// More fragments follow.
    pub(crate) more: bool,
    /// Where the IPv6 fragment header starts in the frame, and where the field stands that names it in the header
    /// before (both unused with IPv4).
    pub(crate) header_offset: usize,
    pub(crate) named_at: usize,
}

/// Layer 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum L4 {
    Tcp(Tcp),
    Udp(Udp),
    Icmp(Icmp),
    /// IGMP or MLD (MLD is `ICMPv6` on the wire, but a message of its own to us).
    Group(GroupMessage),
    /// Another protocol: nothing behind the IP header was read.
    Other,
    /// A fragment: nothing behind the IP header was read.
    Fragment,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: TcpFlags,
    pub(crate) window: u16,
    /// From a well-formed window scale option, 14 at most (RFC 7323 section 2.3).
    pub(crate) window_scale: Option<u8>,
    /// Bytes of payload (a super-segment's whole payload).
    pub(crate) payload: u32,
    /// Bytes of header, options included.
    pub(crate) header: usize,
}

/// The eight flag bits of a TCP header (RFC 9293 section 3.1); CWR and ECE included, AE left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpFlags(pub(crate) u8);

impl TcpFlags {
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
    pub(crate) const CWR: u8 = 0x80;

    pub(crate) const fn fin(self) -> bool {
        self.0 & Self::FIN != 0
    }
    pub(crate) const fn syn(self) -> bool {
        self.0 & Self::SYN != 0
    }
    pub(crate) const fn rst(self) -> bool {
        self.0 & Self::RST != 0
    }
    pub(crate) const fn ack(self) -> bool {
        self.0 & Self::ACK != 0
    }
    pub(crate) const fn cwr(self) -> bool {
        self.0 & Self::CWR != 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Udp {
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// The checksum field; 0 = none (IPv4 only).
    pub(crate) checksum: u16,
    /// Set for DHCP and `DHCPv6` by their ports.
    pub(crate) dhcp: Option<Dhcp>,
}

/// A DHCP (RFC 2131) or `DHCPv6` (RFC 8415) message, by its UDP ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dhcp {
    /// From a client: to port 67 or 547. `hardware` is chaddr (DHCP only).
    Client { hardware: Option<MacAddr> },
    /// From a server or relay: to port 68 or 546. `hardware` is chaddr, or the MAC address of a DUID-LL or
    /// DUID-LLT client identifier if there is one.
    Server { hardware: Option<MacAddr> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Icmp {
    pub(crate) kind: u8,
    pub(crate) code: u8,
    pub(crate) message: IcmpMessage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IcmpMessage {
    EchoRequest {
        id: u16,
    },
    EchoReply {
        id: u16,
    },
    /// An error, with what it quotes.
    Error(Quote),
    /// Redirect of either family; nothing behind its header was read.
    Redirect,
    Nd(Nd),
    Other,
}

/// The start of the packet an ICMP error quotes, as its sender wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quote {
    pub(crate) source: Addr,
    pub(crate) destination: Addr,
    pub(crate) protocol: Protocol,
    /// TCP and UDP ports; an echo request's identifier as source port, an echo reply's as destination port.
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// TCP only.
    pub(crate) sequence: Option<u32>,
}

/// A neighbour discovery message (RFC 4861). Hop limit 255, code 0 and option lengths hold already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Nd {
    pub(crate) kind: NdKind,
    /// Of solicitations and advertisements of neighbours.
    pub(crate) target: Option<Addr>,
    /// The source link-layer address option; two that differ are malformed.
    pub(crate) source_mac: Option<MacAddr>,
    /// The target link-layer address option; two that differ are malformed.
    pub(crate) target_mac: Option<MacAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NdKind {
    RouterSolicitation,
    RouterAdvertisement,
    NeighbourSolicitation,
    NeighbourAdvertisement,
}

/// IGMP (RFC 3376) or MLD (RFC 3810). Hop limit 1, router alert (but for IGMP version 1) and a group as destination
/// hold already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupMessage {
    Query,
    /// Reports, leaves and dones.
    Report,
}

/// What came of reading a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "one per frame, and a box would allocate")]
pub(crate) enum Parsed {
    Headers(Headers),
    /// Only the whole frame can be read: fragments, ICMP, IGMP, DHCP (CONTRACT 3).
    NeedWhole,
}

/// Reads the first `bytes` of a frame of `length` bytes. Header bytes beyond [`crate::HEAD_LEN`] are refused even
/// if the frame is whole, so that a verdict never depends on how much was fetched.
pub(crate) fn parse(bytes: &[u8], length: usize) -> Result<Parsed, Malformed> {
    let mut headers = Headers::BLANK;
    match parse_into(bytes, length, &mut headers) {
        Ok(()) => Ok(Parsed::Headers(headers)),
        Err(Stop::NeedWhole) => Ok(Parsed::NeedWhole),
        Err(Stop::Malformed(malformed)) => Err(malformed),
    }
}

/// As [`parse`], with the headers written where the caller keeps them: returning them through every layer moves each
/// byte several times, which costs a tenth of judging. They mean nothing if reading stops.
#[inline]
pub(crate) fn parse_into(bytes: &[u8], length: usize, headers: &mut Headers) -> Result<(), Stop> {
    if plain::parse(bytes, length, headers) { Ok(()) } else { parse_each(bytes, length, headers) }
}

/// As [`parse_into`], header by header.
#[inline(never)]
fn parse_each(bytes: &[u8], length: usize, headers: &mut Headers) -> Result<(), Stop> {
    let frame = View::of_frame(bytes, length)?;
    let Headers { ether, net, length } = headers;
    ether::parse(frame, ether)?;
    let at = ether.length;
    match ether.ethertype {
        ether::IPV4 | ether::IPV6 => *length = ip(frame, at, ether.ethertype, net)?,
        ether::ARP => {
            *net = Net::Arp(arp::parse(frame, at, [1, 2])?);
            *length = at + arp::LENGTH;
        }
        ether::RARP => {
            *net = Net::Rarp(arp::parse(frame, at, [3, 4])?);
            *length = at + arp::LENGTH;
        }
        _ => {
            *net = Net::Other;
            *length = frame.end();
        }
    }
    Ok(())
}

/// Reads an IP datagram and says where it ends.
#[inline]
fn ip(frame: View<'_>, at: usize, ethertype: u16, net: &mut Net) -> Result<usize, Stop> {
    // Where the last frame's headers stand everything is written over anyway; blanking costs 30 instructions.
    if !matches!(net, Net::Ip(_)) {
        *net = Net::Ip(Ip::BLANK);
    }
    let Net::Ip(ip) = net else { return Err(Stop::NeedWhole) };
    let datagram = match ethertype {
        ether::IPV4 => ipv4::parse(frame, at, ip)?,
        _ => ipv6::parse(frame, at, ip)?,
    };
    upper(datagram, ip)?;
    Ok(datagram.end())
}

#[inline]
fn upper(datagram: View<'_>, ip: &mut Ip) -> Result<(), Stop> {
    let is_v4 = ip.source.is_v4();
    let of_the_other_family = match ip.protocol {
        Protocol::ICMP => !is_v4,
        Protocol::ICMPV6 => is_v4,
        _ => false,
    };
    if of_the_other_family {
        return Err(Malformed::IcmpFamily.into());
    }
    if ip.fragment.is_some() {
        datagram.message(ip.l4_offset)?;
        ip.l4 = L4::Fragment;
        return Ok(());
    }
    match ip.protocol {
        Protocol::TCP => tcp::parse(datagram, ip)?,
        Protocol::UDP => udp::parse(datagram, ip)?,
        Protocol::ICMP => ip.l4 = icmp::parse(datagram, ip)?,
        Protocol::ICMPV6 => ip.l4 = icmp::parse_v6(datagram, ip)?,
        Protocol::IGMP if is_v4 => ip.l4 = L4::Group(group::igmp(datagram, ip)?),
        Protocol::IGMP => return Err(Malformed::GroupKind.into()),
        _ => ip.l4 = L4::Other,
    }
    Ok(())
}

impl Ip {
    /// Of no datagram; to be written over.
    const BLANK: Self = Self {
        source: Addr::from_bits(0),
        destination: Addr::from_bits(0),
        protocol: Protocol(0),
        hop_limit: 0,
        router_alert: false,
        offset: 0,
        l4_offset: 0,
        fragment: None,
        l4: L4::Other,
    };
}

impl Headers {
    /// Of no frame; to be written over.
    pub(crate) const BLANK: Self = Self {
        ether: Ether {
            destination: MacAddr([0; 6]),
            source: MacAddr([0; 6]),
            vlan: None,
            ethertype: 0,
            length: 0,
        },
        net: Net::Other,
        length: 0,
    };

    /// The key of the frame's flow, for a frame that goes `direction`. `None` for a fragment and for what is not IP.
    pub(crate) fn flow(&self, direction: Direction) -> Option<FlowKey> {
        let Net::Ip(ip) = &self.net else { return None };
        let (source_port, destination_port) = match ip.l4 {
            L4::Tcp(Tcp { source_port, destination_port, .. })
            | L4::Udp(Udp { source_port, destination_port, .. }) => (source_port, destination_port),
            L4::Icmp(Icmp { message: IcmpMessage::EchoRequest { id }, .. }) => (id, 0),
            L4::Icmp(Icmp { message: IcmpMessage::EchoReply { id }, .. }) => (0, id),
            L4::Icmp(_) | L4::Group(_) | L4::Other => (0, 0),
            L4::Fragment => return None,
        };
        let Ip { source, destination, protocol, .. } = *ip;
        let vlan = self.ether.vlan.unwrap_or(0);
        Some(match direction {
            Direction::Out => FlowKey {
                local: source,
                remote: destination,
                local_port: source_port,
                remote_port: destination_port,
                protocol,
                vlan,
            },
            Direction::In => FlowKey {
                local: destination,
                remote: source,
                local_port: destination_port,
                remote_port: source_port,
                protocol,
                vlan,
            },
        })
    }
}
