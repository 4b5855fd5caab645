//! Conns move from one engine to another: what arrives is what left, judged by the rules of its new home.
#![cfg(test)]

use etherparse::{ArpOperation, ArpPacketSlice, SlicedPacket};
use fw_engine::{Arrival, Config, ConnState, Trust};
use fw_model::{Addr, Direction, MacAddr, Protocol, RuleId};
use fw_tests::places::{GUEST_MAC, guest, guest6, neighbour, peer, peer6, rules, rules_for};
use fw_tests::script::{CONFIG, Script};
use fw_tests::wire::{self, End, Segment};

const WEB: &str = "id: web, direction: out, action: allow, protocol: tcp, ports: [80]";
const DNS: &str = "id: dns, direction: out, action: allow, protocol: udp, ports: [53]";
const PING: &str = "id: ping, direction: in, action: allow, protocol: icmp";

/// An established conn; the client will say byte 1,101 next, the server byte 9,501.
fn talk(nic: &mut Script, client: &End, server: &End) {
    let lines = [
        nic.out(&wire::tcp(client, server, &Segment::syn(1_000))),
        nic.in_(&wire::tcp(server, client, &Segment { syn: true, ..Segment::ack(9_000, 1_001) })),
        nic.out(&wire::tcp(client, server, &Segment { payload: 100, ..Segment::ack(1_001, 9_001) })),
        nic.in_(&wire::tcp(server, client, &Segment { payload: 500, ..Segment::ack(9_001, 1_101) })),
        nic.out(&wire::tcp(client, server, &Segment::ack(1_101, 9_501))),
    ];
    assert!(lines.iter().all(|line| line.starts_with("pass")), "{lines:?}");
}

/// A NIC with a conn of every kind.
fn busy(text: &str) -> Script {
    let mut nic = Script::new(text);
    talk(&mut nic, &guest(40_000), &peer(80));
    talk(&mut nic, &guest6(40_000), &peer6(80));
    nic.out(&wire::tcp(&guest(40_001), &peer(80), &Segment::syn(77)));
    nic.out(&wire::udp(&guest(9), &peer(53), b"question"));
    nic.in_(&wire::udp(&peer(53), &guest(9), b"answer"));
    nic.out(&wire::udp(&guest(10), &peer(53), b"another"));
    nic.in_(&wire::icmp(&neighbour(0), &guest(0), (8, 0), [0, 7, 0, 1], b"ping"));
    nic
}

fn all() -> String {
    rules("drop/drop", &[WEB, DNS, PING])
}

/// Everything of `from` arrives at a new NIC with these rules.
fn moved(from: &Script, text: &str, trust: Trust) -> (Script, String) {
    let mut to = Script::new(text);
    let (leaving, names) = from.export();
    let told = to.adopt(&leaving, &names, trust);
    (to, told)
}

#[test]
fn what_arrives_is_what_left() {
    let from = busy(&all());
    let (to, told) = moved(&from, &all(), Trust::Exact);
    assert!(told.starts_with("kept 6, judged again 0; opened"), "{told}");
    let sorted = |script: &Script| {
        let (mut conns, names) = script.export();
        conns.sort_by_key(|arrival| arrival.conn.flow);
        let named: Vec<_> = conns
            .iter()
            .map(|arrival| (arrival.conn, arrival.rule.map(|rule| names[rule].clone())))
            .collect();
        named
    };
    assert_eq!(sorted(&from), sorted(&to));
}

#[test]
fn a_conn_goes_on_where_it_was_and_a_strangers_segment_does_not() {
    let (mut to, _) = moved(&busy(&all()), &all(), Trust::Exact);
    let (client, server) = (guest(40_000), peer(80));
    let next = Segment { payload: 10, ..Segment::ack(1_101, 9_501) };
    assert_eq!(to.out(&wire::tcp(&client, &server, &next)), "pass: established by conn web");
    let far = Segment { payload: 10, ..Segment::ack(9_501 + 200_000, 1_111) };
    assert_eq!(to.in_(&wire::tcp(&server, &client, &far)), "drop: tcp-window by conn web");
    let other = wire::tcp(&guest(40_002), &server, &next);
    assert_eq!(to.out(&other), "drop: no-conn by conn");
}

#[test]
fn life_is_what_remained_and_never_more_than_the_new_rules_give() {
    let mut from = busy(&all());
    from.jump_ms(100_000);
    let (leaving, names) = from.export();
    let remaining = |conns: &[Arrival]| {
        conns.iter().find(|arrival| arrival.conn.state == ConnState::Established).unwrap().conn.remaining_ms
    };
    assert_eq!(remaining(&leaving), 7_340_000);
    let mut to = Script::new(&rules_for("", "timers: {established: 50}", "drop/drop", &[WEB, DNS, PING]));
    to.jump_ms(5_000_000);
    to.adopt(&leaving, &names, Trust::Exact);
    assert_eq!(remaining(&to.export().0), 50_000);
    let told = to.wait_s(51);
    assert_eq!(told.matches("closed established").count(), 2, "{told}");
}

#[test]
fn the_new_homes_rules_decide_by_the_opener() {
    let from = busy(&all());
    let other = "id: all-tcp, direction: out, action: allow, protocol: tcp";
    let (_, told) = moved(&from, &rules("drop/drop", &[other]), Trust::Exact);
    assert!(told.starts_with("kept 0, judged again 3, 3 revoked; opened"), "{told}");
    // What would allow a reply's direction admits nothing.
    let inward = "id: in, direction: in, action: allow, protocol: tcp";
    let (_, told) = moved(&from, &rules("drop/drop", &[inward]), Trust::Exact);
    assert_eq!(told, "kept 0, judged again 0, 6 revoked");
    let (mut to, told) = moved(&from, &rules("allow/allow", &[]), Trust::Exact);
    assert!(told.starts_with("kept 0, judged again 6; opened"), "{told}");
    assert_eq!(to.wait_ms(0), "");
}

#[test]
fn a_rule_that_drains_or_keeps_says_so_at_the_new_home_too() {
    let drain = format!("{WEB}, on_revoke: drain");
    let keep = format!("{DNS}, on_revoke: keep");
    let from = busy(&rules("drop/drop", &[&drain, &keep, PING]));
    let (mut to, told) = moved(&from, &rules("drop/drop", &[]), Trust::Exact);
    assert!(told.starts_with("kept 0, judged again 5, 1 revoked; opened"), "{told}");
    let told = to.wait_s(301);
    assert_eq!(told.matches("closed established").count(), 2, "{told}");
    // Its end moves with a drained conn, however often it moves.
    let (mut second, _) = moved(&from, &rules("drop/drop", &[]), Trust::Exact);
    second.jump_ms(200_000);
    let (mut third, _) = moved(&second, &all(), Trust::Exact);
    let next = Segment { payload: 10, ..Segment::ack(1_101, 9_501) };
    assert_eq!(third.out(&wire::tcp(&guest(40_000), &peer(80), &next)), "pass: established by conn web");
    assert!(third.wait_s(101).contains("closed established"));
}

#[test]
fn an_answer_from_a_group_is_judged_by_who_may_answer() {
    let ask = |from: &str| {
        format!("id: ask, direction: out, action: allow, protocol: udp, ports: [1900], reply-from: [{from}]")
    };
    let mut from = Script::new(&rules("drop/drop", &[&ask("10.0.0.0/24")]));
    from.out(&wire::udp(&guest(5_000), &fw_tests::places::group([239, 255, 255, 250], 1900), b"who"));
    assert!(from.in_(&wire::udp(&neighbour(1900), &guest(5_000), b"me")).contains("opened"));
    let (_, told) = moved(&from, &rules("drop/drop", &[&ask("10.0.0.20")]), Trust::Exact);
    assert!(told.starts_with("kept 1, judged again 0; opened"), "{told}");
    let (_, told) = moved(&from, &rules("drop/drop", &[&ask("10.0.0.21")]), Trust::Exact);
    assert_eq!(told, "kept 0, judged again 0, 1 revoked");
}

#[test]
fn nothing_is_adopted_without_rules() {
    let (leaving, names) = busy(&all()).export();
    let mut to = Script::without_rules();
    assert_eq!(to.adopt(&leaving, &names, Trust::Exact), "kept 0, judged again 0, 6 no-rules");
}

/// MIG-009.
#[test]
fn conns_of_another_nic_are_refused() {
    let from = busy(&all());
    let told = |nic: &str| moved(&from, &rules_for(nic, "", "allow/allow", &[]), Trust::Exact).1;
    assert!(told("addresses: [10.0.0.10]").contains("judged again 5, 1 address-not-ours"));
    assert_eq!(told("vlan: 30"), "kept 0, judged again 0, 6 vlan-refused");
    let bound = "address-sets: {far: [{address: 198.51.100.7, mac: \"52:54:00:00:00:77\"}]}";
    let (_, told) = moved(&from, &rules_for("", bound, "allow/allow", &[]), Trust::Exact);
    assert!(told.contains("judged again 2, 4 peer-spoofed"), "{told}");
}

#[test]
fn a_conn_that_no_living_one_could_be_is_refused() {
    let (leaving, names) = busy(&all()).export();
    let tcp = *leaving.iter().find(|arrival| arrival.conn.state == ConnState::Established).unwrap();
    let refused = |change: &dyn Fn(&mut Arrival)| {
        let mut arrival = tcp;
        change(&mut arrival);
        Script::new(&rules("allow/allow", &[])).adopt(&[arrival], &names, Trust::Exact)
    };
    let impossible = "kept 0, judged again 0, 1 record-impossible";
    assert_eq!(refused(&|a| a.conn.tcp = None), impossible);
    assert_eq!(refused(&|a| a.conn.state = ConnState::Asked), impossible);
    assert_eq!(refused(&|a| a.conn.flow.local_port = 0), impossible);
    assert_eq!(refused(&|a| a.conn.flow.protocol = Protocol::UDP), impossible);
    assert_eq!(refused(&|a| a.conn.tcp.as_mut().unwrap().ends[0].acked = 9_502), impossible);
    assert_eq!(refused(&|a| a.conn.tcp.as_mut().unwrap().ends[1].max_window = u32::MAX), impossible);
    // Whoever could write this could let a stranger send whatever it likes.
    let everywhere = |a: &mut Arrival, beyond: u32| {
        let end = &mut a.conn.tcp.as_mut().unwrap().ends[1];
        end.max_end = end.end.wrapping_add((65_535 << 14) + beyond);
    };
    assert_eq!(refused(&|a| everywhere(a, 1)), impossible);
    assert!(refused(&|a| everywhere(a, 0)).starts_with("kept 0, judged again 1"));
    let spoofed = "kept 0, judged again 0, 1 source-mac-impossible";
    assert_eq!(refused(&|a| a.conn.peer_mac = MacAddr([1, 0, 0, 0, 0, 0])), spoofed);
    assert_eq!(refused(&|a| a.conn.peer_mac = MacAddr(GUEST_MAC)), spoofed);
    let martian = "kept 0, judged again 0, 1 martian";
    assert_eq!(refused(&|a| a.conn.flow.remote = Addr::v4([224, 0, 0, 1])), martian);
    assert_eq!(refused(&|a| a.conn.flow.remote = a.conn.flow.local), martian);
    // A rule nobody knows is no rule: the rules of here decide anyway.
    assert!(refused(&|a| a.rule = Some(99)).starts_with("kept 0, judged again 1"));
}

#[test]
fn a_flow_is_adopted_once() {
    let (mut leaving, names) = busy(&all()).export();
    leaving.truncate(1);
    let mut to = Script::new(&all());
    assert!(to.adopt(&leaving, &names, Trust::Exact).starts_with("kept 1"));
    assert_eq!(to.adopt(&leaving, &names, Trust::Exact), "kept 0, judged again 0, 1 record-twice");
}

#[test]
fn a_full_table_takes_no_more_and_lets_those_never_answered_go_first() {
    let mut from = Script::new(&rules("allow/allow", &[]));
    for port in 1..=8 {
        talk(&mut from, &guest(port), &peer(80));
    }
    let (leaving, names) = from.export();
    let mut to = Script::with_config(Config { conns: 6, ..CONFIG });
    to.install(&rules("allow/allow", &[]));
    to.out(&wire::udp(&guest(9), &peer(53), b"question"));
    let told = to.adopt(&leaving, &names, Trust::Exact);
    assert!(told.starts_with("kept 6, judged again 0, 2 table-full; closed asked; opened"), "{told}");
}

#[test]
fn conns_never_answered_arrive_in_their_own_pool() {
    let mut from = Script::new(&rules("allow/allow", &[]));
    for port in 1..=8 {
        from.out(&wire::udp(&guest(port), &peer(53), b"question"));
    }
    let (leaving, names) = from.export();
    let mut to = Script::new(&rules_for("", "limits: {half_open: 3}", "allow/allow", &[]));
    to.adopt(&leaving, &names, Trust::Exact);
    assert_eq!(to.export().0.len(), 3);
}

#[test]
fn a_rules_conns_are_counted_where_they_live_now() {
    let (mut to, _) = moved(
        &busy(&all()),
        &rules("drop/drop", &[&format!("{WEB}, limits: {{conns: 3}}"), DNS, PING]),
        Trust::Exact,
    );
    let refused = to.out(&wire::tcp(&guest(50_000), &peer(80), &Segment::syn(1)));
    assert_eq!(refused, "drop: rule-conns by rule web");
}

/// What is saved of an established conn may be a moment old: each end may be a step ahead, and once nothing older can be
/// under way any more, once.
mod resuming {
    use super::*;

    const PASSES: &str = "pass: established by conn web";
    const OUTSIDE: &str = "drop: tcp-window by conn web";
    /// As `tcp.rs` has it.
    const STEP: u32 = 4 << 20;

    /// As `conntrack/handover.rs` has it.
    const SETTLE_MS: u64 = 60_000;

    fn resumed() -> Script {
        moved(&busy(&all()), &all(), Trust::Resuming).0
    }

    fn settled() -> Script {
        let mut nic = resumed();
        nic.jump_ms(SETTLE_MS);
        nic
    }

    fn out(nic: &mut Script, sequence: u32, acknowledgement: u32) -> String {
        nic.out(&wire::tcp(&guest(40_000), &peer(80), &Segment::ack(sequence, acknowledgement)))
    }

    fn back(nic: &mut Script, sequence: u32, acknowledgement: u32) -> String {
        nic.in_(&wire::tcp(&peer(80), &guest(40_000), &Segment::ack(sequence, acknowledgement)))
    }

    #[test]
    fn ends_that_went_on_are_found_again_and_then_exact() {
        let mut nic = settled();
        // Both went on for two megabytes after the copy was made.
        assert_eq!(out(&mut nic, 2_001_101, 2_009_501), PASSES);
        assert_eq!(back(&mut nic, 2_009_501, 2_001_101), PASSES);
        assert_eq!(out(&mut nic, 2_001_101 + 64_240, 2_009_501), PASSES);
        assert_eq!(out(&mut nic, 2_001_101 + 64_241, 2_009_501), OUTSIDE);
        assert_eq!(back(&mut nic, 2_009_501 + 64_241, 2_001_101), OUTSIDE);
    }

    #[test]
    fn the_step_is_bounded_and_taken_once_by_each_end() {
        let edge = 1_101 + 64_240 + STEP;
        assert_eq!(out(&mut resumed(), edge, 9_501), PASSES);
        assert_eq!(out(&mut resumed(), edge + 1, 9_501), OUTSIDE);
        assert_eq!(out(&mut resumed(), 1_101, 9_501 + STEP), PASSES);
        assert_eq!(out(&mut resumed(), 1_101, 9_501 + STEP + 1), OUTSIDE);
        let mut nic = settled();
        assert_eq!(out(&mut nic, 500_000, 9_501), PASSES);
        assert_eq!(out(&mut nic, 1_500_000, 9_501), OUTSIDE);
        // The other end has its own step yet.
        assert_eq!(back(&mut nic, 1_500_000, 500_000), PASSES);
        assert_eq!(back(&mut nic, 2_500_000, 500_000), OUTSIDE);
    }

    /// The guest's ring holds an acknowledgement from before the copy's last word, and behind it one of what it got since;
    /// the other end sends again what it has no acknowledgement of, and nothing newer until it has one.
    #[test]
    fn an_old_segment_that_waited_in_a_ring_does_not_spend_the_step() {
        let mut nic = resumed();
        assert_eq!(out(&mut nic, 1_101, 9_501 + 10_000), PASSES);
        assert_eq!(back(&mut nic, 9_501 + 10_000, 1_101), PASSES);
        assert_eq!(out(&mut nic, 1_101, 9_501 + 200_000), PASSES);
        assert_eq!(back(&mut nic, 9_501 + 200_000, 1_101), PASSES);
        nic.jump_ms(SETTLE_MS);
        assert_eq!(out(&mut nic, 1_101, 9_501 + 200_000), PASSES);
        assert_eq!(out(&mut nic, 1_101, 9_501 + 200_001), OUTSIDE);
    }

    #[test]
    fn a_refused_segment_takes_no_step() {
        let mut nic = resumed();
        assert_eq!(out(&mut nic, 1_000_000, 9_501u32.wrapping_sub(100_000)), OUTSIDE);
        assert_eq!(out(&mut nic, 2_000_000, 9_501), PASSES);
    }

    #[test]
    fn a_conn_that_moves_again_before_an_end_spoke_still_resumes() {
        let mut first = settled();
        assert_eq!(out(&mut first, 1_101, 9_501), PASSES);
        let (mut second, _) = moved(&first, &all(), Trust::Exact);
        assert_eq!(out(&mut second, 500_000, 9_501), OUTSIDE);
        assert_eq!(back(&mut second, 500_000, 1_101), PASSES);
    }

    #[test]
    fn a_forged_reset_gains_nothing_from_it() {
        let mut nic = resumed();
        let reset = Segment { rst: true, ..Segment::ack(9_501 + 1_000_000, 1_101) };
        assert_eq!(nic.in_(&wire::tcp(&peer(80), &guest(40_000), &reset)), OUTSIDE);
    }
}

/// What other hosts learn from an announcement, read by etherparse.
fn read(frame: &[u8]) -> String {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let vlan = sliced.vlan_ids().first().map_or(String::new(), |vlan| format!("vlan {} ", vlan.value()));
    let mac = |bytes: &[u8]| MacAddr(bytes.try_into().unwrap()).to_string();
    let (to, from) = (mac(&frame[..6]), mac(&frame[6..12]));
    let at = if vlan.is_empty() { 14 } else { 18 };
    let what = match u16::from_be_bytes([frame[at - 2], frame[at - 1]]) {
        0x0806 => {
            let arp = ArpPacketSlice::from_slice(&frame[at..]).unwrap();
            assert_eq!(arp.operation(), ArpOperation::REQUEST);
            assert_eq!(
                (arp.sender_hw_addr(), arp.sender_protocol_addr()),
                (&GUEST_MAC[..], arp.target_protocol_addr())
            );
            format!("arp {:?}", arp.sender_protocol_addr())
        }
        0x8035 => {
            assert_eq!(frame[at..at + 8], [0, 1, 8, 0, 6, 4, 0, 3]);
            assert_eq!((&frame[at + 8..at + 14], &frame[at + 18..at + 24]), (&GUEST_MAC[..], &GUEST_MAC[..]));
            "rarp".to_owned()
        }
        0x86dd => {
            let Some(etherparse::NetSlice::Ipv6(ip)) = &sliced.net else { panic!("{frame:02x?}") };
            assert_eq!(ip.header().hop_limit(), 255);
            let Some(etherparse::TransportSlice::Icmpv6(icmp)) = &sliced.transport else {
                panic!("no ICMPv6")
            };
            assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
            let bytes = icmp.slice();
            assert_eq!((bytes[0], bytes[1], bytes[4]), (136, 0, 0x20));
            assert_eq!(bytes[8..24], ip.header().source());
            assert_eq!(bytes[24..], [[2, 1].as_slice(), &GUEST_MAC].concat());
            format!("advertises {} to {}", ip.header().source_addr(), ip.header().destination_addr())
        }
        other => panic!("{other:#x}"),
    };
    format!("{vlan}{from} to {to}: {what}")
}

#[test]
fn a_guest_is_announced_by_what_is_its_own_alone() {
    let shared = "shared: [{address: 10.0.0.99, mac: \"00:00:5e:00:01:01\"}]";
    let mut nic = Script::new(&rules_for(shared, "", "drop/drop", &[]));
    nic.announce();
    let told: Vec<_> = nic.left().iter().map(|left| read(&left.bytes)).collect();
    let me = "52:54:00:00:00:01";
    let nodes = "33:33:00:00:00:01";
    let expected = [
        format!("{me} to ff:ff:ff:ff:ff:ff: rarp"),
        format!("{me} to ff:ff:ff:ff:ff:ff: arp [10, 0, 0, 10]"),
        format!("{me} to {nodes}: advertises 2001:db8:0:1::10 to ff02::1"),
        format!("{me} to {nodes}: advertises fe80::5054:ff:fe00:1 to ff02::1"),
    ];
    let (mut told_sorted, mut expected) = (told, expected.to_vec());
    told_sorted.sort();
    expected.sort();
    assert_eq!(told_sorted, expected);
    assert!(nic.left().iter().all(|left| left.direction == Direction::Out));
}

#[test]
fn an_announcement_carries_the_nics_vlan_and_passes_a_neighbours_firewall() {
    let mut nic = Script::new(&rules_for("vlan: 30, addresses: [10.0.0.10]", "", "drop/drop", &[]));
    nic.announce();
    assert!(nic.left().iter().all(|left| read(&left.bytes).starts_with("vlan 30 ")));
    let mut nic = Script::new(&rules("drop/drop", &[]));
    nic.announce();
    let neighbour = "nic: {id: n, mac: \"52:54:00:00:00:02\", addresses: [10.0.0.20, \"2001:db8:0:1::20\"]}\n\
                     defaults: {out: drop, in: drop}";
    let mut other = Script::new(neighbour);
    for frame in nic.left_to(Direction::Out) {
        let line = other.in_(&frame);
        // Nothing listens to RARP, so it may stop there.
        assert!(
            line.starts_with("pass: guard") || read(&frame).ends_with("rarp"),
            "{line}: {}",
            read(&frame)
        );
    }
}

#[test]
fn a_nic_without_rules_announces_nobody() {
    assert_eq!(Script::without_rules().announce(), "");
}

#[test]
fn rule_names_that_no_longer_exist_do_not_matter() {
    let from = busy(&all());
    let (leaving, _) = from.export();
    let gone: Vec<RuleId> = vec!["gone".parse().unwrap(); 3];
    let mut to = Script::new(&all());
    assert!(to.adopt(&leaving, &gone, Trust::Exact).starts_with("kept 0, judged again 6; opened"));
}
