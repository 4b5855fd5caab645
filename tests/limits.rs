//! A limit on everything: what happens at each, and that it is told by its own reason.
#![cfg(test)]

use fw_tests::places::{guest, neighbour, peer, rules, rules_for};
use fw_tests::script::Script;
use fw_tests::wire::{self, Segment};

const SYN: Segment = Segment::syn(1_000);

/// A first datagram from this port of the guest.
fn ask(port: u16) -> Vec<u8> {
    wire::udp(&guest(port), &peer(53), b"question")
}

/// The guest's handshake from this port, to its end.
fn greet(nic: &mut Script, port: u16) {
    let (client, server) = (guest(port), peer(80));
    let lines = [
        nic.out(&wire::tcp(&client, &server, &SYN)),
        nic.in_(&wire::tcp(&server, &client, &Segment { syn: true, ..Segment::ack(9_000, 1_001) })),
        nic.out(&wire::tcp(&client, &server, &Segment::ack(1_001, 9_001))),
    ];
    assert!(lines.iter().all(|line| line.starts_with("pass")), "{lines:?}");
}

#[test]
fn a_rule_has_so_many_living_conns() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &["id: dns, direction: out, action: allow, protocol: udp, limits: {conns: 2}"],
    ));
    assert_eq!(nic.out(&ask(1)), "pass: new by rule dns; opened asked");
    assert_eq!(nic.out(&ask(2)), "pass: new by rule dns; opened asked");
    assert_eq!(nic.out(&ask(3)), "drop: rule-conns by rule dns");
    assert_eq!(nic.out(&ask(1)), "pass: established by conn dns");
    assert_eq!(nic.wait_s(31), "closed asked; closed asked");
    assert_eq!(nic.out(&ask(3)), "pass: new by rule dns; opened asked");
}

#[test]
fn lowering_a_rules_limit_closes_nothing_but_lets_nothing_in() {
    let with = |conns| {
        rules(
            "drop/drop",
            &[&format!("id: dns, direction: out, action: allow, protocol: udp, limits: {{conns: {conns}}}")],
        )
    };
    let mut nic = Script::new(&with(3));
    for port in 1..=3 {
        nic.out(&ask(port));
    }
    assert_eq!(nic.install(&with(1)), "");
    assert_eq!(nic.wait_ms(0), "swept 2");
    assert_eq!(nic.out(&ask(3)), "pass: established by conn dns");
    assert_eq!(nic.out(&ask(4)), "drop: rule-conns by rule dns");
}

#[test]
fn a_rule_admits_so_many_conns_a_second() {
    let with = |rate| {
        rules(
            "drop/drop",
            &[&format!(
                "id: dns, direction: out, action: allow, protocol: udp, limits: {{new_per_s: {rate}}}"
            )],
        )
    };
    let mut nic = Script::new(&with(2));
    assert_eq!(nic.out(&ask(1)), "pass: new by rule dns; opened asked");
    assert_eq!(nic.out(&ask(2)), "pass: new by rule dns; opened asked");
    assert_eq!(nic.out(&ask(3)), "drop: new-conn-rate by rule dns");
    // The same limit in new rules is the same limit.
    nic.install(&with(2));
    nic.wait_ms(0);
    assert_eq!(nic.out(&ask(3)), "drop: new-conn-rate by rule dns");
    assert_eq!(nic.wait_ms(500), "");
    assert_eq!(nic.out(&ask(3)), "pass: new by rule dns; opened asked");
    assert_eq!(nic.out(&ask(4)), "drop: new-conn-rate by rule dns");
}

#[test]
fn a_nic_admits_so_many_conns_a_second() {
    let mut nic = Script::new(&rules_for("", "limits: {new_conns_per_s: 2}", "allow/allow", &[]));
    assert_eq!(nic.out(&ask(1)), "pass: new by default; opened asked");
    assert_eq!(nic.in_(&wire::udp(&peer(1), &guest(9), b"")), "pass: new by default; opened asked");
    assert_eq!(nic.out(&ask(3)), "drop: new-conn-rate by default");
    assert_eq!(nic.out(&ask(1)), "pass: established by conn");
    nic.wait_ms(1_000);
    assert_eq!(nic.out(&ask(3)), "pass: new by default; opened asked");
}

#[test]
fn rates_bound_each_direction_by_itself() {
    let limits = "limits: {rates: {out: {frames_per_s: 3}, in: {frames_per_s: 5}}}";
    let mut nic = Script::new(&rules_for("", limits, "allow/allow", &[]));
    let passed = |nic: &mut Script| {
        let out = (0..9).filter(|_| nic.out(&ask(1)).starts_with("pass")).count();
        let back = wire::udp(&peer(53), &guest(1), b"answer");
        let in_ = (0..9).filter(|_| nic.in_(&back).starts_with("pass")).count();
        (out, in_)
    };
    assert_eq!(passed(&mut nic), (3, 5));
    assert_eq!(nic.out(&ask(1)), "drop: rate-limit by guard");
    nic.wait_ms(1_000);
    assert_eq!(passed(&mut nic), (3, 5));
    nic.install(&rules_for("", limits, "allow/allow", &[]));
    assert_eq!(passed(&mut nic), (0, 0), "new rules fill no bucket");
}

#[test]
fn bits_are_counted_as_frames_are_long() {
    // One second's worth holds one super-segment at least: 65,553 bytes.
    let limits = "limits: {rates: {out: {bits_per_s: 80000}}}";
    let mut nic = Script::new(&rules_for("", limits, "allow/allow", &[]));
    let big = wire::udp(&guest(1), &peer(53), &[0; 958]);
    assert_eq!(big.len(), 1_000);
    let passed = |nic: &mut Script| (0..100).filter(|_| nic.out(&big).starts_with("pass")).count();
    assert_eq!(passed(&mut nic), 65);
    nic.wait_ms(1_000);
    assert_eq!(passed(&mut nic), 10);
    assert!((0..100).all(|_| nic.in_(&wire::udp(&peer(53), &guest(1), &[0; 958])).starts_with("pass")));
}

#[test]
fn a_full_table_keeps_what_is_established_and_evicts_what_never_answered() {
    let mut nic = Script::new(&rules_for("", "limits: {conns: 3, half_open: 3}", "allow/drop", &[]));
    greet(&mut nic, 1);
    assert_eq!(nic.out(&ask(2)), "pass: new by default; opened asked");
    nic.wait_ms(1);
    assert_eq!(nic.out(&ask(3)), "pass: new by default; opened asked");
    // The oldest that never got an answer goes.
    assert_eq!(nic.out(&ask(4)), "pass: new by default; closed asked; opened asked");
    assert_eq!(nic.in_(&wire::udp(&peer(53), &guest(2), b"late")), "drop: default-drop by default");
    assert_eq!(
        nic.in_(&wire::udp(&peer(53), &guest(3), b"answer")),
        "pass: established by conn; asked -> answered"
    );
    nic.in_(&wire::udp(&peer(53), &guest(4), b"answer"));
    assert_eq!(nic.out(&ask(5)), "drop: table-full by default");
    greet_is_alive(&mut nic, 1);
}

fn greet_is_alive(nic: &mut Script, port: u16) {
    let data = Segment { payload: 10, ..Segment::ack(1_001, 9_001) };
    assert_eq!(nic.out(&wire::tcp(&guest(port), &peer(80), &data)), "pass: established by conn");
}

#[test]
fn half_open_conns_have_a_pool_of_their_own() {
    let mut nic = Script::new(&rules_for("", "limits: {conns: 100, half_open: 2}", "drop/allow", &[]));
    let flood = |port| wire::tcp(&neighbour(port), &guest(22), &SYN);
    assert_eq!(nic.in_(&flood(1)), "pass: new by default; opened syn-sent");
    assert_eq!(nic.in_(&flood(2)), "pass: new by default; opened syn-sent");
    assert_eq!(nic.in_(&flood(3)), "pass: new by default; closed syn-sent; opened syn-sent");
    // Answered is not yet proven: only the handshake's end is.
    let answer = Segment { syn: true, ..Segment::ack(9_000, 1_001) };
    nic.out(&wire::tcp(&guest(22), &neighbour(3), &answer));
    assert_eq!(
        nic.in_(&wire::tcp(&neighbour(3), &guest(22), &Segment::ack(1_001, 9_001))),
        "pass: established by conn; syn-received -> established"
    );
    assert_eq!(nic.in_(&flood(4)), "pass: new by default; opened syn-sent");
    assert_eq!(nic.in_(&flood(5)), "pass: new by default; closed syn-sent; opened syn-sent");
    let data = Segment { payload: 1, ..Segment::ack(1_001, 9_001) };
    assert_eq!(nic.in_(&wire::tcp(&neighbour(3), &guest(22), &data)), "pass: established by conn");
}

#[test]
fn a_rule_ends_at_its_time_and_its_conns_are_judged_again() {
    let mut nic = Script::new(&rules(
        "drop/drop",
        &[
            "id: today, direction: out, action: allow, protocol: udp, expires_in_s: 60",
            "id: dns, direction: out, action: allow, protocol: udp, remote: [198.51.100.7]",
        ],
    ));
    let elsewhere = wire::udp(&guest(1), &neighbour(53), b"question");
    assert_eq!(nic.out(&ask(1)), "pass: new by rule today; opened asked");
    nic.wait_ms(59_000);
    assert_eq!(nic.out(&ask(1)), "pass: new by rule today; opened asked");
    assert_eq!(nic.out(&elsewhere), "pass: new by rule today; opened asked");
    assert_eq!(nic.wait_ms(999), "");
    assert_eq!(nic.out(&elsewhere), "pass: established by conn today");
    // One goes on by the next rule, the other has none.
    assert_eq!(nic.wait_ms(1), "closed asked; now by dns");
    assert_eq!(nic.out(&elsewhere), "drop: default-drop by default");
    assert_eq!(nic.out(&ask(2)), "pass: new by rule dns; opened asked");
}

#[test]
fn an_ended_rule_admits_nothing_however_late_the_timers_are() {
    let text =
        rules("drop/drop", &["id: now, direction: out, action: allow, protocol: udp, expires_in_s: 1"]);
    let mut nic = Script::new(&text);
    nic.out(&ask(1));
    nic.jump_ms(1_000);
    assert_eq!(nic.out(&ask(2)), "drop: default-drop by default");
    assert_eq!(nic.out(&ask(1)), "drop: revoked by conn now; closed asked");
    let gone = rules("drop/drop", &["id: never, direction: out, action: allow, expires_in_s: 0"]);
    let mut nic = Script::without_rules();
    nic.install(&gone);
    assert_eq!(nic.out(&ask(1)), "drop: default-drop by default");
}

#[test]
fn expected_answers_are_few_and_the_oldest_go() {
    let text = |expectations: u32| {
        rules_for(
            "",
            &format!("limits: {{expectations: {expectations}}}"),
            "drop/drop",
            &["id: mdns, direction: out, action: allow, protocol: udp, reply-from: [10.0.0.0/24]"],
        )
    };
    let group = fw_tests::places::group([224, 0, 0, 251], 5353);
    let mut nic = Script::new(&text(2));
    for port in [1, 2, 3] {
        assert_eq!(nic.out(&wire::udp(&guest(port), &group, b"who")), "pass: stateless by rule mdns");
    }
    let answer = |port| wire::udp(&neighbour(5353), &guest(port), b"me");
    assert_eq!(nic.in_(&answer(1)), "drop: default-drop by default");
    assert_eq!(nic.in_(&answer(2)), "pass: new by rule mdns; opened asked");
    assert_eq!(nic.in_(&answer(3)), "pass: new by rule mdns; opened asked");
    let mut nic = Script::new(&text(0));
    nic.out(&wire::udp(&guest(1), &group, b"who"));
    assert_eq!(nic.in_(&answer(1)), "drop: default-drop by default");
}

#[test]
fn an_evicted_or_ended_conn_leaves_its_room_in_its_rule() {
    let mut nic = Script::new(&rules_for(
        "",
        "limits: {half_open: 1}",
        "drop/drop",
        &["id: dns, direction: out, action: allow, protocol: udp, limits: {conns: 2}"],
    ));
    nic.out(&ask(1));
    for port in 2..6 {
        assert_eq!(nic.out(&ask(port)), "pass: new by rule dns; closed asked; opened asked");
    }
    let mut nic = Script::new(&rules(
        "drop/drop",
        &["id: web, direction: out, action: allow, protocol: tcp, limits: {conns: 1}"],
    ));
    greet(&mut nic, 1);
    nic.in_(&wire::tcp(&peer(80), &guest(1), &Segment { rst: true, ..Segment::ack(9_001, 1_001) }));
    assert_eq!(
        nic.out(&wire::tcp(&guest(1), &peer(80), &Segment::syn(7))),
        "pass: new by rule web; close -> syn-sent"
    );
}
