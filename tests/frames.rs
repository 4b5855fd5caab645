//! A frame as it comes and as it leaves: cut, segmented, from its head or whole, alone or in a batch.
#![cfg(test)]

use fw_engine::VnetHeader;
use fw_model::Direction;
use fw_tests::places::{GUEST_MAC, NEIGHBOUR_MAC, guest, guest6, peer, peer6, rules, rules_for};
use fw_tests::script::Script;
use fw_tests::wire::{self, Segment};

const SYN: Segment = Segment::syn(1_000);

#[test]
fn what_trails_a_datagram_is_cut() {
    let mut nic = Script::new(&rules("allow/allow", &[]));
    let frame = wire::udp(&guest(9), &peer(9), b"x");
    let padded = [frame.as_slice(), &[0xaa; 100]].concat();
    assert_eq!(nic.out(&padded), "pass: new by default; opened asked");
    assert_eq!(nic.left()[0].bytes, frame);
    let arp = wire::arp(1, NEIGHBOUR_MAC, [10, 0, 0, 20].into(), [0xff; 6], [10, 0, 0, 10].into());
    assert_eq!(nic.in_(&[arp.as_slice(), &[0xaa; 18]].concat()), "pass: guard by guard guard/arp");
    assert_eq!(nic.left()[0].bytes, arp);
}

#[test]
fn a_frame_longer_than_the_mtu_passes_only_to_be_segmented() {
    let mut nic = Script::new(&rules_for("mtu: 1400", "", "allow/allow", &[]));
    let datagram = |length| wire::udp(&guest(9), &peer(9), &vec![0; length]);
    assert_eq!(nic.out(&datagram(1_400 - 28)), "pass: new by default; opened asked");
    // Four bytes more are a VLAN tag's.
    assert_eq!(nic.out(&datagram(1_405 - 28)), "drop: oversize by guard guard/sane");
    nic.out(&wire::tcp(&guest(40_000), &peer(80), &SYN));
    nic.in_(&wire::tcp(&peer(80), &guest(40_000), &Segment { syn: true, ..Segment::ack(9_000, 1_001) }));
    let big =
        wire::tcp(&guest(40_000), &peer(80), &Segment { payload: 20_000, ..Segment::ack(1_001, 9_001) });
    assert_eq!(nic.out(&big), "drop: oversize by guard guard/sane");
    let claim = |gso_size| VnetHeader {
        flags: 1,
        gso_type: 1,
        hdr_len: 54,
        gso_size,
        csum_start: 34,
        csum_offset: 16,
        num_buffers: 0,
    };
    assert_eq!(nic.frame(Direction::Out, &big, claim(1_361)), "drop: bad-gso by guard guard/sane");
    assert_eq!(nic.frame(Direction::Out, &big, claim(7)), "drop: bad-gso by guard guard/sane");
    let moved = VnetHeader { csum_start: 36, ..claim(1_360) };
    assert_eq!(nic.frame(Direction::Out, &big, moved), "drop: bad-vnet-header by guard guard/sane");
    let line = nic.frame(Direction::Out, &big, claim(1_360));
    assert_eq!(line, "pass: established by conn; syn-received -> established");
    assert_eq!(nic.left()[0].vnet, claim(1_360));
}

#[test]
fn a_verdict_from_the_head_is_the_verdict_from_the_whole() {
    let payload = vec![7; 1_000];
    let message = wire::udp(&guest(40_000), &peer(53), &payload);
    let ping = wire::icmp(&guest(0), &peer(0), (8, 0), [0, 7, 0, 1], &payload);
    let mut broken = message.clone();
    *broken.last_mut().unwrap() ^= 1;
    for (frame, line) in [
        (&message, "pass: new by default; opened asked"),
        (&ping, "pass: new by default; opened asked"),
        (&broken, "drop: checksum by guard guard/sane"),
    ] {
        // The script shows the head first and the rest when asked; here the whole at once.
        assert_eq!(Script::new(&rules("allow/drop", &[])).out(frame), line);
        let mut nic = Script::new(&rules("allow/drop", &[]));
        let whole = fw_engine::Frame {
            direction: Direction::Out,
            bytes: frame,
            length: frame.len(),
            vnet: VnetHeader::NONE,
        };
        let mut answers = fw_engine::Answers::with_capacity(1, 64);
        let now = nic.now();
        nic.engine().judge(&[whole], now, &mut answers);
        assert!(line.contains(answers.as_slice()[0].reason.name()), "{:?}", answers.as_slice());
    }
}

#[test]
fn a_batch_is_judged_as_its_frames_one_by_one() {
    // Each frame depends on those before it: a place in the table, a reading, a conn may change within the batch.
    let mut frames = Vec::new();
    for port in 40_000..40_040 {
        let (client, server) = (guest(port), peer(80));
        frames.extend([
            (Direction::Out, wire::tcp(&client, &server, &SYN)),
            (
                Direction::In,
                wire::tcp(&server, &client, &Segment { syn: true, ..Segment::ack(9_000, 1_001) }),
            ),
            (Direction::Out, wire::udp(&guest(port), &peer(53), b"question")),
            (Direction::Out, wire::tcp(&client, &server, &Segment::ack(1_001, 9_001))),
            (Direction::In, wire::udp(&peer6(53), &guest6(port), b"unasked")),
            (Direction::Out, wire::arp(1, GUEST_MAC, [10, 0, 0, 10].into(), [0xff; 6], [10, 0, 0, 1].into())),
            (Direction::In, wire::udp(&peer(53), &guest(port), b"answer")),
            (
                Direction::In,
                wire::tcp(&server, &client, &Segment { rst: true, ..Segment::ack(9_001, 1_001) }),
            ),
            (Direction::Out, wire::tcp(&client, &server, &Segment::syn(70_000))),
            (Direction::Out, vec![port.to_le_bytes()[0]; 9]),
        ]);
    }
    let text = rules_for("", "limits: {half_open: 5}", "allow/drop", &[]);
    let (mut together, mut alone) = (Script::new(&text), Script::new(&text));
    let lines: Vec<String> = frames
        .iter()
        .map(|(direction, frame)| alone.frame(*direction, frame, VnetHeader::NONE))
        .map(|line| line.split(';').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(together.batch(&frames), lines);
    let now = together.now();
    assert_eq!(together.engine().stats(now), alone.engine().stats(now));
    assert!(lines.iter().filter(|line| line.starts_with("pass: new")).count() > 100);
}

#[test]
fn what_a_frame_caused_names_its_place_in_the_batch() {
    let mut nic =
        Script::new(&rules("allow/drop", &["id: no, direction: out, action: reject, protocol: tcp"]));
    let question = wire::udp(&guest(9), &peer(53), b"question");
    let refused = wire::tcp(&guest(9), &peer(80), &SYN);
    let frame = |place| match place {
        3 | 31 | 32 | 69 => &refused,
        _ => &question,
    };
    let of = |bytes: &'_ Vec<u8>| bytes.len();
    let batch: Vec<_> = (0..70)
        .map(|place| fw_engine::Frame {
            direction: Direction::Out,
            bytes: frame(place),
            length: of(frame(place)),
            vnet: VnetHeader::NONE,
        })
        .collect();
    let mut answers = fw_engine::Answers::with_capacity(70, 1_024);
    let now = nic.now();
    nic.engine().judge(&batch, now, &mut answers);
    let mut causes = Vec::new();
    answers.for_each_emission(|_, _, cause| causes.push(cause.unwrap()));
    assert_eq!(causes, [3, 31, 32, 69]);
}
