//! Judging frames asks for no memory: established, first, refused and rejected ones, fragments, floods, time.
#![cfg(test)]

use fw_engine::{Answers, Config, Engine, Frame, PreparedRules, Tick, VnetHeader};
use fw_model::Direction;
use fw_tests::counting::{Counting, asked};
use fw_tests::places::{GUEST_MAC, GUEST_V4, NEIGHBOUR_V4, group, guest, neighbour, peer, rules_for};
use fw_tests::wire::{self, Segment, fragments};

#[global_allocator]
static MEMORY: Counting = Counting;

/// Frames of every kind, in order, as a batch each round.
fn frames(round: u32) -> Vec<(Direction, Vec<u8>)> {
    let port = u16::try_from(1_024 + round % 60_000).unwrap();
    let (client, server) = (guest(port), peer(80));
    let whole = wire::udp(&guest(port), &peer(53), &[0; 3_000]);
    let mut frames = vec![
        (Direction::Out, wire::tcp(&client, &server, &Segment::syn(1_000))),
        (Direction::In, wire::tcp(&server, &client, &Segment { syn: true, ..Segment::ack(9_000, 1_001) })),
        (Direction::Out, wire::tcp(&client, &server, &Segment::ack(1_001, 9_001))),
        (
            Direction::Out,
            wire::tcp(&client, &server, &Segment { payload: 900, ..Segment::ack(1_001, 9_001) }),
        ),
        (Direction::In, wire::tcp(&server, &client, &Segment { payload: 900, ..Segment::ack(9_001, 1_901) })),
        (Direction::In, wire::tcp(&server, &client, &Segment { payload: 9, ..Segment::ack(990_001, 1_901) })),
        (Direction::Out, wire::tcp(&client, &server, &Segment { rst: true, ..Segment::ack(1_901, 9_901) })),
        (Direction::In, wire::udp(&peer(53), &guest(port), b"unasked")),
        (Direction::In, wire::tcp(&peer(port), &guest(22), &Segment::syn(5))),
        (Direction::Out, wire::udp(&guest(port), &neighbour(9), b"rejected")),
        (Direction::Out, wire::arp(1, GUEST_MAC, GUEST_V4, [0xff; 6], NEIGHBOUR_V4)),
        (Direction::Out, wire::udp(&guest(port), &group([224, 0, 0, 251], 5353), b"who")),
        (Direction::In, wire::udp(&neighbour(5353), &guest(port), b"me")),
        (Direction::Out, wire::echo(&guest(0), &peer(0), port, true)),
        (Direction::In, wire::icmp_error(&peer(0), &guest(0), (3, 1), [0; 4], &whole)),
        (Direction::Out, vec![0; 7]),
    ];
    frames.extend(fragments(&whole, u32::from(port), 1_400).into_iter().map(|piece| (Direction::Out, piece)));
    // A datagram that never becomes whole: it is pushed out, or its time runs out.
    let never = wire::udp(&peer(53), &guest(port), &[0; 3_000]);
    frames.extend(fragments(&never, u32::from(port), 1_400).pop().map(|piece| (Direction::In, piece)));
    frames
}

fn play(engine: &mut Engine, answers: &mut Answers, round: u32) -> (usize, u64) {
    let frames = frames(round);
    let batch: Vec<Frame<'_>> = frames
        .iter()
        .map(|(direction, bytes)| Frame {
            direction: *direction,
            bytes,
            length: bytes.len(),
            vnet: VnetHeader::NONE,
        })
        .collect();
    let now = Tick(u64::from(round) * 20);
    let mut left = 0;
    let before = asked();
    engine.judge(&batch, now, answers);
    drop(answers.drain());
    answers.for_each_emission(|_, _, _| left += 1);
    while engine.next_due().is_some_and(|due| due <= now) {
        engine.expire(now, answers);
    }
    answers.for_each_emission(|_, _, _| left += 1);
    (left, asked() - before)
}

#[test]
fn frames_and_time_ask_for_no_memory() {
    let limits = "limits: {rates: {out: {frames_per_s: 1000000}}, new_conns_per_s: 1000000}";
    let text = rules_for(
        "",
        limits,
        "drop/drop",
        &[
            "id: web, direction: out, action: allow, protocol: tcp, ports: [80], log: true, limits: {conns: 5000, new_per_s: 1000}",
            "id: mdns, direction: out, action: allow, protocol: udp, ports: [5353], reply-from: [10.0.0.0/24]",
            "id: dns, direction: out, action: allow, protocol: udp, ports: [53]",
            "id: ping, direction: out, action: allow, protocol: icmp",
            "id: no, direction: out, action: reject, protocol: udp",
        ],
    );
    let mut engine = Engine::new(Config { conns: 2_048, fragments: 64 << 10, hash_key: [5; 16], mtu: 1500 });
    let rules = vhost_fw::rules_file::parse(&text, "rules", 0).unwrap();
    engine.install(std::sync::Arc::new(PreparedRules::new(rules).unwrap()), Tick(0));
    let mut answers = Answers::with_capacity(32, 1 << 16);
    // The outbox finds its size with the first batches; nothing else may grow, whatever comes.
    for round in 0..3 {
        play(&mut engine, &mut answers, round);
    }
    let mut left = 0;
    for round in 3..6_000 {
        let (emitted, asked) = play(&mut engine, &mut answers, round);
        assert_eq!(asked, 0, "round {round} asked for memory");
        left += emitted;
    }
    let stats = engine.stats(Tick(6_000 * 20));
    assert!(left > 6_000 * 3, "{left} frames left through the outbox");
    assert!(stats.conns > 500 && stats.frames.out > 6_000 * 6, "{stats:?}");
    assert!(stats.drops.len() == 6, "{:?}", stats.drops);
}

#[test]
fn the_counter_counts() {
    let before = asked();
    let grown: Vec<u8> = Vec::with_capacity(100);
    assert_eq!((asked() - before, grown.capacity()), (1, 100));
}
