//! The NIC of these tests is 10.0.0.10 and 2001:db8:0:1::10 at 52:54:00:00:00:01; its router ends in :fe, a neighbour
//! in :02.

mod address;
mod neighbour;
mod plain;
mod service;

use std::sync::Arc;

use fw_model::{AddressSet, Binding, Cidr, LinkLocal, Member, NicIdentity, Protocol, VlanId};

use super::*;
use crate::fixture;
use crate::headers::{Arp, Dhcp, Icmp, Nd, NdKind, Tcp, TcpFlags, Udp};

pub(super) const GUEST: &str = "52:54:00:00:00:01";
pub(super) const ROUTER: &str = "52:54:00:00:00:fe";
pub(super) const NEIGHBOUR: &str = "52:54:00:00:00:02";
pub(super) const VIRTUAL: &str = "00:00:5e:00:01:05";
pub(super) const BROADCAST: &str = "ff:ff:ff:ff:ff:ff";
pub(super) const ALL_NODES: &str = "33:33:00:00:00:01";

pub(super) const OUR4: &str = "10.0.0.10";
pub(super) const OUR6: &str = "2001:db8:0:1::10";
pub(super) const OUR_LINK_LOCAL: &str = "fe80::5054:ff:fe00:1";
pub(super) const ROUTER_LINK_LOCAL: &str = "fe80::5054:ff:fe00:fe";
pub(super) const NEIGHBOUR4: &str = "10.0.0.20";
pub(super) const NEIGHBOUR6: &str = "2001:db8:0:1::20";
pub(super) const FAR4: &str = "198.51.100.7";
pub(super) const FAR6: &str = "2001:db8:ffff::7";
pub(super) const VIP: &str = "10.0.0.5";

pub(super) const OUT: Direction = Direction::Out;
pub(super) const IN: Direction = Direction::In;

pub(super) fn mac(text: &str) -> MacAddr {
    text.parse().unwrap()
}

pub(super) fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

pub(super) fn binding(address: &str, holder: &str) -> Binding {
    Binding { address: addr(address), mac: mac(holder) }
}

pub(super) fn nic() -> NicIdentity {
    fixture::nic("web-1", mac(GUEST), &[OUR4, OUR6])
}

/// The guard of a NIC that `change` made different.
pub(super) fn guard_of(change: impl FnOnce(&mut NicIdentity)) -> Guard {
    let mut nic = nic();
    change(&mut nic);
    Guard::new(&fixture::rules(nic))
}

pub(super) fn guard() -> Guard {
    guard_of(|_| {})
}

/// A frame: MAC addresses `from -> to` around `net`.
pub(super) fn frame(from: &str, to: &str, net: Net) -> Headers {
    let ethertype = match &net {
        Net::Arp(_) => 0x0806,
        Net::Rarp(_) => 0x8035,
        Net::Ip(ip) if ip.source.is_v4() && ip.destination.is_v4() => 0x0800,
        Net::Ip(_) => 0x86dd,
        Net::Other => 0x88b5,
    };
    let ether = Ether { destination: mac(to), source: mac(from), vlan: None, ethertype, length: 14 };
    Headers { ether, net, length: 60 }
}

/// A datagram `source -> destination`.
pub(super) fn ip(source: Addr, destination: Addr, l4: L4) -> Net {
    let protocol = match &l4 {
        L4::Tcp(_) => Protocol::TCP,
        L4::Udp(_) => Protocol::UDP,
        L4::Icmp(_) | L4::Group(_) | L4::Other | L4::Fragment => Protocol(0),
    };
    Net::Ip(Ip {
        source,
        destination,
        protocol,
        hop_limit: 64,
        router_alert: false,
        offset: 14,
        l4_offset: 34,
        fragment: None,
        l4,
    })
}

pub(super) fn tcp() -> L4 {
    L4::Tcp(Tcp {
        source_port: 50_000,
        destination_port: 80,
        sequence: 1,
        acknowledgement: 0,
        flags: TcpFlags(TcpFlags::SYN),
        window: 64_240,
        window_scale: None,
        payload: 0,
        header: 20,
    })
}

pub(super) fn udp(source_port: u16, destination_port: u16, dhcp: Option<Dhcp>) -> L4 {
    L4::Udp(Udp { source_port, destination_port, checksum: 1, dhcp })
}

pub(super) fn icmp(kind: u8, message: IcmpMessage) -> L4 {
    L4::Icmp(Icmp { kind, code: 0, message })
}

/// A neighbour discovery message; `options` are the source and target link-layer address.
pub(super) fn nd(kind: NdKind, target: Option<&str>, options: [Option<&str>; 2]) -> L4 {
    let [source_mac, target_mac] = options.map(|option| option.map(mac));
    let number = match kind {
        NdKind::RouterSolicitation => 133,
        NdKind::RouterAdvertisement => 134,
        NdKind::NeighbourSolicitation => 135,
        NdKind::NeighbourAdvertisement => 136,
    };
    icmp(number, IcmpMessage::Nd(Nd { kind, target: target.map(addr), source_mac, target_mac }))
}

/// TCP from us to `destination` and back in the ordinary way.
pub(super) fn tcp_out(destination: &str) -> Headers {
    let source = if addr(destination).is_v4() { OUR4 } else { OUR6 };
    frame(GUEST, ROUTER, ip(addr(source), addr(destination), tcp()))
}

pub(super) fn tcp_in(source: &str) -> Headers {
    let destination = if addr(source).is_v4() { OUR4 } else { OUR6 };
    frame(ROUTER, GUEST, ip(addr(source), addr(destination), tcp()))
}

pub(super) fn allowed(rule: GuardRule) -> Result<Cleared, Refusal> {
    Ok(Cleared::Allowed(rule))
}

pub(super) fn refused(reason: Reason, rule: GuardRule) -> Result<Cleared, Refusal> {
    Err(Refusal { reason, rule })
}

pub(super) const ASK: Result<Cleared, Refusal> = Ok(Cleared::Ask);

#[test]
fn ordinary_traffic_is_for_the_rules() {
    for far in [FAR4, FAR6] {
        assert_eq!(guard().check(OUT, &tcp_out(far)), ASK);
        assert_eq!(guard().check(IN, &tcp_in(far)), ASK);
    }
    assert_eq!(guard().check(OUT, &frame(GUEST, NEIGHBOUR, Net::Other)), ASK);
}

#[test]
fn the_guest_speaks_with_its_own_mac_address_only() {
    for source in [NEIGHBOUR, "00:00:00:00:00:00", "53:54:00:00:00:01", BROADCAST, VIRTUAL] {
        let spoofed = frame(source, ROUTER, ip(addr(OUR4), addr(FAR4), tcp()));
        assert_eq!(
            guard().check(OUT, &spoofed),
            refused(Reason::SourceMacSpoofed, GuardRule::Mac),
            "{source}"
        );
    }
}

#[test]
fn nothing_from_the_network_has_our_mac_address_or_a_group_as_its_source() {
    for source in [GUEST, BROADCAST, "01:00:5e:00:00:01"] {
        let impossible = frame(source, GUEST, ip(addr(FAR4), addr(OUR4), tcp()));
        assert_eq!(
            guard().check(IN, &impossible),
            refused(Reason::SourceMacImpossible, GuardRule::Mac),
            "{source}"
        );
    }
}

#[test]
fn a_flooded_frame_for_another_mac_address_is_not_for_us() {
    let flooded = frame(ROUTER, NEIGHBOUR, ip(addr(FAR4), addr(NEIGHBOUR4), tcp()));
    assert_eq!(guard().check(IN, &flooded), refused(Reason::NotForUs, GuardRule::Mac));
}

#[test]
fn reserved_groups_are_crossed_neither_way() {
    for last in ["00", "01", "02", "03", "0e", "0f"] {
        let to = format!("01:80:c2:00:00:{last}");
        let refusal = refused(Reason::ReservedGroup, GuardRule::Mac);
        assert_eq!(guard().check(OUT, &frame(GUEST, &to, Net::Other)), refusal, "{to}");
        assert_eq!(guard().check(IN, &frame(ROUTER, &to, Net::Other)), refusal, "{to}");
    }
    assert_eq!(guard().check(OUT, &frame(GUEST, "01:80:c2:00:00:10", Net::Other)), ASK);
}

#[test]
fn the_vlan_tag_is_exactly_the_nics_own() {
    let tagged = guard_of(|nic| nic.vlan = Some(VlanId::try_from(30).unwrap()));
    for (guard, carried, fits) in [
        (guard(), None, true),
        (guard(), Some(30), false),
        (guard_of(|nic| nic.vlan = Some(VlanId::try_from(30).unwrap())), None, false),
        (guard_of(|nic| nic.vlan = Some(VlanId::try_from(30).unwrap())), Some(31), false),
        (tagged, Some(30), true),
    ] {
        for (direction, mut headers) in [(OUT, tcp_out(FAR4)), (IN, tcp_in(FAR4))] {
            headers.ether.vlan = carried;
            let expected = if fits { ASK } else { refused(Reason::VlanRefused, GuardRule::Vlan) };
            assert_eq!(guard.check(direction, &headers), expected, "{carried:?}");
        }
    }
}

#[test]
fn every_guard_rule_has_a_name_of_its_own() {
    let mut names: Vec<_> = GuardRule::ALL.iter().map(|rule| rule.name()).collect();
    assert!(names.iter().all(|name| name.starts_with("guard/")));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), GuardRule::ALL.len());
}

/// A rule set whose members have MAC addresses.
pub(super) fn guard_with_member(address: &str, holder: &str, change: impl FnOnce(&mut NicIdentity)) -> Guard {
    let mut nic = nic();
    change(&mut nic);
    let mut rules = fixture::rules(nic);
    let member = Member { prefix: Cidr::host(addr(address)), mac: Some(mac(holder)) };
    rules.address_sets.insert("app".parse().unwrap(), Arc::new(AddressSet { members: vec![member] }));
    Guard::new(&rules)
}

pub(super) fn arp(operation: u16, sender_mac: &str, sender: &str, target: &str) -> Arp {
    Arp {
        operation,
        sender_mac: mac(sender_mac),
        sender: addr(sender),
        target_mac: MacAddr([0; 6]),
        target: addr(target),
    }
}
