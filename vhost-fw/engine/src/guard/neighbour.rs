//! ARP, RARP and neighbour discovery: who says which address has which MAC address.
//!
//! Knows the claims in these messages. Never knows what a guest or a neighbour said before.

use fw_model::{Addr, Direction, MacAddr, Reason};

use super::address::{can_be_host, is_unspecified};
use super::{Checked, Cleared, Guard, GuardRule, require};
use crate::headers::{Arp, Ether, Ip, Nd, NdKind};

const ARP_REQUEST: u16 = 1;
const RARP_REQUEST: u16 = 3;

impl Guard {
    pub(super) fn check_arp(&self, direction: Direction, ether: &Ether, arp: &Arp) -> Checked<Cleared> {
        let (reason, rule) = (Reason::ArpSpoofed, GuardRule::Arp);
        // RFC 5227 section 1.1: a probe asks from 0.0.0.0, so that it claims nothing.
        let probe = is_unspecified(arp.sender) && arp.operation == ARP_REQUEST;
        let destination = ether.destination;
        let sane = (probe || can_be_host(arp.sender))
            && (can_be_host(arp.target) || is_unspecified(arp.target))
            && (!destination.is_group() || destination == MacAddr::BROADCAST);
        require(sane, Reason::Martian, GuardRule::Sane)?;
        require(arp.sender_mac == ether.source, reason, rule)?;
        let honest = match direction {
            // A probe for somebody else's address would look like a conflict to a neighbour that probes it too.
            Direction::Out => {
                self.identity.may_use(if probe { arp.target } else { arp.sender }, arp.sender_mac)
            }
            Direction::In => self.is_honest_claim(arp.sender, arp.sender_mac),
        };
        require(honest, reason, rule)?;
        Ok(Cleared::Allowed(rule))
    }

    /// RARP announces where a MAC address is (hypervisors do so after a migration); nobody serves it any more.
    pub(super) fn check_rarp(&self, direction: Direction, rarp: &Arp) -> Checked<Cleared> {
        let (reason, rule) = (Reason::RarpSpoofed, GuardRule::Rarp);
        let mac = self.identity.mac;
        match direction {
            Direction::Out => {
                let own = rarp.operation == RARP_REQUEST
                    && rarp.sender_mac == mac
                    && rarp.target_mac == mac
                    && (is_unspecified(rarp.sender) || self.identity.may_use(rarp.sender, mac));
                require(own, reason, rule)?;
                Ok(Cleared::Allowed(rule))
            }
            Direction::In => {
                require(rarp.sender_mac != mac && rarp.target_mac != mac, reason, rule)?;
                Ok(Cleared::Ask)
            }
        }
    }

    pub(super) fn check_nd(&self, direction: Direction, ether: &Ether, ip: &Ip, nd: &Nd) -> Checked<Cleared> {
        let options = [nd.source_mac, nd.target_mac];
        let honest = options.into_iter().flatten().all(|mac| mac == ether.source);
        require(honest, Reason::NdSpoofed, GuardRule::Nd)?;
        match nd.kind {
            NdKind::RouterSolicitation => Ok(match direction {
                Direction::Out => Cleared::Allowed(GuardRule::Ra),
                Direction::In => Cleared::Ask,
            }),
            NdKind::RouterAdvertisement => self.check_router(direction, ether, ip),
            NdKind::NeighbourSolicitation => self.check_solicitation(direction, ether, ip, nd),
            NdKind::NeighbourAdvertisement => self.check_advertisement(direction, ether, nd),
        }
    }

    fn check_router(&self, direction: Direction, ether: &Ether, ip: &Ip) -> Checked<Cleared> {
        // A list that names no IPv6 address still says which MAC addresses gateways have.
        let by_address = self.gateways.iter().any(|(address, _)| !address.is_v4());
        let is_it =
            |(address, mac): &(Addr, MacAddr)| *mac == ether.source && (!by_address || *address == ip.source);
        let known = self.gateways.is_empty() || self.gateways.iter().any(is_it);
        let router = direction == Direction::In && known;
        require(router, Reason::RouterRefused, GuardRule::Ra)?;
        Ok(Cleared::Allowed(GuardRule::Ra))
    }

    /// A solicitation claims its source, which is checked already. From `::` it claims its target
    /// (RFC 4862 section 5.4.2): our guest may do so for an address of its own, and a neighbour for any, ours
    /// included, or a real duplicate would never be found.
    fn check_solicitation(&self, direction: Direction, ether: &Ether, ip: &Ip, nd: &Nd) -> Checked<Cleared> {
        let claimed = nd.target.filter(|_| is_unspecified(ip.source));
        let honest = direction == Direction::In
            || claimed.is_none_or(|target| self.identity.may_use(target, ether.source));
        require(honest, Reason::NdSpoofed, GuardRule::Nd)?;
        Ok(Cleared::Allowed(GuardRule::Nd))
    }

    fn check_advertisement(&self, direction: Direction, ether: &Ether, nd: &Nd) -> Checked<Cleared> {
        let honest = nd.target.is_some_and(|target| match direction {
            Direction::Out => self.identity.may_use(target, ether.source),
            Direction::In => self.is_honest_claim(target, ether.source),
        });
        require(honest, Reason::NdSpoofed, GuardRule::Nd)?;
        Ok(Cleared::Allowed(GuardRule::Nd))
    }

    /// Whether a neighbour with `mac` may say that `addr` is its own.
    fn is_honest_claim(&self, addr: Addr, mac: MacAddr) -> bool {
        !self.claims_ours(addr, mac) && self.peers.agree(addr, mac)
    }
}
