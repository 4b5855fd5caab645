//! What `explain` says is what `judge` does, on every probe of a table; and it changes nothing.
#![cfg(test)]

use std::net::IpAddr;

use fw_model::{Addr, Direction, Probe, Protocol};
use fw_tests::places::{GUEST_MAC, NEIGHBOUR_MAC, ROUTER_MAC, group, guest, neighbour, peer, rules_for};
use fw_tests::script::Script;
use fw_tests::wire::{self, End, Segment};

const PROTOCOLS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::ICMP];
const OTHER_ENDS: [&str; 9] = [
    "10.0.0.20",
    "10.0.0.66",
    "198.51.100.7",
    "203.0.113.9",
    "2001:db8:0:1::20",
    "2001:db8:ffff::7",
    "224.0.0.251",
    "127.0.0.1",
    "10.0.0.10",
];
const OWN_ENDS: [&str; 5] = ["10.0.0.10", "2001:db8:0:1::10", "10.0.0.100", "10.0.0.77", "192.0.2.9"];
const PORTS: [u16; 5] = [22, 53, 80, 443, 8_080];

fn text() -> String {
    rules_for(
        "addresses: [10.0.0.10, \"2001:db8:0:1::10\", 192.0.2.0/28], \
         shared: [{address: 10.0.0.100, mac: \"00:00:5e:00:01:07\"}]",
        "address-sets: {app: [{address: 10.0.0.20, mac: \"52:54:00:00:00:02\"}], empty: []}",
        "reject/drop",
        &[
            "id: nobody, direction: out, action: drop, remote: [{set: empty}]",
            "id: app, direction: out, action: allow, protocol: tcp, remote: [{set: app}], ports: [80, 443]",
            "id: full, direction: in, action: allow, protocol: tcp, ports: [443], limits: {conns: 1}",
            "id: later, direction: out, action: pass, continue-at: web, protocol: tcp, ports: [80]",
            "id: no-tcp, direction: out, action: drop, protocol: tcp",
            "id: web, direction: out, action: allow, protocol: tcp, remote: [198.51.100.0/24, \"2001:db8:ffff::/48\"]",
            "id: dns, direction: out, action: allow, protocol: udp, ports: [53], reply-from: [10.0.0.0/24]",
            "id: ping, direction: in, action: allow, protocol: icmp, icmp: [echo-request]",
            "id: ssh, direction: in, action: reject, protocol: tcp, ports: [22]",
            "id: any, direction: in, action: allow, protocol: udp, remote: [198.51.100.7]",
        ],
    )
}

/// A firewall with a few living conns.
fn lived_in() -> Script {
    let mut nic = Script::new(&text());
    nic.in_(&wire::tcp(&peer(50_000), &guest(443), &Segment::syn(1)));
    nic.out(&wire::udp(&guest(40_000), &peer(53), b"question"));
    nic.out(&wire::udp(&guest(40_001), &group([224, 0, 0, 251], 53), b"who"));
    nic
}

fn mac_of(ip: IpAddr) -> [u8; 6] {
    match ip.to_string().as_str() {
        "10.0.0.100" => [0, 0, 0x5e, 0, 1, 7],
        "10.0.0.20" => NEIGHBOUR_MAC,
        "224.0.0.251" => [1, 0, 0x5e, 0, 0, 0xfb],
        _ => ROUTER_MAC,
    }
}

fn frame(probe: &Probe) -> Vec<u8> {
    let end = |addr: Addr, port| End { mac: mac_of(addr.ip()), ip: addr.ip(), port };
    let (mut from, mut to) =
        (end(probe.source, probe.source_port), end(probe.destination, probe.destination_port));
    // A group is spoken to; who calls itself by one still has a MAC address of its own.
    if probe.direction == Direction::In && from.mac[0] == 1 {
        from.mac = ROUTER_MAC;
    }
    let own = if probe.direction == Direction::Out { &mut from } else { &mut to };
    own.mac = if own.ip.to_string() == "10.0.0.100" { own.mac } else { GUEST_MAC };
    match probe.protocol {
        Protocol::TCP => wire::tcp(&from, &to, &Segment::syn(7)),
        Protocol::UDP => wire::udp(&from, &to, b"probe"),
        _ => wire::echo(&from, &to, probe.source_port, true),
    }
}

fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for direction in [Direction::Out, Direction::In] {
        for (own, other) in OWN_ENDS.iter().flat_map(|own| OTHER_ENDS.iter().map(move |other| (own, other))) {
            let (own, other): (Addr, Addr) = (own.parse().unwrap(), other.parse().unwrap());
            if own.is_v4() != other.is_v4() {
                continue;
            }
            for protocol in PROTOCOLS {
                let protocol =
                    if protocol == Protocol::ICMP && !own.is_v4() { Protocol::ICMPV6 } else { protocol };
                for (source_port, destination_port) in
                    PORTS.iter().flat_map(|port| [(40_000, *port), (40_001, *port), (*port, 40_001)])
                {
                    let (source, destination) =
                        if direction == Direction::Out { (own, other) } else { (other, own) };
                    probes.push(Probe {
                        direction,
                        protocol,
                        source,
                        source_port,
                        destination,
                        destination_port,
                    });
                }
            }
        }
    }
    probes
}

#[test]
fn it_says_what_judging_does() {
    let (mut kinds, probes) = (std::collections::BTreeSet::new(), probes());
    assert!(probes.len() > 1_000);
    for probe in probes {
        let mut nic = lived_in();
        let said = nic.explain(&probe);
        let frame = frame(&probe);
        let did = match probe.direction {
            Direction::Out => nic.out(&frame),
            Direction::In => nic.in_(&frame),
        };
        let did = did.split(';').next().unwrap_or_default();
        assert_eq!(said, did, "{probe:?}");
        kinds.insert(said);
    }
    // Every way to be decided was met.
    for kind in [
        "pass: new by rule app",
        "pass: new by rule web",
        "pass: new by rule ping",
        "pass: new by rule any",
        "pass: new by rule dns",
        "pass: stateless by rule dns",
        "pass: established by conn dns",
        "drop: rule-conns by rule full",
        "drop: rule-drop by rule no-tcp",
        "reject: rule-reject by rule ssh",
        "reject: default-reject by default",
        "drop: default-drop by default",
        "drop: source-address-spoofed by guard guard/address",
        "drop: address-not-ours by guard guard/address",
        "drop: martian by guard guard/sane",
    ] {
        assert!(kinds.contains(kind), "{kind} was not met in {kinds:?}");
    }
}

fn probe(direction: Direction, protocol: Protocol, from: &End, to: &End) -> Probe {
    Probe {
        direction,
        protocol,
        source: Addr::from(from.ip),
        source_port: from.port,
        destination: Addr::from(to.ip),
        destination_port: to.port,
    }
}

#[test]
fn it_knows_that_a_conn_of_older_rules_would_be_revoked_or_kept() {
    let asks = probe(Direction::Out, Protocol::UDP, &guest(40_000), &peer(53));
    let mut nic = lived_in();
    nic.install(&text().replace("id: dns,", "id: names,"));
    assert_eq!(nic.explain(&asks), "pass: established by conn names");
    assert_eq!(nic.out(&frame(&asks)), "pass: established by conn names; now by names");
    nic.install(&text().replace("ports: [53]", "ports: [54]"));
    assert_eq!(nic.explain(&asks), "drop: revoked by conn names");
    assert_eq!(nic.out(&frame(&asks)), "drop: revoked by conn names; closed asked");
    assert_eq!(nic.explain(&asks), "reject: default-reject by default");
}

#[test]
fn it_knows_who_may_answer_a_question_to_a_group() {
    let mut nic = lived_in();
    let answer = probe(Direction::In, Protocol::UDP, &neighbour(53), &guest(40_001));
    assert_eq!(nic.explain(&answer), "pass: new by rule dns");
    assert_eq!(nic.in_(&frame(&answer)), "pass: new by rule dns; opened asked");
    let stranger = probe(Direction::In, Protocol::UDP, &neighbour(53), &guest(40_002));
    assert_eq!(nic.explain(&stranger), "drop: default-drop by default");
}

#[test]
fn an_unnamed_port_stands_for_a_fresh_one() {
    let mut nic = lived_in();
    let asks = probe(Direction::Out, Protocol::UDP, &guest(0), &peer(53));
    assert_eq!(nic.explain(&asks), "pass: new by rule dns");
    let mixed = Probe { destination: "2001:db8::1".parse().unwrap(), ..asks };
    assert_eq!(nic.explain(&mixed), "drop: martian by guard guard/sane");
    assert_eq!(Script::without_rules().explain(&asks), "drop: no-rules by guard");
}
