//! Living conns meet new rules: kept, re-tagged, drained or killed, each end told so that it believes it.
#![cfg(test)]

use fw_model::{ConnFilter, Direction, Protocol, Reason};
use fw_tests::places::{guest, neighbour, peer, rules, rules_for};
use fw_tests::script::Script;
use fw_tests::wire::{self, Segment};

const WEB: &str = "id: web, direction: out, action: allow, protocol: tcp, ports: [80]";
const DNS: &str = "id: dns, direction: out, action: allow, protocol: udp, ports: [53]";

/// The guest's conn to the peer's port 80, established; both ends have spoken.
fn talk(nic: &mut Script, port: u16) {
    let (client, server) = (guest(port), peer(80));
    let lines = [
        nic.out(&wire::tcp(&client, &server, &Segment::syn(1_000))),
        nic.in_(&wire::tcp(&server, &client, &Segment { syn: true, ..Segment::ack(9_000, 1_001) })),
        nic.out(&wire::tcp(&client, &server, &Segment::ack(1_001, 9_001))),
        nic.out(&wire::tcp(&client, &server, &Segment { payload: 100, ..Segment::ack(1_001, 9_001) })),
        nic.in_(&wire::tcp(&server, &client, &Segment { payload: 500, ..Segment::ack(9_001, 1_101) })),
        nic.out(&wire::tcp(&client, &server, &Segment::ack(1_101, 9_501))),
    ];
    assert!(lines.iter().all(|line| line.starts_with("pass")), "{lines:?}");
}

/// The guest's next byte, and what it makes of it.
fn say_more(nic: &mut Script, port: u16) -> String {
    nic.out(&wire::tcp(&guest(port), &peer(80), &Segment { payload: 1, ..Segment::ack(1_101, 9_501) }))
}

/// Sequence and acknowledgement of the reset that left this way.
fn reset(nic: &Script, direction: Direction) -> (u32, u32) {
    let header = wire::tcp_of(&nic.left_to(direction)[0]);
    assert!(header.rst && header.ack);
    (header.sequence_number, header.acknowledgment_number)
}

#[test]
fn a_conn_another_rule_allows_goes_on_by_that() {
    let mut nic = Script::new(&rules("drop/drop", &[WEB]));
    talk(&mut nic, 40_000);
    let other = "id: all-tcp, direction: out, action: allow, protocol: tcp";
    assert_eq!(nic.install(&rules("drop/drop", &[other])), "");
    assert_eq!(say_more(&mut nic, 40_000), "pass: established by conn all-tcp; now by all-tcp");
    assert_eq!(nic.wait_ms(0), "swept 2");
    nic.install(&rules("allow/drop", &[]));
    assert_eq!(nic.wait_ms(0), "now by the default; swept 3");
}

#[test]
fn the_next_frame_of_a_forbidden_conn_is_dropped_and_both_ends_are_told() {
    let mut nic = Script::new(&rules("drop/drop", &[WEB]));
    talk(&mut nic, 40_000);
    nic.install(&rules("drop/drop", &[]));
    assert_eq!(
        say_more(&mut nic, 40_000),
        "drop: revoked by conn web; rst+ack to guest; rst+ack to net; closed established"
    );
    // Exactly what each end expects next: nothing else is believed (RFC 5961).
    assert_eq!(reset(&nic, Direction::In), (9_501, 1_101));
    assert_eq!(reset(&nic, Direction::Out), (1_101, 9_501));
    assert_eq!(say_more(&mut nic, 40_000), "drop: no-conn by conn");
    assert_eq!(nic.wait_ms(0), "swept 2");
}

#[test]
fn the_sweep_closes_forbidden_conns_before_they_speak() {
    let mut nic = Script::new(&rules("drop/drop", &[WEB, DNS]));
    talk(&mut nic, 40_000);
    nic.out(&wire::udp(&guest(9), &peer(53), b"question"));
    nic.out(&wire::tcp(&guest(41_000), &peer(80), &Segment::syn(1_000)));
    nic.install(&rules("drop/drop", &[DNS]));
    // A SYN nobody answered has no other end yet.
    assert_eq!(
        nic.wait_ms(0),
        "rst+ack to guest; rst+ack to net; closed established; closed syn-sent; swept 2"
    );
    assert_eq!(
        nic.in_(&wire::udp(&peer(53), &guest(9), b"answer")),
        "pass: established by conn dns; asked -> answered"
    );
}

#[test]
fn a_half_open_conn_is_reset_where_both_ends_stand() {
    let mut nic = Script::new(&rules("drop/drop", &[WEB]));
    let (client, server) = (guest(40_000), peer(80));
    nic.out(&wire::tcp(&client, &server, &Segment::syn(1_000)));
    nic.in_(&wire::tcp(&server, &client, &Segment { syn: true, ..Segment::ack(9_000, 1_001) }));
    nic.install(&rules("drop/drop", &[]));
    assert_eq!(nic.wait_ms(0), "rst+ack to guest; rst+ack to net; closed syn-received; swept 2");
    assert_eq!(reset(&nic, Direction::In), (9_001, 1_001));
    assert_eq!(reset(&nic, Direction::Out), (1_001, 9_001));
}

#[test]
fn what_has_ended_is_not_reset() {
    let mut nic = Script::new(&rules("drop/drop", &[WEB]));
    talk(&mut nic, 40_000);
    let end = Segment { rst: true, ..Segment::ack(9_501, 1_101) };
    assert_eq!(
        nic.in_(&wire::tcp(&peer(80), &guest(40_000), &end)),
        "pass: established by conn web; established -> close"
    );
    nic.install(&rules("drop/drop", &[]));
    assert_eq!(nic.wait_ms(0), "closed close; swept 2");
}

#[test]
fn a_drained_conn_has_300_seconds_and_no_more() {
    let drained = "id: web, direction: out, action: allow, protocol: tcp, ports: [80], on_revoke: drain";
    let mut nic = Script::new(&rules("drop/drop", &[drained]));
    talk(&mut nic, 40_000);
    nic.install(&rules("drop/drop", &[]));
    assert_eq!(say_more(&mut nic, 40_000), "pass: established by conn web");
    nic.wait_s(299);
    assert_eq!(say_more(&mut nic, 40_000), "pass: established by conn web");
    // Nor do later rules that forbid it too give it another 300.
    nic.install(&rules("drop/drop", &[DNS]));
    assert_eq!(say_more(&mut nic, 40_000), "pass: established by conn web");
    assert_eq!(nic.wait_ms(1_100), "closed established; swept 3");
    assert_eq!(say_more(&mut nic, 40_000), "drop: no-conn by conn");
    assert_eq!(nic.out(&wire::tcp(&guest(1), &peer(80), &Segment::syn(1))), "drop: default-drop by default");
}

#[test]
fn a_kept_conn_lives_on_and_nothing_new_joins_it() {
    let kept = "id: web, direction: out, action: allow, protocol: tcp, ports: [80], on_revoke: keep";
    let mut nic = Script::new(&rules("drop/drop", &[kept]));
    talk(&mut nic, 40_000);
    nic.install(&rules("drop/drop", &[]));
    assert_eq!(nic.wait_s(3_000), "swept 2");
    assert_eq!(say_more(&mut nic, 40_000), "pass: established by conn web");
    assert_eq!(nic.out(&wire::tcp(&guest(1), &peer(80), &Segment::syn(1))), "drop: default-drop by default");
}

#[test]
fn a_change_of_the_nics_own_identity_always_kills() {
    let kept = "id: web, direction: out, action: allow, protocol: tcp, on_revoke: keep";
    let killed = "rst+ack to guest; rst+ack to net; closed established; swept 2";
    let with = |nic: &str| rules_for(nic, "", "drop/drop", &[kept]);
    let other_mac = with("").replace("52:54:00:00:00:01", "52:54:00:00:00:03");
    for changed in [with("addresses: [10.0.0.11]"), with("vlan: 30"), other_mac] {
        let mut nic = Script::new(&with(""));
        talk(&mut nic, 40_000);
        nic.install(&changed);
        assert_eq!(nic.wait_ms(0), killed, "{changed}");
    }
    // What is only added takes nothing away.
    let mut nic = Script::new(&with(""));
    talk(&mut nic, 40_000);
    nic.install(&with("addresses: [10.0.0.10, 10.0.0.11]"));
    assert_eq!(nic.wait_ms(0), "swept 2");
}

#[test]
fn a_conn_is_judged_again_as_its_opener_opened_it() {
    // Asked from the guest; now only the peer may open.
    let mut nic = Script::new(&rules("drop/drop", &[DNS]));
    nic.out(&wire::udp(&guest(53), &peer(53), b"question"));
    let answer = wire::udp(&peer(53), &guest(53), b"answer");
    nic.install(&rules("drop/drop", &["id: in-dns, direction: in, action: allow, protocol: udp"]));
    assert_eq!(nic.in_(&answer), "drop: revoked by conn dns; closed asked");
    assert_eq!(nic.in_(&answer), "pass: new by rule in-dns; opened asked");
    // Opened by the peer; that the guest may not ask is no matter, nor that its answers look like requests.
    nic.install(&rules(
        "drop/drop",
        &["id: still, direction: in, action: allow, protocol: udp, ports: [53]"],
    ));
    let reply = wire::udp(&guest(53), &peer(53), b"reply");
    assert_eq!(
        nic.out(&reply),
        "pass: established by conn still; asked -> answered; now by still".replace("; now by still", "")
    );
}

#[test]
fn an_address_that_leaves_its_set_takes_its_conns_along() {
    let set = |members: &str| {
        rules_for(
            "",
            &format!("address-sets: {{app: [{members}]}}"),
            "drop/drop",
            &["id: app, direction: out, action: allow, protocol: udp, remote: [{set: app}]"],
        )
    };
    let mut nic = Script::new(&set("10.0.0.20, 198.51.100.0/24"));
    assert_eq!(nic.out(&wire::udp(&guest(9), &neighbour(9), b"x")), "pass: new by rule app; opened asked");
    assert_eq!(nic.out(&wire::udp(&guest(9), &peer(9), b"x")), "pass: new by rule app; opened asked");
    nic.install(&set("198.51.100.0/24"));
    assert_eq!(
        nic.in_(&wire::udp(&neighbour(9), &guest(9), b"y")),
        "drop: revoked by conn app; closed asked"
    );
    assert_eq!(
        nic.in_(&wire::udp(&peer(9), &guest(9), b"y")),
        "pass: established by conn app; asked -> answered"
    );
}

#[test]
fn an_error_about_a_forbidden_conn_does_not_pass() {
    let mut nic = Script::new(&rules("drop/drop", &[DNS]));
    let question = wire::udp(&guest(9), &peer(53), b"question");
    nic.out(&question);
    nic.install(&rules("drop/drop", &[]));
    let error = wire::icmp_error(&peer(0), &guest(0), (3, 3), [0; 4], &question);
    assert_eq!(nic.in_(&error), "drop: revoked by conn dns; closed asked");
}

#[test]
fn what_reply_from_let_in_is_judged_by_reply_from() {
    let asks = |from: &str| {
        rules(
            "drop/drop",
            &[&format!(
                "id: mdns, direction: out, action: allow, protocol: udp, ports: [5353], reply-from: [{from}]"
            )],
        )
    };
    let group = fw_tests::places::group([224, 0, 0, 251], 5353);
    let answer = wire::udp(&neighbour(5353), &guest(40_000), b"me");
    let mut nic = Script::new(&asks("10.0.0.0/24"));
    nic.out(&wire::udp(&guest(40_000), &group, b"who"));
    assert_eq!(nic.in_(&answer), "pass: new by rule mdns; opened asked");
    nic.install(&asks("10.0.0.0/28, 10.0.0.20"));
    assert_eq!(nic.in_(&answer), "pass: established by conn mdns; asked -> answered");
    nic.install(&asks("10.0.0.0/28"));
    assert_eq!(nic.in_(&answer), "drop: revoked by conn mdns; closed answered");
    // A question of older rules is answered no more.
    assert_eq!(nic.in_(&answer), "drop: default-drop by default");
}

#[test]
fn a_great_sweep_ends_and_tells_a_thousand_a_second() {
    let mut nic = Script::new(&rules("drop/drop", &[WEB]));
    for port in 0..600 {
        talk(&mut nic, 40_000 + port);
    }
    nic.install(&rules("drop/drop", &[]));
    let told = nic.wait_ms(0);
    assert_eq!(told.matches("rst+ack to").count(), 1_000, "600 conns have 1,200 ends");
    assert_eq!(told.matches("closed established").count(), 600);
    assert!(told.ends_with("; swept 2"), "{told}");
}

#[test]
fn the_sweep_goes_in_steps_and_frames_do_not_wait_for_it() {
    let mut nic = Script::new(&rules("drop/drop", &[DNS]));
    for port in 1..=1_000 {
        nic.out(&wire::udp(&guest(port), &peer(53), b"question"));
    }
    nic.install(&rules("drop/drop", &[]));
    let now = nic.now();
    let mut answers = fw_engine::Answers::with_capacity(1, 64);
    nic.engine().expire(now, &mut answers);
    let half = nic.engine().stats(now);
    assert!((1..1_000).contains(&half.conns) && half.swept == Some(1), "{half:?}");
    assert!(nic.engine().next_due().is_some_and(|due| due <= now), "there is more to do");
    nic.jump_ms(0);
    let line = nic.out(&wire::udp(&guest(1_000), &peer(53), b"question"));
    assert_eq!(line, "drop: revoked by conn dns; closed asked");
    nic.wait_ms(0);
    assert_eq!(nic.engine().stats(now).swept, Some(2));
    assert_eq!(nic.engine().stats(now).conns, 0);
}

#[test]
fn the_operator_kills_the_conns_that_match() {
    let mut nic = Script::new(&rules("drop/drop", &[WEB, DNS]));
    talk(&mut nic, 40_000);
    talk(&mut nic, 40_001);
    nic.out(&wire::udp(&guest(40_000), &peer(53), b"question"));
    let none = ConnFilter { rule: Some("other".parse().unwrap()), ..ConnFilter::default() };
    assert_eq!(nic.kill(&none), "killed 0");
    let port = ConnFilter { port: Some(40_000), protocol: Some(Protocol::TCP), ..ConnFilter::default() };
    assert_eq!(nic.kill(&port), "killed 1; rst+ack to guest; rst+ack to net; closed established");
    assert_eq!(
        nic.kill(&ConnFilter { local: Some("10.0.0.11".parse().unwrap()), ..ConnFilter::default() }),
        "killed 0"
    );
    let dns = ConnFilter { rule: Some("dns".parse().unwrap()), ..ConnFilter::default() };
    assert_eq!(nic.kill(&dns), "killed 1; closed asked");
    let remote = ConnFilter { remote: Some("198.51.100.0/24".parse().unwrap()), ..ConnFilter::default() };
    assert_eq!(nic.kill(&remote), "killed 1; rst+ack to guest; rst+ack to net; closed established");
    assert_eq!(say_more(&mut nic, 40_001), "drop: no-conn by conn");
}

#[test]
fn whoever_follows_the_table_is_told_every_change_once() {
    let mut nic = Script::new(&rules("drop/drop", &[DNS]));
    let now = nic.now();
    let changes = |nic: &mut Script| {
        let mut seen = Vec::new();
        nic.engine()
            .changed(now, 100, |slot, conn| seen.push((slot, conn.map(|(conn, _)| conn.state.name()))));
        seen.sort_unstable();
        seen
    };
    nic.engine().follow(fw_engine::Follower::CrashCopy);
    assert_eq!(changes(&mut nic), []);
    nic.out(&wire::udp(&guest(1), &peer(53), b"question"));
    nic.out(&wire::udp(&guest(2), &peer(53), b"question"));
    assert_eq!(changes(&mut nic), [(0, Some("asked")), (1, Some("asked"))]);
    assert_eq!(changes(&mut nic), []);
    nic.in_(&wire::udp(&peer(53), &guest(2), b"answer"));
    assert_eq!(changes(&mut nic), [(1, Some("answered"))]);
    nic.kill(&ConnFilter::default());
    assert_eq!(changes(&mut nic), [(0, None), (1, None)]);
}

#[test]
fn counters_stay_with_a_rules_id_and_are_written_as_promised() {
    let mut nic = Script::new(&rules("drop/drop", &[DNS, WEB]));
    nic.out(&wire::udp(&guest(1), &peer(53), b"question"));
    nic.out(&wire::udp(&guest(1), &peer(54), b"question"));
    nic.install(&rules("drop/drop", &[WEB, DNS]));
    nic.wait_ms(2_000);
    nic.out(&wire::udp(&guest(1), &peer(53), b"question"));
    let now = nic.now();
    let stats = nic.engine().stats(now);
    assert_eq!((stats.generation, stats.enforced, stats.swept), (Some(2), Some(2), Some(2)));
    assert_eq!(stats.drops.get(&Reason::DefaultDrop), Some(&1));
    let json = serde_json::to_value(&stats).unwrap();
    let expected = serde_json::json!({"frames": 2, "bytes": 100, "conns": 1, "last_hit_s": 0});
    assert_eq!(json["rules"]["dns"], expected);
    assert_eq!(json["frames"], serde_json::json!({"out": 2, "in": 0}));
    assert_eq!(json["drops"], serde_json::json!({"default-drop": 1}));
    assert_eq!((&json["nic"], &json["conns"]), (&"web-1".into(), &1.into()));
    nic.install(&rules("drop/drop", &[WEB]));
    nic.wait_ms(0);
    nic.install(&rules("drop/drop", &[WEB]));
    assert!(
        !nic.engine().stats(now).rules.contains_key(&"dns".parse().unwrap()),
        "a rule nobody remembers is gone"
    );
}

#[test]
fn a_conn_that_goes_on_by_another_rule_leaves_room_by_the_first() {
    let one = "id: one, direction: out, action: allow, protocol: udp, limits: {conns: 1}";
    let mut nic = Script::new(&rules("drop/drop", &[one]));
    let ask = |port| wire::udp(&guest(port), &peer(53), b"question");
    nic.out(&ask(1));
    assert_eq!(nic.out(&ask(2)), "drop: rule-conns by rule one");
    let first = "id: first, direction: out, action: allow, protocol: udp, remote: [198.51.100.7]";
    nic.install(&rules("drop/drop", &[first, one]));
    assert_eq!(nic.wait_ms(0), "now by first; swept 2");
    let elsewhere = wire::udp(&guest(1), &neighbour(53), b"question");
    assert_eq!(nic.out(&elsewhere), "pass: new by rule one; opened asked");
    // And takes its room there: back by the first rule, there are two of one.
    nic.install(&rules("drop/drop", &[one]));
    assert_eq!(nic.wait_ms(0), "now by one; swept 3");
    nic.kill(&ConnFilter { remote: Some("10.0.0.20".parse().unwrap()), ..ConnFilter::default() });
    assert_eq!(nic.out(&ask(2)), "drop: rule-conns by rule one");
}

#[test]
fn a_question_of_older_rules_is_not_answered() {
    let text = rules(
        "drop/drop",
        &["id: mdns, direction: out, action: allow, protocol: udp, ports: [5353], reply-from: [10.0.0.0/24]"],
    );
    let group = fw_tests::places::group([224, 0, 0, 251], 5353);
    let mut nic = Script::new(&text);
    nic.out(&wire::udp(&guest(40_000), &group, b"who"));
    // An answer is a datagram, whoever it comes from.
    let syn = wire::tcp(&neighbour(5353), &guest(40_000), &Segment::syn(1));
    assert_eq!(nic.in_(&syn), "drop: default-drop by default");
    nic.install(&text);
    let answer = wire::udp(&neighbour(5353), &guest(40_000), b"me");
    assert_eq!(nic.in_(&answer), "drop: default-drop by default");
    nic.out(&wire::udp(&guest(40_000), &group, b"who"));
    assert_eq!(nic.in_(&answer), "pass: new by rule mdns; opened asked");
}

#[test]
fn a_conn_drained_before_keeps_its_end_when_it_is_drained_again() {
    let drained = "id: web, direction: out, action: allow, protocol: tcp, ports: [80], on_revoke: drain";
    let mut nic = Script::new(&rules("drop/drop", &[drained]));
    talk(&mut nic, 40_000);
    nic.install(&rules("drop/drop", &[]));
    nic.wait_s(200);
    nic.install(&rules("drop/drop", &[drained]));
    nic.wait_s(50);
    nic.install(&rules("drop/drop", &[]));
    assert_eq!(nic.wait_s(49), "swept 4");
    assert_eq!(say_more(&mut nic, 40_000), "pass: established by conn web");
    assert_eq!(nic.wait_ms(1_100), "closed established");
}
