//! Who the NIC is and who its known neighbours are, laid out for comparing.
//!
//! Knows what the control plane gave. Never knows a frame.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use fw_model::{Addr, Binding, Cidr, LinkLocal, MacAddr, NicIdentity, VlanId};
use siphasher::sip::SipHasher13;

/// `fe80::/64`, the only link-local prefix in use (RFC 4291 section 2.5.6).
pub(super) fn is_link_local(addr: Addr) -> bool {
    addr.bits() >> 64 == 0xfe80 << 48
}

/// Everything the NIC may call itself.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) mac: MacAddr,
    pub(super) vlan: Option<u16>,
    /// Single addresses, sorted; none of them shared.
    hosts: Vec<Addr>,
    prefixes: Vec<Cidr>,
    any_link_local: bool,
    shared: Vec<Binding>,
}

impl Identity {
    pub(super) fn new(nic: &NicIdentity) -> Self {
        let (single, prefixes): (Vec<Cidr>, _) = nic.addresses.iter().partition(|own| own.is_host());
        let mut hosts: Vec<Addr> = single.into_iter().map(Cidr::network).collect();
        match &nic.link_local {
            LinkLocal::Eui64 => hosts.push(Addr::link_local_eui64(nic.mac.0)),
            LinkLocal::Any => {}
            LinkLocal::Addresses(list) => hosts.extend(list),
        }
        hosts.retain(|own| nic.shared.iter().all(|binding| binding.address != *own));
        hosts.sort_unstable();
        Self {
            mac: nic.mac,
            vlan: nic.vlan.map(VlanId::get),
            hosts,
            prefixes,
            any_link_local: nic.link_local == LinkLocal::Any,
            shared: nic.shared.clone(),
        }
    }

    /// Its MAC address or one that goes with a shared address.
    pub(super) fn is_own_mac(&self, mac: MacAddr) -> bool {
        mac == self.mac || self.shared.iter().any(|binding| binding.mac == mac)
    }

    pub(super) fn hosts(&self) -> &[Addr] {
        &self.hosts
    }

    /// Whether it may say `addr` from `mac` (one of its own). A shared address goes with its one MAC address; others
    /// go with any, for VRRP routers advertise from their primary address with the virtual MAC (RFC 9568 section 7.2).
    pub(super) fn may_use(&self, addr: Addr, mac: MacAddr) -> bool {
        self.shared_mac(addr).map_or_else(|| self.holds(addr), |bound| bound == mac)
    }

    /// The MAC address it uses `addr` with.
    pub(super) fn mac_for(&self, addr: Addr) -> MacAddr {
        self.shared_mac(addr).unwrap_or(self.mac)
    }

    /// Whether frames to `addr` may be for it.
    pub(super) fn answers_to(&self, addr: Addr) -> bool {
        self.holds(addr) || self.shared_mac(addr).is_some()
    }

    /// Its IPv4 address, if it has one, routes nothing and shares nothing.
    pub(super) fn only_v4_host(&self) -> Option<Addr> {
        let mut own = self.hosts.iter().copied().filter(|own| own.is_v4());
        let first = own.next()?;
        (own.next().is_none() && self.prefixes.is_empty() && self.shared.is_empty()).then_some(first)
    }

    /// Whether `addr` is the NIC's alone: one of its single addresses, and not a shared one.
    pub(super) fn is_host(&self, addr: Addr) -> bool {
        self.hosts.first() == Some(&addr) || self.hosts.binary_search(&addr).is_ok()
    }

    /// Whether `addr` lies behind it, in a prefix it routes. A default route (a guest that routes everything) and a
    /// shared address claim nothing for the NIC alone.
    pub(super) fn routes(&self, addr: Addr) -> bool {
        let routed = |own: &Cidr| own.contains(addr) && own.length() > if addr.is_v4() { 96 } else { 0 };
        self.prefixes.iter().any(routed) && self.shared_mac(addr).is_none()
    }

    /// Whether `addr` may be the broadcast address of a network the NIC has an IPv4 address in: it ends in ones, at
    /// least two (RFC 3021), and agrees in everything before them. The prefix length itself is not known here.
    pub(super) fn may_be_broadcast(&self, addr: Addr) -> bool {
        let ones = addr.bits().trailing_ones();
        let same_network = |own: Addr| own.is_v4() && (own.bits() ^ addr.bits()) >> ones.min(32) == 0;
        let own = self.hosts.iter().copied().chain(self.prefixes.iter().map(|prefix| prefix.network()));
        addr.is_v4() && ones >= 2 && own.chain(self.shared.iter().map(|b| b.address)).any(same_network)
    }

    fn holds(&self, addr: Addr) -> bool {
        self.is_host(addr)
            || self.prefixes.iter().any(|own| own.contains(addr))
            || (self.any_link_local && is_link_local(addr))
    }

    fn shared_mac(&self, addr: Addr) -> Option<MacAddr> {
        self.shared.iter().find(|binding| binding.address == addr).map(|binding| binding.mac)
    }
}

/// Neighbours' addresses whose MAC address the control plane knows. Its keys are ours, so a fixed hash key is safe.
#[derive(Debug)]
pub(super) struct Peers(HashMap<Addr, MacAddr, BuildHasherDefault<SipHasher13>>);

impl Peers {
    /// The first binding of an address counts.
    pub(super) fn new(bindings: impl Iterator<Item = (Addr, MacAddr)>) -> Self {
        let mut peers = HashMap::default();
        for (address, mac) in bindings {
            peers.entry(address).or_insert(mac);
        }
        Self(peers)
    }

    /// Whether `addr` may stand beside `mac`: it is bound to it, or to nothing.
    pub(super) fn agree(&self, addr: Addr, mac: MacAddr) -> bool {
        self.0.get(&addr).is_none_or(|bound| *bound == mac)
    }

    /// The MAC address `addr` is bound to.
    pub(super) fn mac_of(&self, addr: Addr) -> Option<MacAddr> {
        self.0.get(&addr).copied()
    }

    /// Whether `addr` is known to be `mac`'s.
    pub(super) fn knows(&self, addr: Addr, mac: MacAddr) -> bool {
        self.0.get(&addr) == Some(&mac)
    }
}
