//! The frame that nearly every frame is: between this NIC's one IPv4 address and another host's, each with its MAC address.
//!
//! Says so in a few steps, and leaves every other frame, right or wrong, to the stations of guard. Knows the NIC's one
//! address. Never refuses anything.

use fw_model::{Addr, Direction, MacAddr};

use super::address::are_two_v4_hosts;
use super::identity::Identity;
use crate::headers::{Headers, L4, Net};

/// A NIC that has one IPv4 address, routes nothing and shares nothing.
#[derive(Debug)]
pub(super) struct Plain {
    mac: MacAddr,
    vlan: Option<u16>,
    address: Addr,
}

impl Plain {
    /// `None` if the NIC is more than that.
    pub(super) fn new(identity: &Identity) -> Option<Self> {
        let address = identity.only_v4_host()?;
        let is_unicast = !identity.mac.is_group();
        is_unicast.then_some(Self { mac: identity.mac, vlan: identity.vlan, address })
    }

    /// The other end of a frame that guard finds nothing wrong with and leaves to conns and rules, if the other end's
    /// addresses agree. `None` means nothing.
    #[inline]
    pub(super) fn peer(&self, direction: Direction, headers: &Headers) -> Option<(Addr, MacAddr)> {
        let Net::Ip(ip) = &headers.net else { return None };
        let ether = &headers.ether;
        let (own, peer) = ((ip.source, ether.source), (ip.destination, ether.destination));
        let (own, peer) = if direction == Direction::Out { (own, peer) } else { (peer, own) };
        let is_ordinary = match &ip.l4 {
            L4::Tcp(_) => true,
            L4::Udp(udp) => udp.dhcp.is_none(),
            L4::Icmp(_) | L4::Group(_) | L4::Other | L4::Fragment => false,
        };
        let is_ours = own == (self.address, self.mac) && ether.vlan == self.vlan;
        let is_another = peer.1 != self.mac && !peer.1.is_group() && are_two_v4_hosts(ether, ip);
        (is_ordinary && is_ours && is_another).then_some(peer)
    }
}
