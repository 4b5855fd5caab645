//! Two firewalls back to back, one guest behind each: what one end makes, the other understands.
#![cfg(test)]

use fw_engine::{ConnState, Trust, VnetHeader};
use fw_model::Direction;
use fw_tests::places::{GUEST_MAC, GUEST_V4, NEIGHBOUR_MAC, NEIGHBOUR_V4, group, guest, neighbour};
use fw_tests::script::Script;
use fw_tests::wire::{self, End, Segment, fragments};

/// Both ends know each other's MAC address.
const PEERS: &str = "address-sets: {link: [{address: 10.0.0.10, mac: \"52:54:00:00:00:01\"}, \
                     {address: 10.0.0.20, mac: \"52:54:00:00:00:02\"}]}";

/// A wire between two firewalls, and the guests at its ends.
struct Wire {
    a: Script,
    b: Script,
    /// What reached each guest in the last step.
    to_a: Vec<Vec<u8>>,
    to_b: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    A,
    B,
}

fn rules(side: Side, defaults: &str, rules: &[&str]) -> String {
    let (id, mac, address) = match side {
        Side::A => ("a", "52:54:00:00:00:01", "10.0.0.10"),
        Side::B => ("b", "52:54:00:00:00:02", "10.0.0.20"),
    };
    let (out, in_) = defaults.split_once('/').unwrap();
    let rules: String = rules.iter().map(|rule| format!("  - {{{rule}}}\n")).collect();
    format!(
        "nic: {{id: {id}, mac: \"{mac}\", addresses: [{address}]}}\ndefaults: {{out: {out}, in: {in_}}}\n{PEERS}\n{}{rules}",
        if rules.is_empty() { "" } else { "rules:\n" }
    )
}

impl Wire {
    fn new(a: (&str, &[&str]), b: (&str, &[&str])) -> Self {
        let a = Script::new(&rules(Side::A, a.0, a.1));
        let b = Script::new(&rules(Side::B, b.0, b.1));
        Self { a, b, to_a: Vec::new(), to_b: Vec::new() }
    }

    /// The guest at `side` sends a frame; what each firewall on the way says, until nothing is on the wire.
    fn send(&mut self, side: Side, frame: &[u8]) -> Vec<String> {
        (self.to_a, self.to_b) = (Vec::new(), Vec::new());
        let line = self.end(side).frame(Direction::Out, frame, VnetHeader::NONE);
        let mut said = vec![named(side, &line)];
        self.carry(side, &mut said);
        said
    }

    /// New rules at one end, and time for its sweep.
    fn install(&mut self, side: Side, defaults: &str, list: &[&str]) -> Vec<String> {
        (self.to_a, self.to_b) = (Vec::new(), Vec::new());
        let end = self.end(side);
        end.install(&rules(side, defaults, list));
        let line = end.wait_ms(0);
        let mut said = vec![named(side, &line)];
        self.carry(side, &mut said);
        said
    }

    /// The guest at `side` moves to another host, with these rules: its conns arrive and it is announced.
    fn relocate(&mut self, side: Side, defaults: &str, list: &[&str], trust: Trust) -> Vec<String> {
        (self.to_a, self.to_b) = (Vec::new(), Vec::new());
        let old = self.end(side);
        let (leaving, names) = old.export();
        *old = Script::new(&rules(side, defaults, list));
        let line = old.adopt(&leaving, &names, trust);
        let mut said = vec![named(side, &line)];
        self.end(side).announce();
        self.carry(side, &mut said);
        said
    }

    fn end(&mut self, side: Side) -> &mut Script {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    /// Takes what left `side` to the other end and to its guest, and so on.
    fn carry(&mut self, side: Side, said: &mut Vec<String>) {
        let left: Vec<_> = self.end(side).left().to_vec();
        let guest = if side == Side::A { &mut self.to_a } else { &mut self.to_b };
        guest.extend(
            left.iter().filter(|left| left.direction == Direction::In).map(|left| left.bytes.clone()),
        );
        let other = if side == Side::A { Side::B } else { Side::A };
        for frame in left.into_iter().filter(|left| left.direction == Direction::Out) {
            let line = self.end(other).frame(Direction::In, &frame.bytes, frame.vnet);
            said.push(named(other, &line));
            assert!(said.len() < 100, "the ends never fall silent: {said:#?}");
            self.carry(other, said);
        }
    }

    /// A handshake of A's port 40000 with B's port 80, and a request.
    fn greet(&mut self) {
        let (a, b) = (guest(40_000), neighbour(80));
        let steps = [
            self.send(Side::A, &wire::tcp(&a, &b, &Segment::syn(1_000))),
            self.send(Side::B, &wire::tcp(&b, &a, &Segment { syn: true, ..Segment::ack(9_000, 1_001) })),
            self.send(Side::A, &wire::tcp(&a, &b, &Segment::ack(1_001, 9_001))),
            self.send(Side::A, &wire::tcp(&a, &b, &Segment { payload: 10, ..Segment::ack(1_001, 9_001) })),
            self.send(Side::B, &wire::tcp(&b, &a, &Segment::ack(9_001, 1_011))),
        ];
        for step in &steps {
            assert!(step.len() == 2 && step.iter().all(|line| line.contains("pass")), "{steps:#?}");
        }
    }
}

fn named(side: Side, line: &str) -> String {
    format!("{}: {line}", if side == Side::A { "a" } else { "b" })
}

const OPEN: (&str, &[&str]) = ("allow/allow", &[]);

#[test]
fn a_conn_crosses_both_ends() {
    let mut wire = Wire::new(
        ("drop/drop", &["id: to-web, direction: out, action: allow, protocol: tcp, ports: [80]"]),
        ("drop/drop", &["id: web, direction: in, action: allow, protocol: tcp, ports: [80]"]),
    );
    wire.greet();
    let (a, b) = (guest(40_000), neighbour(80));
    let said = wire.send(Side::B, &wire::tcp(&b, &a, &Segment { fin: true, ..Segment::ack(9_001, 1_011) }));
    assert_eq!(
        said,
        [
            "b: pass: established by conn web; established -> fin-wait",
            "a: pass: established by conn to-web; established -> fin-wait"
        ]
    );
    let said = wire.send(Side::B, &wire::tcp(&b, &guest(9), &Segment::syn(5)));
    assert_eq!(said, ["b: drop: default-drop by default"]);
}

#[test]
fn what_the_own_end_rejects_never_reaches_the_wire() {
    let mut wire = Wire::new(("reject/drop", &[]), OPEN);
    let said = wire.send(Side::A, &wire::tcp(&guest(40_000), &neighbour(80), &Segment::syn(1_000)));
    assert_eq!(said, ["a: reject: default-reject by default; rst+ack to guest"]);
    assert_eq!((wire.to_a.len(), wire.to_b.len()), (1, 0));
}

#[test]
fn what_the_other_end_rejects_closes_the_asking_conn() {
    let mut wire = Wire::new(("allow/drop", &[]), ("drop/reject", &[]));
    let said = wire.send(Side::A, &wire::tcp(&guest(40_000), &neighbour(80), &Segment::syn(1_000)));
    assert_eq!(
        said,
        [
            "a: pass: new by default; opened syn-sent",
            "b: reject: default-reject by default; rst+ack to net",
            "a: pass: established by conn; syn-sent -> close"
        ]
    );
    let reset = wire::tcp_of(&wire.to_a[0]);
    assert!(reset.rst && reset.acknowledgment_number == 1_001);
    // The guest may try again at once.
    let said = wire.send(Side::A, &wire::tcp(&guest(40_000), &neighbour(80), &Segment::syn(5_000)));
    assert_eq!(said.last().unwrap(), "a: pass: established by conn; syn-sent -> close");
    for frame in
        [wire::udp(&guest(9), &neighbour(53), b"question"), wire::echo(&guest(0), &neighbour(0), 7, true)]
    {
        let said = wire.send(Side::A, &frame);
        assert_eq!(
            said,
            [
                "a: pass: new by default; opened asked",
                "b: reject: default-reject by default; icmp 3/13 to net",
                "a: pass: related by conn"
            ]
        );
        assert_eq!((wire.to_a.len(), wire.to_b.len()), (1, 0));
    }
}

#[test]
fn rules_that_forbid_at_one_end_end_the_conn_at_both() {
    for side in [Side::A, Side::B] {
        let (other, own_guest) = if side == Side::A { ("b", "a") } else { ("a", "b") };
        let mut wire = Wire::new(OPEN, OPEN);
        wire.greet();
        let said = wire.install(side, "drop/drop", &[]);
        assert_eq!(
            said,
            [
                format!("{own_guest}: rst+ack to guest; rst+ack to net; closed established; swept 2"),
                format!("{other}: pass: established by conn; established -> close")
            ]
        );
        // Each guest gets the reset it believes: just what it expects next.
        let (at_a, at_b) = (wire::tcp_of(&wire.to_a[0]), wire::tcp_of(&wire.to_b[0]));
        assert!(at_a.rst && at_b.rst);
        assert_eq!((at_a.sequence_number, at_a.acknowledgment_number), (9_001, 1_011));
        assert_eq!((at_b.sequence_number, at_b.acknowledgment_number), (1_011, 9_001));
        assert_eq!((wire.to_a.len(), wire.to_b.len()), (1, 1));
    }
}

#[test]
fn a_half_open_conn_is_ended_at_both_too() {
    for side in [Side::A, Side::B] {
        let mut wire = Wire::new(OPEN, OPEN);
        let (a, b) = (guest(40_000), neighbour(80));
        wire.send(Side::A, &wire::tcp(&a, &b, &Segment::syn(1_000)));
        wire.send(Side::B, &wire::tcp(&b, &a, &Segment { syn: true, ..Segment::ack(9_000, 1_001) }));
        let said = wire.install(side, "drop/drop", &[]);
        assert!(said[1].ends_with("pass: established by conn; syn-received -> close"), "{said:#?}");
        assert_eq!((wire.to_a.len(), wire.to_b.len()), (1, 1));
    }
}

#[test]
fn a_guest_moves_in_the_middle_of_a_conn() {
    const PASSES: &str = "pass: established by conn";
    let (a, b) = (guest(40_000), neighbour(80));
    for (side, trust) in
        [Side::A, Side::B].into_iter().flat_map(|side| [(side, Trust::Exact), (side, Trust::Resuming)])
    {
        let mut wire = Wire::new(OPEN, OPEN);
        wire.greet();
        let said = wire.relocate(side, OPEN.0, OPEN.1, trust);
        assert!(said[0].contains("kept 1, judged again 0; opened established"), "{said:#?}");
        // The other end's firewall lets its guest learn where this one is now.
        let told = if side == Side::A { &wire.to_b } else { &wire.to_a };
        assert!(told.iter().any(|frame| frame[12..14] == [8, 6]), "{said:#?}");
        // A stranger who knows neither number has nothing from the move.
        let forged = Segment { payload: 10, ..Segment::ack(0x7000_0000, 0x7000_0000) };
        let (own, peer) = if side == Side::A { (&a, &b) } else { (&b, &a) };
        let line = wire.end(side).in_(&wire::tcp(peer, own, &forged));
        assert_eq!(line, "drop: tcp-window by conn");
        let steps = [
            wire.send(Side::B, &wire::tcp(&b, &a, &Segment { payload: 20, ..Segment::ack(9_001, 1_011) })),
            wire.send(Side::A, &wire::tcp(&a, &b, &Segment { payload: 5, ..Segment::ack(1_011, 9_021) })),
        ];
        for step in &steps {
            assert!(step.len() == 2 && step.iter().all(|line| line.ends_with(PASSES)), "{steps:#?}");
        }
        // What the new home's rules forbid later ends at both, as ever.
        let said = wire.install(side, "drop/drop", &[]);
        assert!(said[1].ends_with("established -> close"), "{said:#?}");
    }
}

#[test]
fn a_handshake_goes_on_where_the_guest_is_now() {
    let (a, b) = (guest(40_000), neighbour(80));
    let handshake = [
        (Side::A, Segment::syn(1_000)),
        (Side::B, Segment { syn: true, ..Segment::ack(9_000, 1_001) }),
        (Side::A, Segment::ack(1_001, 9_001)),
        (Side::A, Segment { fin: true, ..Segment::ack(1_001, 9_001) }),
        (Side::B, Segment { fin: true, ..Segment::ack(9_001, 1_002) }),
        (Side::A, Segment::ack(1_002, 9_002)),
    ];
    for (side, trust) in [(Side::A, Trust::Resuming), (Side::B, Trust::Resuming), (Side::B, Trust::Exact)] {
        let mut wire = Wire::new(("allow/drop", &[]), ("drop/allow", &[]));
        for (from, segment) in &handshake {
            let (sender, receiver) = if *from == Side::A { (&a, &b) } else { (&b, &a) };
            let said = wire.send(*from, &wire::tcp(sender, receiver, segment));
            assert!(said.len() == 2 && said.iter().all(|line| line.contains("pass: ")), "{said:#?}");
            let defaults = if side == Side::A { "allow/drop" } else { "drop/allow" };
            let said = wire.relocate(side, defaults, &[], trust);
            assert!(said[0].contains("kept 1, judged again 0"), "{said:#?}");
        }
        // Both FINs were seen and acknowledged, some of it at each home.
        assert_eq!(wire.end(side).export().0[0].conn.state, ConnState::TimeWait);
    }
}

#[test]
fn a_new_home_that_forbids_a_conn_takes_none_of_it() {
    let mut wire = Wire::new(OPEN, OPEN);
    wire.greet();
    let said = wire.relocate(Side::B, "drop/drop", &[], Trust::Exact);
    assert_eq!(said[0], "b: kept 0, judged again 0, 1 revoked");
    let (a, b) = (guest(40_000), neighbour(80));
    let said = wire.send(Side::A, &wire::tcp(&a, &b, &Segment { payload: 1, ..Segment::ack(1_011, 9_001) }));
    assert_eq!(said, ["a: pass: established by conn", "b: drop: no-conn by conn"]);
    assert!(wire.to_b.is_empty());
}

#[test]
fn errors_cross_about_what_was_asked() {
    let mut wire = Wire::new(("allow/drop", &[]), ("drop/allow", &[]));
    let question = wire::udp(&guest(9), &neighbour(53), b"question");
    wire.send(Side::A, &question);
    let closed = wire::icmp_error(&neighbour(0), &guest(0), (3, 3), [0; 4], &question);
    assert_eq!(wire.send(Side::B, &closed), ["b: pass: related by conn", "a: pass: related by conn"]);
    let invented = wire::icmp_error(
        &neighbour(0),
        &guest(0),
        (3, 3),
        [0; 4],
        &wire::udp(&guest(10), &neighbour(53), b"never"),
    );
    assert_eq!(wire.send(Side::B, &invented), ["b: drop: unrelated by conn"]);
}

#[test]
fn echoes_cross_and_crossing_echoes_stay_apart() {
    let mut wire = Wire::new(OPEN, OPEN);
    let (a, b) = (guest(0), neighbour(0));
    for (side, from, to) in [(Side::A, &a, &b), (Side::B, &b, &a)] {
        let said = wire.send(side, &wire::echo(from, to, 7, true));
        assert!(said.iter().all(|line| line.ends_with("pass: new by default; opened asked")), "{said:#?}");
    }
    for (side, from, to) in [(Side::B, &b, &a), (Side::A, &a, &b)] {
        let said = wire.send(side, &wire::echo(from, to, 7, false));
        assert!(
            said.iter().all(|line| line.ends_with("established by conn; asked -> answered")),
            "{said:#?}"
        );
    }
}

#[test]
fn a_datagram_in_fragments_crosses_both_ends() {
    let mut wire = Wire::new(("allow/drop", &[]), ("drop/allow", &[]));
    let pieces = fragments(&wire::udp(&guest(9), &neighbour(53), &[b'x'; 4_000]), 7, 1_400);
    for piece in &pieces[1..] {
        assert_eq!(wire.send(Side::A, piece), ["a: hold: fragment-held by guard"]);
    }
    let said = wire.send(Side::A, &pieces[0]);
    assert_eq!(
        said,
        [
            "a: release: new by default; opened asked",
            "b: hold: fragment-held by guard",
            "b: hold: fragment-held by guard",
            "b: release: new by default; opened asked"
        ]
    );
    assert_eq!(wire.to_b, [pieces[1].clone(), pieces[2].clone(), pieces[0].clone()]);
}

#[test]
fn a_question_to_a_group_is_answered_through_both_ends() {
    let mut wire = Wire::new(
        (
            "drop/drop",
            &[
                "id: mdns, direction: out, action: allow, protocol: udp, ports: [5353], reply-from: [{set: link}]",
            ],
        ),
        ("allow/drop", &["id: mdns-in, direction: in, action: allow, protocol: udp, ports: [5353]"]),
    );
    let ask = wire::udp(&guest(40_000), &group([224, 0, 0, 251], 5353), b"who");
    assert_eq!(
        wire.send(Side::A, &ask),
        ["a: pass: stateless by rule mdns", "b: pass: stateless by rule mdns-in"]
    );
    let answer = wire::udp(&neighbour(5353), &guest(40_000), b"me");
    assert_eq!(
        wire.send(Side::B, &answer),
        ["b: pass: new by default; opened asked", "a: pass: new by rule mdns; opened asked"]
    );
    assert_eq!(wire.to_a, [answer]);
}

#[test]
fn neighbours_resolve_each_other_and_an_impostor_is_stopped_at_home() {
    let mut wire = Wire::new(OPEN, OPEN);
    let ask = wire::arp(1, GUEST_MAC, GUEST_V4, [0xff; 6], NEIGHBOUR_V4);
    assert_eq!(
        wire.send(Side::A, &ask),
        ["a: pass: guard by guard guard/arp", "b: pass: guard by guard guard/arp"]
    );
    let tell = wire::arp(2, NEIGHBOUR_MAC, NEIGHBOUR_V4, GUEST_MAC, GUEST_V4);
    assert_eq!(
        wire.send(Side::B, &tell),
        ["b: pass: guard by guard guard/arp", "a: pass: guard by guard guard/arp"]
    );
    let impostor = End { ip: NEIGHBOUR_V4.into(), ..guest(9) };
    let said = wire.send(Side::A, &wire::udp(&impostor, &guest(9), b""));
    assert_eq!(said, ["a: drop: source-address-spoofed by guard guard/address"]);
}
