//! Who the NIC is and who its neighbours are: on the wire, through the whole engine.
#![cfg(test)]

use fw_engine::{Config, Tick};
use fw_model::Direction;
use fw_tests::places::{
    GUEST_MAC, GUEST_V4, NEIGHBOUR_MAC, NEIGHBOUR_V4, NEIGHBOUR_V6, ROUTER_MAC, guest, guest6, neighbour,
    neighbour6, peer, peer6, rules, rules_for,
};
use fw_tests::script::{CONFIG, Script};
use fw_tests::wire::{self, End, Segment};

const SYN: Segment = Segment::syn(1_000);
const ALL: [u8; 6] = [0xff; 6];
const BOUND: &str = "address-sets: {app: [{address: 10.0.0.20, mac: \"52:54:00:00:00:02\"}]}";

#[test]
fn a_guest_speaks_with_its_own_addresses_alone() {
    let mut nic = Script::new(&rules("allow/allow", &[]));
    let other_mac = End { mac: NEIGHBOUR_MAC, ..guest(9) };
    assert_eq!(nic.out(&wire::udp(&other_mac, &peer(9), b"")), "drop: source-mac-spoofed by guard guard/mac");
    let other_ip = End { ip: NEIGHBOUR_V4.into(), ..guest(9) };
    assert_eq!(
        nic.out(&wire::udp(&other_ip, &peer(9), b"")),
        "drop: source-address-spoofed by guard guard/address"
    );
    let loopback = End { ip: [127, 0, 0, 1].into(), ..guest(9) };
    assert_eq!(nic.out(&wire::udp(&loopback, &peer(9), b"")), "drop: martian by guard guard/sane");
    assert_eq!(nic.out(&[0; 13]), "drop: runt by guard guard/sane");
}

#[test]
fn what_is_not_for_the_guest_does_not_reach_it() {
    let mut nic = Script::new(&rules("allow/allow", &[]));
    let flooded = End { mac: [2, 0, 0, 0, 0, 9], ..guest(9) };
    assert_eq!(nic.in_(&wire::udp(&peer(9), &flooded, b"")), "drop: not-for-us by guard guard/mac");
    let stranger = End { ip: [10, 0, 0, 11].into(), ..guest(9) };
    assert_eq!(
        nic.in_(&wire::udp(&peer(9), &stranger, b"")),
        "drop: address-not-ours by guard guard/address"
    );
    let echoed = End { mac: GUEST_MAC, ..peer(9) };
    assert_eq!(
        nic.in_(&wire::udp(&echoed, &guest(9), b"")),
        "drop: source-mac-impossible by guard guard/mac"
    );
}

#[test]
fn a_bound_neighbour_is_its_address_and_its_mac() {
    let mut nic = Script::new(&rules_for("", BOUND, "allow/allow", &[]));
    assert_eq!(nic.out(&wire::udp(&guest(9), &neighbour(9), b"")), "pass: new by default; opened asked");
    assert_eq!(
        nic.in_(&wire::udp(&neighbour(9), &guest(9), b"")),
        "pass: established by conn; asked -> answered"
    );
    let impostor = End { mac: ROUTER_MAC, ..neighbour(9) };
    assert_eq!(nic.in_(&wire::udp(&impostor, &guest(9), b"")), "drop: peer-spoofed by guard guard/peer");
    assert_eq!(nic.out(&wire::udp(&guest(9), &impostor, b"")), "drop: peer-spoofed by guard guard/peer");
    let claim = wire::arp(2, ROUTER_MAC, NEIGHBOUR_V4, GUEST_MAC, GUEST_V4);
    assert_eq!(nic.in_(&claim), "drop: arp-spoofed by guard guard/arp");
    let honest = wire::arp(2, NEIGHBOUR_MAC, NEIGHBOUR_V4, GUEST_MAC, GUEST_V4);
    assert_eq!(nic.in_(&honest), "pass: guard by guard guard/arp");
}

#[test]
fn neighbours_find_each_other_by_arp_and_nd_and_nobody_lies() {
    let mut nic = Script::new(&rules("drop/drop", &[]));
    assert_eq!(
        nic.out(&wire::arp(1, GUEST_MAC, GUEST_V4, ALL, NEIGHBOUR_V4)),
        "pass: guard by guard guard/arp"
    );
    assert_eq!(
        nic.out(&wire::arp(2, GUEST_MAC, NEIGHBOUR_V4, ROUTER_MAC, GUEST_V4)),
        "drop: arp-spoofed by guard guard/arp"
    );
    assert_eq!(
        nic.in_(&wire::arp(2, NEIGHBOUR_MAC, GUEST_V4, GUEST_MAC, GUEST_V4)),
        "drop: arp-spoofed by guard guard/arp"
    );
    let mut odd = wire::arp(1, GUEST_MAC, GUEST_V4, ALL, NEIGHBOUR_V4);
    odd[21] = 9;
    assert_eq!(nic.out(&odd), "drop: arp-malformed by guard guard/sane");
    assert_eq!(
        nic.out(&wire::solicitation(&guest6(0), &neighbour6(0), NEIGHBOUR_V6)),
        "pass: guard by guard guard/nd"
    );
    assert_eq!(
        nic.in_(&wire::advertisement(&neighbour6(0), &guest6(0), NEIGHBOUR_MAC)),
        "pass: guard by guard guard/nd"
    );
    assert_eq!(
        nic.in_(&wire::advertisement(&neighbour6(0), &guest6(0), ROUTER_MAC)),
        "drop: nd-spoofed by guard guard/nd"
    );
    let ours = End { ip: guest6(0).ip, ..neighbour6(0) };
    let to_all = End { mac: [0x33, 0x33, 0, 0, 0, 1], ip: "ff02::1".parse().unwrap(), port: 0 };
    assert_eq!(
        nic.in_(&wire::advertisement(&ours, &to_all, NEIGHBOUR_MAC)),
        "drop: martian by guard guard/sane"
    );
}

#[test]
fn nd_never_comes_in_fragments() {
    let mut nic = Script::new(&rules("allow/allow", &[]));
    let whole = wire::advertisement(&neighbour6(0), &guest6(0), NEIGHBOUR_MAC);
    let pieces = wire::fragments(&whole, 7, 16);
    assert_eq!(nic.in_(&pieces[0]), "drop: nd-malformed by guard guard/sane");
    assert_eq!(nic.in_(&pieces[1]), "hold: fragment-held by guard");
    assert!(nic.left().is_empty());
}

#[test]
fn a_nic_with_a_vlan_carries_its_tag_and_no_other() {
    let rules = rules_for("vlan: 30", "", "allow/reject", &[]);
    let mut nic = Script::new(&rules);
    let plain = wire::udp(&guest(9), &peer(9), b"x");
    assert_eq!(nic.out(&plain), "drop: vlan-refused by guard guard/vlan");
    assert_eq!(nic.out(&wire::tagged(&plain, 31)), "drop: vlan-refused by guard guard/vlan");
    assert_eq!(nic.out(&wire::tagged(&plain, 0)), "drop: vlan-refused by guard guard/sane");
    assert_eq!(
        nic.out(&wire::tagged(&wire::tagged(&plain, 30), 30)),
        "drop: vlan-refused by guard guard/sane"
    );
    assert_eq!(nic.out(&wire::tagged(&plain, 30)), "pass: new by default; opened asked");
    let answer = wire::udp(&peer(9), &guest(9), b"y");
    assert_eq!(nic.in_(&answer), "drop: vlan-refused by guard guard/vlan");
    assert_eq!(nic.in_(&wire::tagged(&answer, 30)), "pass: established by conn; asked -> answered");
    let error = wire::icmp_error(&peer(0), &guest(0), (3, 1), [0; 4], &plain);
    assert_eq!(nic.in_(&wire::tagged(&error, 30)), "pass: related by conn");
    let refused = wire::tagged(&wire::tcp(&peer(9), &guest(80), &SYN), 30);
    assert_eq!(nic.in_(&refused), "reject: default-reject by default; rst+ack to net");
    assert_eq!(nic.left_to(Direction::Out)[0][12..16], [0x81, 0, 0, 30]);
    let trunk = Script::new(&fw_tests::places::rules("allow/allow", &[])).out(&wire::tagged(&plain, 30));
    assert_eq!(trunk, "drop: vlan-refused by guard guard/vlan");
}

#[test]
fn a_shared_address_goes_with_its_own_mac() {
    let vip = End { mac: [0, 0, 0x5e, 0, 1, 7], ip: [10, 0, 0, 100].into(), port: 80 };
    let nic_has = "shared: [{address: 10.0.0.100, mac: \"00:00:5e:00:01:07\"}]";
    let mut nic = Script::new(&rules_for(
        nic_has,
        "",
        "allow/reject",
        &["id: web, direction: in, action: allow, protocol: tcp, ports: [80]"],
    ));
    assert_eq!(nic.in_(&wire::tcp(&peer(50_000), &vip, &SYN)), "pass: new by rule web; opened syn-sent");
    let answer = Segment { syn: true, ..Segment::ack(9_000, 1_001) };
    let wrong = End { mac: GUEST_MAC, ..vip };
    assert_eq!(
        nic.out(&wire::tcp(&wrong, &peer(50_000), &answer)),
        "drop: source-address-spoofed by guard guard/address"
    );
    assert_eq!(
        nic.out(&wire::tcp(&vip, &peer(50_000), &answer)),
        "pass: established by conn web; syn-sent -> syn-received"
    );
    // Another holder may announce it: then it is the other's, and still no spoof.
    let elsewhere = wire::arp(1, vip.mac, [10, 0, 0, 100].into(), ALL, [10, 0, 0, 100].into());
    assert_eq!(nic.in_(&elsewhere), "pass: guard by guard guard/arp");
    // What ends the conn is said by the address's own MAC.
    let line = nic.install(&rules_for(nic_has, "", "allow/drop", &[])) + &nic.wait_ms(0);
    assert_eq!(line, "rst+ack to guest; rst+ack to net; closed syn-received; swept 2");
    assert_eq!(nic.left_to(Direction::Out)[0][6..12], vip.mac);
    assert_eq!(nic.left_to(Direction::In)[0][..6], vip.mac);
}

#[test]
fn a_routing_guest_speaks_for_its_prefix() {
    let mut nic = Script::new(&rules_for("addresses: [10.0.0.10, 192.0.2.0/24]", "", "allow/allow", &[]));
    let behind = |last, port| End { ip: [192, 0, 2, last].into(), ..guest(port) };
    assert_eq!(nic.out(&wire::udp(&behind(1, 9), &peer(9), b"")), "pass: new by default; opened asked");
    assert_eq!(
        nic.in_(&wire::udp(&peer(9), &behind(1, 9), b"")),
        "pass: established by conn; asked -> answered"
    );
    assert_eq!(nic.in_(&wire::udp(&peer(9), &behind(254, 9), b"")), "pass: new by default; opened asked");
    let outside = End { ip: [192, 0, 3, 1].into(), ..guest(9) };
    assert_eq!(
        nic.out(&wire::udp(&outside, &peer(9), b"")),
        "drop: source-address-spoofed by guard guard/address"
    );
    let stolen = End { ip: [192, 0, 2, 7].into(), ..neighbour(9) };
    assert_eq!(nic.in_(&wire::udp(&stolen, &guest(9), b"")), "drop: martian by guard guard/sane");
}

#[test]
fn a_switched_off_allowance_is_the_rules_business_and_opens_nothing() {
    let request = wire::arp(1, GUEST_MAC, GUEST_V4, ALL, NEIGHBOUR_V4);
    let lie = wire::arp(1, GUEST_MAC, NEIGHBOUR_V4, ALL, NEIGHBOUR_V4);
    let mut nic = Script::new(&rules_for("guard: {arp: false}", "", "allow/allow", &[]));
    assert_eq!(nic.out(&request), "drop: ethertype-refused by guard guard/sane");
    let mut nic = Script::new(&rules_for(
        "guard: {arp: false}",
        "",
        "allow/allow",
        &["id: arp, direction: out, action: allow, ethertype: 0x0806"],
    ));
    assert_eq!(nic.out(&request), "pass: stateless by rule arp");
    assert_eq!(nic.out(&lie), "drop: arp-spoofed by guard guard/arp");

    let ask = wire::solicitation(&guest6(0), &neighbour6(0), NEIGHBOUR_V6);
    let mut nic = Script::new(&rules_for("guard: {nd: false}", "", "drop/drop", &[]));
    assert_eq!(nic.out(&ask), "drop: default-drop by default");
    let mut nic = Script::new(&rules_for(
        "guard: {nd: false}",
        "",
        "drop/drop",
        &["id: nd, direction: out, action: allow, protocol: icmp, icmp: [nd-neighbor-solicit]"],
    ));
    for _ in 0..2 {
        assert_eq!(nic.out(&ask), "pass: stateless by rule nd");
    }
}

#[test]
fn redirects_never_pass() {
    let mut nic =
        Script::new(&rules("allow/allow", &["id: all, direction: in, action: allow, protocol: any"]));
    let about = wire::udp(&guest(9), &peer(9), b"x");
    let redirect = wire::icmp_error(&peer(0), &guest(0), (5, 1), [10, 0, 0, 66], &about);
    assert_eq!(nic.in_(&redirect), "drop: redirect by guard guard/ra");
    let redirect = wire::icmp(&peer6(0), &guest6(0), (137, 0), [0; 4], &[0; 32]);
    assert_eq!(nic.in_(&redirect), "drop: redirect by guard guard/ra");
}

#[test]
fn the_rules_mtu_counts_and_else_the_uplinks() {
    let frame = wire::udp(&guest(9), &peer(9), &[0; 3_000]);
    let mut nic = Script::with_config(Config { mtu: 9_000, ..CONFIG });
    nic.install(&rules("allow/allow", &[]));
    assert_eq!(nic.wait_ms(0), "swept 1");
    assert_eq!(nic.out(&frame), "pass: new by default; opened asked");
    nic.install(&rules_for("mtu: 1500", "", "allow/allow", &[]));
    assert_eq!(nic.out(&frame), "drop: oversize by guard guard/sane");
    assert!(nic.now() > Tick(0));
}
