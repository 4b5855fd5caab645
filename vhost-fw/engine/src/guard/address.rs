//! Which addresses may stand where: martians, the NIC's own, and neighbours with a known MAC address.
//!
//! Knows IP and Ethernet addresses of one frame. Never knows what the frame says beyond who may say it from the
//! unspecified address.

use fw_model::{Addr, Direction, MacAddr, Reason};

use super::{Checked, Guard, GuardRule, require};
use crate::headers::{Dhcp, Ether, GroupMessage, IcmpMessage, Ip, L4, NdKind};

const ETHERTYPE_IPV6: u16 = 0x86dd;
const V4_UNSPECIFIED: u32 = 0;
const V4_BROADCAST: u32 = u32::MAX;

impl Guard {
    pub(super) fn check_addresses(&self, direction: Direction, ether: &Ether, ip: &Ip) -> Checked<()> {
        check_martian(direction, ether, ip)?;
        match direction {
            Direction::Out => {
                // The unspecified source got this far only where it belongs.
                let own = self.identity.may_use(ip.source, ether.source) || is_unspecified(ip.source);
                require(own, Reason::SourceAddressSpoofed, GuardRule::Address)?;
            }
            Direction::In => {
                let own = self.claims_ours(ip.source, ether.source);
                require(!own, Reason::Martian, GuardRule::Sane)?;
                let ours = is_group(ip.destination)
                    || self.identity.answers_to(ip.destination)
                    || (ether.destination == MacAddr::BROADCAST
                        && self.identity.may_be_broadcast(ip.destination));
                require(ours, Reason::AddressNotOurs, GuardRule::Address)?;
            }
        }
        require(self.fits_group(ether.destination, ip), Reason::Martian, GuardRule::Sane)?;
        let known = match direction {
            Direction::In => self.peers.agree(ip.source, ether.source),
            Direction::Out => {
                ether.destination.is_group() || self.peers.agree(ip.destination, ether.destination)
            }
        };
        require(known, Reason::PeerSpoofed, GuardRule::Peer)
    }

    /// Whether somebody else with `mac` calls itself by an address that is the NIC's. Inside a prefix the NIC routes,
    /// a neighbour that the control plane knows keeps its own.
    pub(super) fn claims_ours(&self, addr: Addr, mac: MacAddr) -> bool {
        self.identity.is_host(addr) || (self.identity.routes(addr) && !self.peers.knows(addr, mac))
    }

    /// Whether a frame to this group MAC address may carry this destination. A unicast datagram in a group frame
    /// reaches hosts that a unicast frame would not ("Hole 196"); DHCP servers do that to clients without an
    /// address, and nobody else. Multicast in a unicast frame is sound (RFC 6085).
    fn fits_group(&self, mac: MacAddr, ip: &Ip) -> bool {
        if !mac.is_group() {
            return true;
        }
        let broadcast = mac == MacAddr::BROADCAST;
        if is_group(ip.destination) {
            return broadcast || group_mac(ip.destination) == Some(mac);
        }
        let dhcp = matches!(ip.l4, L4::Udp(udp) if udp.dhcp.is_some());
        broadcast && ip.destination.is_v4() && (dhcp || self.identity.may_be_broadcast(ip.destination))
    }
}

#[inline]
fn check_martian(direction: Direction, ether: &Ether, ip: &Ip) -> Checked<()> {
    let sane = are_two_v4_hosts(ether, ip) || is_sane(direction, ether, ip);
    require(sane, Reason::Martian, GuardRule::Sane)
}

/// What nearly every frame has; [`is_sane`] would find nothing wrong with it.
#[inline]
pub(super) fn are_two_v4_hosts(ether: &Ether, ip: &Ip) -> bool {
    match (v4(ip.source), v4(ip.destination)) {
        (Some(source), Some(destination)) => {
            ether.ethertype != ETHERTYPE_IPV6
                && can_be_v4_host(source)
                && can_be_v4_host(destination)
                && source != destination
        }
        _ => false,
    }
}

#[inline(never)]
fn is_sane(direction: Direction, ether: &Ether, ip: &Ip) -> bool {
    let (source, destination) = (ip.source, ip.destination);
    // A mapped address on the wire would look like IPv4 to everything behind.
    let mapped = ether.ethertype == ETHERTYPE_IPV6 && (source.is_v4() || destination.is_v4());
    let source_fits = can_be_host(source) || (is_unspecified(source) && may_be_unspecified(direction, ip));
    let destination_fits = can_be_host(destination) || can_be_group(destination);
    !mapped && source_fits && destination_fits && source != destination
}

/// What may come from `0.0.0.0` or `::`: a DHCP client's broadcasts (RFC 2131 section 4.1), queries of a snooping
/// switch (RFC 4541 section 2.1.1), duplicate address detection and router solicitations (RFC 4861 sections 4.1, 4.3),
/// MLD reports (RFC 3590).
fn may_be_unspecified(direction: Direction, ip: &Ip) -> bool {
    match &ip.l4 {
        L4::Udp(udp) => {
            matches!(udp.dhcp, Some(Dhcp::Client { .. })) && v4(ip.destination) == Some(V4_BROADCAST)
        }
        L4::Group(GroupMessage::Query) => direction == Direction::In && ip.source.is_v4(),
        L4::Group(GroupMessage::Report) => !ip.source.is_v4(),
        L4::Icmp(icmp) => match &icmp.message {
            IcmpMessage::Nd(nd) => {
                matches!(nd.kind, NdKind::NeighbourSolicitation | NdKind::RouterSolicitation)
            }
            IcmpMessage::EchoRequest { .. }
            | IcmpMessage::EchoReply { .. }
            | IcmpMessage::Error(_)
            | IcmpMessage::Redirect
            | IcmpMessage::Other => false,
        },
        L4::Tcp(_) | L4::Other | L4::Fragment => false,
    }
}

#[inline]
fn v4(addr: Addr) -> Option<u32> {
    let [.., a, b, c, d] = addr.bits().to_be_bytes();
    addr.is_v4().then(|| u32::from_be_bytes([a, b, c, d]))
}

pub(super) fn is_unspecified(addr: Addr) -> bool {
    addr.bits() == 0 || v4(addr) == Some(V4_UNSPECIFIED)
}

/// Whether a single host may have this address: not "this network", loopback, a group or reserved (RFC 6890); in IPv6
/// not `::/96` either, which holds the unspecified, loopback and IPv4-compatible addresses (RFC 4291 section 2.5).
pub(super) fn can_be_host(addr: Addr) -> bool {
    match v4(addr) {
        Some(v4) => can_be_v4_host(v4),
        None => addr.bits() >> 32 != 0 && addr.bits() >> 120 != 0xff,
    }
}

#[inline]
const fn can_be_v4_host(v4: u32) -> bool {
    let network = v4 >> 24;
    network != 127 && network.wrapping_sub(1) < 223
}

/// Multicast or the limited broadcast.
pub(super) fn is_group(addr: Addr) -> bool {
    match v4(addr) {
        Some(v4) => v4 >> 28 == 0xe || v4 == V4_BROADCAST,
        None => addr.bits() >> 120 == 0xff,
    }
}

/// A group that may be on a wire: IPv6 scope 0 is reserved and scope 1 never leaves a node (RFC 4291 section 2.7).
fn can_be_group(addr: Addr) -> bool {
    is_group(addr) && (addr.is_v4() || addr.bits() >> 112 & 0xf > 1)
}

/// The MAC address a multicast destination maps to (RFC 1112 section 6.4, RFC 2464 section 7).
fn group_mac(addr: Addr) -> Option<MacAddr> {
    let [.., a, b, c, d] = addr.bits().to_be_bytes();
    match v4(addr) {
        Some(V4_BROADCAST) => None,
        Some(_) => Some(MacAddr([0x01, 0x00, 0x5e, b & 0x7f, c, d])),
        None => Some(MacAddr([0x33, 0x33, a, b, c, d])),
    }
}
