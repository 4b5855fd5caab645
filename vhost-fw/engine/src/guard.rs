//! May this NIC say this, and may this reach it?
//!
//! Compares a frame's headers with who the NIC is, and lets pass what every NIC needs: ARP, ND, DHCP, router and
//! group messages. Knows the NIC's identity from the control plane. Never knows what came before, nor the rules.

mod address;
mod identity;
mod neighbour;
mod plain;
mod service;
#[cfg(test)]
mod tests;

use fw_model::{Addr, Direction, FlowKey, GuardSwitches, MacAddr, Reason, RuleSet};

use crate::headers::{Ether, Headers, IcmpMessage, Ip, L4, Net};
use identity::{Identity, Peers};
use plain::Plain;

/// The built-in rules, visible as `guard/*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuardRule {
    /// Frames that make no sense on any NIC (malformed, martian).
    Sane,
    Mac,
    Vlan,
    Address,
    Peer,
    Arp,
    Nd,
    Dhcp,
    Ra,
    Mld,
    Rarp,
}

impl GuardRule {
    pub(crate) const ALL: [Self; 11] = [
        Self::Sane,
        Self::Mac,
        Self::Vlan,
        Self::Address,
        Self::Peer,
        Self::Arp,
        Self::Nd,
        Self::Dhcp,
        Self::Ra,
        Self::Mld,
        Self::Rarp,
    ];

    /// Its rule id.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sane => "guard/sane",
            Self::Mac => "guard/mac",
            Self::Vlan => "guard/vlan",
            Self::Address => "guard/address",
            Self::Peer => "guard/peer",
            Self::Arp => "guard/arp",
            Self::Nd => "guard/nd",
            Self::Dhcp => "guard/dhcp",
            Self::Ra => "guard/ra",
            Self::Mld => "guard/mld",
            Self::Rarp => "guard/rarp",
        }
    }
}

/// A frame that guard does not refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cleared {
    /// Built-in: it passes, makes no conn and asks no rule.
    Allowed(GuardRule),
    /// Conns and rules decide.
    Ask,
}

/// A frame that guard refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) rule: GuardRule,
}

/// What guard makes of a frame.
type Checked<T> = Result<T, Refusal>;

/// Refuses a frame unless `holds`.
fn require(holds: bool, reason: Reason, rule: GuardRule) -> Checked<()> {
    if holds { Ok(()) } else { Err(Refusal { reason, rule }) }
}

/// One NIC's identity, made ready to compare.
#[derive(Debug)]
pub(crate) struct Guard {
    /// If it is no more than that.
    plain: Option<Plain>,
    identity: Identity,
    peers: Peers,
    switches: GuardSwitches,
    /// The only routers, with their MAC addresses; none given = any.
    gateways: Vec<(Addr, MacAddr)>,
    /// The only DHCP servers; none of a family given = any.
    dhcp_servers: Vec<Addr>,
}

impl Guard {
    pub(crate) fn new(rules: &RuleSet) -> Self {
        let nic = &rules.nic;
        let identity = Identity::new(nic);
        Self {
            plain: Plain::new(&identity),
            identity,
            peers: Peers::new(rules.bindings().filter(|(_, mac)| *mac != nic.mac)),
            switches: nic.guard,
            gateways: nic.gateways.iter().map(|gateway| (gateway.address, gateway.mac)).collect(),
            dhcp_servers: nic.dhcp_servers.clone(),
        }
    }

    /// Judges a frame by who may say it. A fragment is judged by its Ethernet and IP headers here, and again as the
    /// datagram it becomes.
    #[inline]
    pub(crate) fn check(&self, direction: Direction, headers: &Headers) -> Result<Cleared, Refusal> {
        let peer = self.plain.as_ref().and_then(|plain| plain.peer(direction, headers));
        match peer {
            Some((address, mac)) if self.peers.agree(address, mac) => Ok(Cleared::Ask),
            _ => self.check_each(direction, headers),
        }
    }

    /// As [`Guard::check`], station by station.
    #[inline(never)]
    fn check_each(&self, direction: Direction, headers: &Headers) -> Result<Cleared, Refusal> {
        let ether = &headers.ether;
        self.check_ether(direction, ether)?;
        let cleared = match &headers.net {
            Net::Arp(arp) => self.check_arp(direction, ether, arp)?,
            Net::Rarp(rarp) => self.check_rarp(direction, rarp)?,
            Net::Ip(ip) => {
                self.check_addresses(direction, ether, ip)?;
                self.check_message(direction, ether, ip)?
            }
            Net::Other => Cleared::Ask,
        };
        Ok(self.as_switched(cleared))
    }

    /// Whether `addr` is one the NIC may use.
    pub(crate) fn owns(&self, addr: Addr) -> bool {
        self.identity.answers_to(addr)
    }

    /// Whether a conn of `flow`, its other end seen with `peer_mac`, could be this NIC's: what [`Guard::check`] asks of
    /// frames, asked of a conn that no frame opened here.
    pub(crate) fn check_conn(&self, flow: &FlowKey, peer_mac: MacAddr) -> Result<(), Reason> {
        let holds = |holds: bool, reason: Reason| if holds { Ok(()) } else { Err(reason) };
        holds(flow.vlan == self.vlan(), Reason::VlanRefused)?;
        holds(self.owns(flow.local), Reason::AddressNotOurs)?;
        let hosts = address::can_be_host(flow.local) && address::can_be_host(flow.remote);
        holds(hosts && flow.local != flow.remote, Reason::Martian)?;
        holds(!peer_mac.is_group() && peer_mac != self.identity.mac, Reason::SourceMacImpossible)?;
        holds(self.peers.agree(flow.remote, peer_mac), Reason::PeerSpoofed)
    }

    /// The VLAN its frames carry; 0 = untagged.
    pub(crate) fn vlan(&self) -> u16 {
        self.identity.vlan.unwrap_or(0)
    }

    /// The MAC address the NIC uses `addr` with, if that is its own.
    pub(crate) fn own_mac(&self, addr: Addr) -> MacAddr {
        self.identity.mac_for(addr)
    }

    /// The NIC's own MAC address.
    pub(crate) const fn mac(&self) -> MacAddr {
        self.identity.mac
    }

    /// The single addresses that are the NIC's alone.
    pub(crate) fn hosts(&self) -> &[Addr] {
        self.identity.hosts()
    }

    /// The MAC address `addr` is bound to, if it is.
    pub(crate) fn peer_mac(&self, addr: Addr) -> Option<MacAddr> {
        self.peers.mac_of(addr)
    }

    fn check_ether(&self, direction: Direction, ether: &Ether) -> Checked<()> {
        require(ether.vlan == self.identity.vlan, Reason::VlanRefused, GuardRule::Vlan)?;
        let mac = GuardRule::Mac;
        match direction {
            Direction::Out => {
                require(self.identity.is_own_mac(ether.source), Reason::SourceMacSpoofed, mac)?;
            }
            Direction::In => {
                let possible = ether.source != self.identity.mac && !ether.source.is_group();
                require(possible, Reason::SourceMacImpossible, mac)?;
                let ours = ether.destination.is_group() || self.identity.is_own_mac(ether.destination);
                require(ours, Reason::NotForUs, mac)?;
            }
        }
        require(!is_reserved(ether.destination), Reason::ReservedGroup, mac)
    }

    /// What the message behind the IP header may say.
    fn check_message(&self, direction: Direction, ether: &Ether, ip: &Ip) -> Checked<Cleared> {
        match &ip.l4 {
            L4::Udp(udp) => match udp.dhcp {
                Some(dhcp) => self.check_dhcp(direction, ether, ip, udp.source_port, dhcp),
                None => Ok(Cleared::Ask),
            },
            L4::Icmp(icmp) => match &icmp.message {
                IcmpMessage::Redirect => Err(Refusal { reason: Reason::Redirect, rule: GuardRule::Ra }),
                IcmpMessage::Nd(nd) => self.check_nd(direction, ether, ip, nd),
                IcmpMessage::EchoRequest { .. }
                | IcmpMessage::EchoReply { .. }
                | IcmpMessage::Error(_)
                | IcmpMessage::Other => {
                    let advertises = ip.source.is_v4() && icmp.kind == ICMP_ROUTER_ADVERTISEMENT;
                    let allowed = direction == Direction::In || !advertises;
                    require(allowed, Reason::RouterRefused, GuardRule::Ra)?;
                    Ok(Cleared::Ask)
                }
            },
            L4::Group(message) => Self::check_group(direction, ip, *message),
            L4::Tcp(_) | L4::Other | L4::Fragment => Ok(Cleared::Ask),
        }
    }

    /// A switched-off allowance leaves its frames to the rules. What it refuses stays refused: a switch never opens.
    fn as_switched(&self, cleared: Cleared) -> Cleared {
        let Cleared::Allowed(rule) = cleared else { return cleared };
        let on = match rule {
            GuardRule::Arp => self.switches.arp,
            GuardRule::Nd => self.switches.nd,
            GuardRule::Dhcp => self.switches.dhcp,
            GuardRule::Ra => self.switches.ra,
            GuardRule::Mld => self.switches.mld,
            GuardRule::Sane
            | GuardRule::Mac
            | GuardRule::Vlan
            | GuardRule::Address
            | GuardRule::Peer
            | GuardRule::Rarp => true,
        };
        if on { cleared } else { Cleared::Ask }
    }
}

/// ICMP router advertisement (RFC 1256).
const ICMP_ROUTER_ADVERTISEMENT: u8 = 9;

/// IEEE 802.1D table 7-10: link-local control protocols, which no bridge forwards.
fn is_reserved(mac: MacAddr) -> bool {
    let [a, b, c, d, e, last] = mac.0;
    [a, b, c, d, e] == [0x01, 0x80, 0xc2, 0, 0] && last <= 0x0f
}
