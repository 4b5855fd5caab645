//! One NIC, frame by frame: which rule decides, who is told, what is remembered, and that nothing else moves.
#![cfg(test)]

use fw_model::Direction;
use fw_tests::places::{
    GUEST_MAC, NEIGHBOUR_MAC, ROUTER_MAC, group, guest, guest6, neighbour, peer, peer6, rules,
};
use fw_tests::script::Script;
use fw_tests::wire::{self, Segment};

const SYN: Segment = Segment::syn(1_000);

#[test]
fn without_rules_nothing_passes() {
    let mut nic = Script::without_rules();
    assert_eq!(nic.out(&wire::tcp(&guest(40_000), &peer(80), &SYN)), "drop: no-rules by guard");
    assert_eq!(nic.in_(&wire::udp(&peer(53), &guest(40_000), b"late")), "drop: no-rules by guard");
    assert_eq!(
        nic.out(&wire::arp(1, GUEST_MAC, [10, 0, 0, 10].into(), [0xff; 6], [10, 0, 0, 1].into())),
        "drop: no-rules by guard"
    );
    assert_eq!(nic.out(&[]), "drop: no-rules by guard");
    assert_eq!(nic.wait_s(10_000), "");
}

#[test]
fn a_conn_lives_from_its_syn_to_the_end_of_its_time_wait() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &["id: web, direction: in, action: allow, protocol: tcp, ports: [80]"],
    ));
    let (client, server) = (peer(50_000), guest(80));
    assert_eq!(nic.in_(&wire::tcp(&client, &server, &SYN)), "pass: new by rule web; opened syn-sent");
    let answer = Segment { syn: true, ..Segment::ack(9_000, 1_001) };
    assert_eq!(
        nic.out(&wire::tcp(&server, &client, &answer)),
        "pass: established by conn web; syn-sent -> syn-received"
    );
    assert_eq!(
        nic.in_(&wire::tcp(&client, &server, &Segment::ack(1_001, 9_001))),
        "pass: established by conn web; syn-received -> established"
    );
    let request = Segment { payload: 100, ..Segment::ack(1_001, 9_001) };
    assert_eq!(nic.in_(&wire::tcp(&client, &server, &request)), "pass: established by conn web");
    let last = Segment { payload: 1_000, fin: true, ..Segment::ack(9_001, 1_101) };
    assert_eq!(
        nic.out(&wire::tcp(&server, &client, &last)),
        "pass: established by conn web; established -> fin-wait"
    );
    let bye = Segment { fin: true, ..Segment::ack(1_101, 10_002) };
    assert_eq!(nic.in_(&wire::tcp(&client, &server, &bye)), "pass: established by conn web");
    assert_eq!(
        nic.out(&wire::tcp(&server, &client, &Segment::ack(10_002, 1_102))),
        "pass: established by conn web; fin-wait -> time-wait"
    );
    assert_eq!(nic.wait_ms(119_999), "");
    assert_eq!(nic.wait_ms(100), "closed time-wait");
    assert_eq!(nic.in_(&wire::tcp(&client, &server, &request)), "drop: no-conn by conn");
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &[
            "id: not-that-one, direction: out, action: drop, protocol: tcp, remote: [198.51.100.7], ports: [80]",
            "id: web, direction: out, action: allow, protocol: tcp, ports: [80]",
            "id: never-met, direction: out, action: drop, protocol: tcp, ports: [80]",
        ],
    ));
    assert_eq!(nic.out(&wire::tcp(&guest(40_000), &peer(80), &SYN)), "drop: rule-drop by rule not-that-one");
    assert_eq!(
        nic.out(&wire::tcp(&guest(40_000), &neighbour(80), &SYN)),
        "pass: new by rule web; opened syn-sent"
    );
    assert_eq!(nic.out(&wire::tcp(&guest(40_000), &neighbour(81), &SYN)), "drop: default-drop by default");
    // A rule says nothing of the other direction.
    assert_eq!(nic.in_(&wire::tcp(&neighbour(40_001), &guest(80), &SYN)), "drop: default-drop by default");
}

#[test]
fn pass_goes_on_at_the_rule_it_names() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &[
            "id: delegated, direction: out, action: pass, continue-at: tenant, protocol: tcp, ports: [80]",
            "id: skipped, direction: out, action: drop, protocol: tcp, ports: [80]",
            "id: tenant, direction: out, action: allow, protocol: tcp",
        ],
    ));
    assert_eq!(
        nic.out(&wire::tcp(&guest(40_000), &peer(80), &SYN)),
        "pass: new by rule tenant; opened syn-sent"
    );
    assert_eq!(
        nic.out(&wire::tcp(&guest(40_000), &peer(81), &SYN)),
        "pass: new by rule tenant; opened syn-sent"
    );
}

#[test]
fn the_defaults_decide_where_no_rule_does() {
    let frame = wire::udp(&guest(40_000), &peer(53), b"question");
    let mut nic = Script::new(&rules("allow/drop", &[]));
    assert_eq!(nic.out(&frame), "pass: new by default; opened asked");
    assert_eq!(
        nic.in_(&wire::udp(&peer(53), &guest(40_000), b"answer")),
        "pass: established by conn; asked -> answered"
    );
    assert_eq!(nic.in_(&wire::udp(&peer(54), &guest(40_000), b"no")), "drop: default-drop by default");
    let mut nic = Script::new(&rules("drop/allow", &[]));
    assert_eq!(nic.out(&frame), "drop: default-drop by default");
    assert_eq!(nic.in_(&wire::tcp(&peer(54), &guest(22), &SYN)), "pass: new by default; opened syn-sent");
    let mut nic = Script::new(&rules("reject/reject", &[]));
    assert_eq!(nic.out(&frame), "reject: default-reject by default; icmp 3/13 to guest");
    assert_eq!(
        nic.in_(&wire::tcp(&peer(54), &guest(22), &SYN)),
        "reject: default-reject by default; rst+ack to net"
    );
}

#[test]
fn who_is_rejected_is_told_by_whom_it_asked() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &[
            "id: no-out, direction: out, action: reject, protocol: any",
            "id: no-in, direction: in, action: reject",
        ],
    ));
    let syn = wire::tcp(&guest(40_000), &peer(80), &SYN);
    assert_eq!(nic.out(&syn), "reject: rule-reject by rule no-out; rst+ack to guest");
    let told = nic.left_to(Direction::In);
    let reset = wire::tcp_of(&told[0]);
    assert_eq!((reset.source_port, reset.destination_port), (80, 40_000));
    assert_eq!((reset.sequence_number, reset.acknowledgment_number), (0, 1_001));
    assert_eq!((&told[0][..6], &told[0][6..12]), (GUEST_MAC.as_slice(), ROUTER_MAC.as_slice()));

    let question = wire::udp(&peer6(9), &guest6(99), b"question");
    assert_eq!(nic.in_(&question), "reject: rule-reject by rule no-in; icmpv6 1/1 to net");
    let told = nic.left_to(Direction::Out);
    assert_eq!((&told[0][..6], &told[0][6..12]), (ROUTER_MAC.as_slice(), GUEST_MAC.as_slice()));
    assert!(told[0].ends_with(&question[14..]), "an error quotes what it is about");

    let ping = wire::echo(&peer(0), &guest(0), 7, true);
    assert_eq!(nic.in_(&ping), "reject: rule-reject by rule no-in; icmp 3/13 to net");
    // A conn that is none is nobody's to reject, and groups are never answered.
    assert_eq!(nic.out(&wire::tcp(&guest(40_000), &peer(80), &Segment::ack(5, 5))), "drop: no-conn by conn");
    assert_eq!(
        nic.out(&wire::udp(&guest(5353), &group([224, 0, 0, 251], 5353), b"mdns")),
        "reject: rule-reject by rule no-out"
    );
}

#[test]
fn a_thousand_rejects_a_second_are_answered() {
    let mut nic = Script::new(&rules("reject/drop", &[]));
    let ask = wire::udp(&guest(40_000), &peer(53), b"question");
    let answered = |nic: &mut Script| {
        let lines: Vec<String> = (0..1_100).map(|_| nic.out(&ask)).collect();
        assert!(lines.iter().all(|line| line.starts_with("reject: default-reject by default")));
        lines.iter().filter(|line| line.ends_with("; icmp 3/13 to guest")).count()
    };
    assert_eq!(answered(&mut nic), 1_000);
    nic.wait_ms(100);
    assert_eq!(answered(&mut nic), 100);
    // New rules fill no bucket.
    nic.install(&rules("reject/drop", &[]));
    assert_eq!(answered(&mut nic), 0);
}

#[test]
fn ports_are_the_first_frames_destination() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &["id: web, direction: in, action: allow, protocol: tcp, ports: [80, 8000-8010]"],
    ));
    for (port, passes) in
        [(79, false), (80, true), (81, false), (7_999, false), (8_000, true), (8_010, true), (8_011, false)]
    {
        let line = nic.in_(&wire::tcp(&peer(80), &guest(port), &SYN));
        let expected =
            if passes { "pass: new by rule web; opened syn-sent" } else { "drop: default-drop by default" };
        assert_eq!(line, expected, "port {port}");
    }
    assert_eq!(nic.in_(&wire::udp(&peer(80), &guest(80), b"udp")), "drop: default-drop by default");
}

#[test]
fn icmp_rules_name_messages_and_only_echo_makes_a_conn() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &[
            "id: ping, direction: out, action: allow, protocol: icmp, icmp: [echo-request]",
            "id: clock, direction: out, action: allow, protocol: icmp, icmp: [timestamp-request]",
        ],
    ));
    let ping = wire::echo(&guest(0), &peer(0), 7, true);
    assert_eq!(nic.out(&ping), "pass: new by rule ping; opened asked");
    assert_eq!(nic.out(&ping), "pass: established by conn ping");
    let pong = wire::echo(&peer(0), &guest(0), 7, false);
    assert_eq!(nic.in_(&pong), "pass: established by conn ping; asked -> answered");
    assert_eq!(nic.in_(&wire::echo(&peer(0), &guest(0), 8, false)), "drop: no-conn by conn");
    assert_eq!(nic.in_(&wire::echo(&peer(0), &guest(0), 7, true)), "drop: default-drop by default");
    assert_eq!(nic.out(&wire::echo(&guest6(0), &peer6(0), 7, true)), "pass: new by rule ping; opened asked");
    let clock = wire::icmp(&guest(0), &peer(0), (13, 0), [0, 7, 0, 1], &[0; 12]);
    for _ in 0..3 {
        assert_eq!(nic.out(&clock), "pass: stateless by rule clock");
    }
    let told = wire::icmp(&peer(0), &guest(0), (14, 0), [0, 7, 0, 1], &[0; 12]);
    assert_eq!(nic.in_(&told), "drop: default-drop by default");
    assert_eq!(nic.wait_s(31), "closed answered; closed asked");
}

#[test]
fn an_icmp_error_passes_about_a_living_conn_and_no_other() {
    let mut nic = Script::new(&rules("allow/drop", &[]));
    let question = wire::udp(&guest(40_000), &peer(53), b"question");
    let router = wire::End { ip: [10, 0, 0, 1].into(), ..peer(0) };
    let unreachable = wire::icmp_error(&router, &guest(0), (3, 1), [0; 4], &question);
    assert_eq!(nic.in_(&unreachable), "drop: unrelated by conn");
    nic.out(&question);
    assert_eq!(nic.in_(&unreachable), "pass: related by conn");
    let syn = wire::tcp(&guest(40_000), &peer(80), &SYN);
    nic.out(&syn);
    let too_big = |segment: &Segment| {
        let about = wire::tcp(&guest(40_000), &peer(80), segment);
        wire::icmp_error(&router, &guest(0), (3, 4), [0, 0, 5, 0], &about)
    };
    assert_eq!(nic.in_(&too_big(&SYN)), "pass: related by conn");
    assert_eq!(nic.in_(&too_big(&Segment::syn(900_000))), "drop: unrelated by conn");
    // Of what the other end would have to send there can be no error before it has answered.
    let reply = wire::udp(&peer(53), &guest(40_000), b"answer");
    assert_eq!(
        nic.out(&wire::icmp_error(&guest(0), &peer(0), (3, 3), [0; 4], &reply)),
        "drop: unrelated by conn"
    );
    nic.in_(&reply);
    assert_eq!(
        nic.out(&wire::icmp_error(&guest(0), &peer(0), (3, 3), [0; 4], &reply)),
        "pass: related by conn"
    );
}

#[test]
fn an_unknown_ethertype_needs_a_rule_that_names_it() {
    let lldp_like = wire::ether(GUEST_MAC, NEIGHBOUR_MAC, 0x88b5, &[7; 46]);
    let mut nic = Script::new(&rules("allow/allow", &[]));
    assert_eq!(nic.out(&lldp_like), "drop: ethertype-refused by guard guard/sane");
    let mut nic = Script::new(&rules(
        "allow/allow",
        &[
            "id: lab, direction: out, action: allow, ethertype: 0x88b5, log: true",
            "id: no-lab, direction: in, action: drop, ethertype: 0x88b5",
        ],
    ));
    assert_eq!(nic.out(&lldp_like), "pass: stateless by rule lab, logged");
    assert_eq!(nic.left()[0].bytes, lldp_like);
    let back = wire::ether(NEIGHBOUR_MAC, GUEST_MAC, 0x88b5, &[7; 46]);
    assert_eq!(nic.in_(&back), "drop: rule-drop by rule no-lab");
    assert_eq!(
        nic.out(&wire::ether(GUEST_MAC, NEIGHBOUR_MAC, 0x88b6, &[7; 46])),
        "drop: ethertype-refused by guard guard/sane"
    );
    let group = wire::ether(GUEST_MAC, [1, 0x80, 0xc2, 0, 0, 0xe], 0x88b5, &[7; 46]);
    assert_eq!(nic.out(&group), "drop: reserved-group by guard guard/mac");
}

#[test]
fn answers_to_a_group_need_a_rule_that_says_from_whom() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &[
            "id: mdns, direction: out, action: allow, protocol: udp, remote: [224.0.0.251], ports: [5353], reply-from: [10.0.0.0/24]",
        ],
    ));
    let answer = wire::udp(&neighbour(5353), &guest(40_000), b"here");
    assert_eq!(nic.in_(&answer), "drop: default-drop by default");
    let ask = wire::udp(&guest(40_000), &group([224, 0, 0, 251], 5353), b"who is printer.local");
    assert_eq!(nic.out(&ask), "pass: stateless by rule mdns");
    assert_eq!(nic.in_(&wire::udp(&peer(5353), &guest(40_000), b"me")), "drop: default-drop by default");
    assert_eq!(nic.in_(&wire::udp(&neighbour(5353), &guest(40_001), b"me")), "drop: default-drop by default");
    assert_eq!(nic.in_(&answer), "pass: new by rule mdns; opened asked");
    // What it answered may be asked back.
    assert_eq!(
        nic.out(&wire::udp(&guest(40_000), &neighbour(5353), b"more")),
        "pass: established by conn mdns"
    );
    assert_eq!(nic.wait_s(31), "closed asked");
    assert_eq!(nic.in_(&answer), "drop: default-drop by default");
}

#[test]
fn groups_make_no_conn_and_no_tcp() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &["id: ssdp, direction: in, action: allow, protocol: udp, ports: [1900]"],
    ));
    let notify = wire::udp(&neighbour(1900), &group([239, 255, 255, 250], 1900), b"NOTIFY");
    assert_eq!(nic.in_(&notify), "pass: stateless by rule ssdp");
    assert_eq!(nic.in_(&notify), "pass: stateless by rule ssdp");
    let broadcast = wire::udp(&neighbour(1900), &group([255; 4], 1900), b"all");
    assert_eq!(nic.in_(&broadcast), "pass: stateless by rule ssdp");
    let mut tcp = wire::tcp(&neighbour(9), &guest(1900), &SYN);
    tcp[..6].copy_from_slice(&[0xff; 6]);
    assert_eq!(nic.in_(&tcp), "drop: martian by guard guard/sane");
}

#[test]
fn a_logging_rule_logs_its_verdicts_and_its_conns_refusals() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &[
            "id: web, direction: out, action: allow, protocol: tcp, ports: [80], log: true",
            "id: no, direction: out, action: drop, protocol: udp, log: true",
        ],
    ));
    assert_eq!(
        nic.out(&wire::tcp(&guest(40_000), &peer(80), &SYN)),
        "pass: new by rule web, logged; opened syn-sent"
    );
    let answer = Segment { syn: true, ..Segment::ack(9_000, 1_001) };
    assert_eq!(
        nic.in_(&wire::tcp(&peer(80), &guest(40_000), &answer)),
        "pass: established by conn web; syn-sent -> syn-received"
    );
    nic.out(&wire::tcp(&guest(40_000), &peer(80), &Segment::ack(1_001, 9_001)));
    let beyond = Segment { payload: 1, ..Segment::ack(9_001 + 70_000, 1_001) };
    assert_eq!(
        nic.in_(&wire::tcp(&peer(80), &guest(40_000), &beyond)),
        "drop: tcp-window by conn web, logged"
    );
    assert_eq!(
        nic.out(&wire::tcp(&guest(40_000), &peer(80), &Segment { syn: true, ..Segment::ack(1, 1) })),
        "drop: tcp-state by conn web, logged"
    );
    assert_eq!(nic.out(&wire::udp(&guest(9), &peer(9), b"")), "drop: rule-drop by rule no, logged");
}

#[test]
fn a_rule_counts_its_frames_bytes_conns_and_says_when_last() {
    let mut nic =
        Script::new(&rules("drop/drop", &["id: dns, direction: out, action: allow, protocol: udp"]));
    let frame = wire::udp(&guest(40_000), &peer(53), b"question");
    nic.out(&frame);
    nic.out(&frame);
    nic.in_(&wire::udp(&peer(53), &guest(40_000), b"answer"));
    nic.wait_ms(2_500);
    let now = nic.now();
    let stats = nic.engine().stats(now);
    let dns = stats.rules[&"dns".parse().unwrap()];
    let bytes = 2 * frame.len() + wire::udp(&peer(53), &guest(40_000), b"answer").len();
    assert_eq!((dns.frames, dns.bytes, dns.conns, dns.last_hit_s), (3, bytes as u64, 1, Some(2)));
    let arp = stats.rules[&"guard/arp".parse().unwrap()];
    assert_eq!((arp.frames, arp.last_hit_s), (0, None));
    assert_eq!((stats.frames.out, stats.frames.in_, stats.conns), (2, 1, 1));
    assert!(stats.drops.is_empty(), "{:?}", stats.drops);
}
