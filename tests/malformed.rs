//! Frames no honest stack sends, and messages no guest may send, through the whole engine: each is dropped by its own
//! reason, whatever the rules allow, and leaves nothing behind.
#![cfg(test)]

use etherparse::{Ipv4Header, checksum::Sum16BitWords};
use fw_model::Direction;
use fw_tests::places::{GUEST_MAC, NEIGHBOUR_MAC, ROUTER_MAC, guest, guest6, peer, peer6, rules};
use fw_tests::script::Script;
use fw_tests::wire::{self, End, Segment};

const ALL: End = End { mac: [0xff; 6], ip: std::net::IpAddr::V4(std::net::Ipv4Addr::BROADCAST), port: 67 };

fn udp() -> Vec<u8> {
    wire::udp(&guest(9), &peer(9), b"payload")
}

fn udp6(length: usize) -> Vec<u8> {
    wire::udp(&guest6(9), &peer6(9), &vec![0; length])
}

fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// The frame with its IPv4 header edited and summed anew.
fn v4(frame: &[u8], edit: impl FnOnce(&mut Ipv4Header)) -> Vec<u8> {
    let (mut header, payload) = Ipv4Header::from_slice(&frame[14..]).unwrap();
    edit(&mut header);
    header.set_payload_len(payload.len()).unwrap();
    header.header_checksum = header.calc_header_checksum();
    [&frame[..14], header.to_bytes().as_slice(), payload].concat()
}

fn tcp(edit: impl FnOnce(&mut Segment)) -> Vec<u8> {
    let mut segment = Segment::syn(1_000);
    edit(&mut segment);
    wire::tcp(&guest(40_000), &peer(80), &segment)
}

/// DHCP from port to port: operation and chaddr.
fn dhcp(from: &End, to: &End, operation: u8, hardware: [u8; 6]) -> Vec<u8> {
    let mut message = vec![0; 244];
    message[..3].copy_from_slice(&[operation, 1, 6]);
    message[28..34].copy_from_slice(&hardware);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    wire::udp(from, to, &message)
}

/// IGMP of this kind to all systems, with its router alert.
fn igmp(from: &End, kind: u8) -> Vec<u8> {
    let all_systems = End { mac: [1, 0, 0x5e, 0, 0, 1], ip: [224, 0, 0, 1].into(), port: 0 };
    let frame = wire::udp(from, &all_systems, &[]);
    let message = [kind, 10, 0, 0, 224, 0, 0, 1];
    let sum = Sum16BitWords::new().add_slice(&message).ones_complement().to_ne_bytes();
    v4(&with(with(frame, 34, &message), 36, &sum), |header| {
        header.protocol = 2.into();
        header.time_to_live = 1;
        header.options = [0x94, 4, 0, 0].into();
    })
}

fn rarp(sender: [u8; 6]) -> Vec<u8> {
    let frame = wire::arp(1, sender, [0, 0, 0, 0].into(), [0xff; 6], [0, 0, 0, 0].into());
    with(with(with(with(frame, 6, &GUEST_MAC), 12, &[0x80, 0x35]), 20, &[0, 3]), 32, &sender)
}

#[test]
fn each_is_dropped_by_its_own_reason() {
    let out = Direction::Out;
    let cases: Vec<(Direction, Vec<u8>, &str)> = vec![
        (out, with(udp(), 14, &[0x55]), "drop: ipv4-malformed by guard guard/sane"),
        (out, with(udp(), 24, &[0, 0]), "drop: ipv4-checksum by guard guard/sane"),
        (
            out,
            v4(&udp(), |header| header.options = [7, 4, 0, 0].into()),
            "drop: ipv4-option by guard guard/sane",
        ),
        (out, v4(&udp(), |header| header.time_to_live = 0), "drop: ttl-zero by guard guard/sane"),
        (out, with(udp6(8), 14, &[0x50]), "drop: ipv6-malformed by guard guard/sane"),
        (out, with(udp6(8), 20, &[43]), "drop: extension-header by guard guard/sane"),
        (
            out,
            with(with(udp6(3_000), 20, &[60]), 54, &[17, 255]),
            "drop: headers-too-long by guard guard/sane",
        ),
        (out, with(tcp(|_| {}), 36, &[0, 0]), "drop: tcp-malformed by guard guard/sane"),
        (out, tcp(|segment| segment.fin = true), "drop: tcp-flags by guard guard/sane"),
        (out, with(tcp(|_| {}), 50, &[0xde, 0xad]), "drop: checksum by guard guard/sane"),
        (out, with(udp(), 38, &[0, 99]), "drop: udp-malformed by guard guard/sane"),
        (
            out,
            wire::icmp(&guest(0), &peer(0), (3, 1), [0; 4], &[0x45, 0, 0, 0]),
            "drop: icmp-malformed by guard guard/sane",
        ),
        (
            out,
            wire::icmp(&guest(0), &peer(0), (9, 0), [1, 2, 7, 8], &[0; 8]),
            "drop: router-refused by guard guard/ra",
        ),
        (out, dhcp(&guest(67), &ALL.at(68), 2, ROUTER_MAC), "drop: dhcp-refused by guard guard/dhcp"),
        (out, dhcp(&guest(68), &ALL, 1, NEIGHBOUR_MAC), "drop: dhcp-refused by guard guard/dhcp"),
        (out, igmp(&guest(9), 0x11), "drop: group-message-refused by guard guard/mld"),
        (Direction::In, igmp(&peer(9), 0x16), "drop: group-message-refused by guard guard/mld"),
        (out, rarp(NEIGHBOUR_MAC), "drop: rarp-spoofed by guard guard/rarp"),
    ];
    let mut nic = Script::new(&rules(
        "allow/allow",
        &[
            "id: all, direction: out, action: allow, protocol: any",
            "id: any, direction: in, action: allow, protocol: any",
        ],
    ));
    for (direction, frame, expected) in cases {
        let line = if direction == Direction::Out { nic.out(&frame) } else { nic.in_(&frame) };
        assert_eq!(line, expected, "{frame:02x?}");
    }
}

#[test]
fn what_a_nic_needs_of_its_network_passes_without_rules_for_it() {
    let mut nic = Script::new(&rules("drop/drop", &[]));
    let unnamed = End { ip: [0, 0, 0, 0].into(), ..guest(68) };
    assert_eq!(nic.out(&dhcp(&unnamed, &ALL, 1, GUEST_MAC)), "pass: guard by guard guard/dhcp");
    assert_eq!(nic.in_(&dhcp(&peer(67), &guest(68), 2, GUEST_MAC)), "pass: guard by guard guard/dhcp");
    assert_eq!(
        nic.in_(&dhcp(&peer(67), &guest(68), 2, NEIGHBOUR_MAC)),
        "drop: dhcp-refused by guard guard/dhcp"
    );
    assert_eq!(nic.in_(&igmp(&peer(9), 0x11)), "pass: guard by guard guard/mld");
    assert_eq!(nic.out(&igmp(&guest(9), 0x16)), "pass: guard by guard guard/mld");
    assert_eq!(nic.out(&rarp(GUEST_MAC)), "pass: guard by guard guard/rarp");
}

#[test]
fn switched_off_allowances_are_left_to_the_rules() {
    let nic_has = "guard: {dhcp: false, mld: false, ra: false}";
    let mut nic = Script::new(&fw_tests::places::rules_for(nic_has, "", "drop/drop", &[]));
    let unnamed = End { ip: [0, 0, 0, 0].into(), ..guest(68) };
    assert_eq!(nic.out(&dhcp(&unnamed, &ALL, 1, GUEST_MAC)), "drop: default-drop by default");
    assert_eq!(nic.out(&igmp(&guest(9), 0x16)), "drop: default-drop by default");
    // What was refused stays refused.
    assert_eq!(
        nic.out(&dhcp(&guest(67), &ALL.at(68), 2, ROUTER_MAC)),
        "drop: dhcp-refused by guard guard/dhcp"
    );
    assert_eq!(nic.out(&igmp(&guest(9), 0x11)), "drop: group-message-refused by guard guard/mld");
}

#[test]
fn fragments_hide_nothing_from_guard() {
    let mut nic = Script::new(&rules("allow/allow", &[]));
    let lies = wire::fragments(&dhcp(&guest(67), &peer(68), 2, ROUTER_MAC), 7, 128);
    assert_eq!(nic.out(&lies[0]), "hold: fragment-held by guard");
    assert_eq!(nic.out(&lies[1]), "drop: dhcp-refused by guard guard/dhcp");
    let asks = wire::fragments(&dhcp(&guest(68), &peer(67), 1, GUEST_MAC), 8, 128);
    nic.out(&asks[0]);
    assert_eq!(nic.out(&asks[1]), "release: guard by guard guard/dhcp");
}
