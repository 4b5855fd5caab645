//! Frames come into the buffers whole or not at all.

use fw_engine::{Answers, Config, Engine, Frame, PreparedRules, Tick, Verdict};
use fw_model::Direction;
use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;

use super::super::fixture::{BUFFERS, Guest, HOLE, NEXT, SIZE, WRITE};
use super::*;

const RULES: &str = r#"
nic: {id: press, mac: "52:54:00:00:00:01"}
defaults: {out: drop, in: drop}
rules: [{id: all, direction: in, action: allow, ethertype: 0x88b5}]
"#;

/// Permits come from the engine alone, so these tests have one that allows one ethertype.
struct Press {
    engine: Engine,
    answers: Answers,
}

impl Press {
    fn new() -> Self {
        let rules = crate::rules_file::parse(RULES, "press", 1).unwrap();
        let mut engine = Engine::new(Config { conns: 16, fragments: 4096, hash_key: [7; 16], mtu: 65_535 });
        engine.install(std::sync::Arc::new(PreparedRules::new(rules).unwrap()), Tick(0));
        Self { engine, answers: Answers::with_capacity(1, 0) }
    }

    fn frame(&mut self, length: usize) -> (Permit, Vec<u8>) {
        let mut bytes: Vec<u8> = (0..length).map(|at| u8::try_from(at % 249).unwrap()).collect();
        bytes[..14].copy_from_slice(&[0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2, 0x88, 0xb5]);
        let frame = Frame { direction: Direction::In, bytes: &bytes, length, vnet: VnetHeader::NONE };
        self.engine.judge(&[frame], Tick(1), &mut self.answers);
        let answer = self.answers.drain().next().unwrap();
        let Verdict::Pass(permit) = answer.verdict else { panic!("{answer:?}") };
        (permit, bytes)
    }
}

/// Posts buffers of these lengths, 2 KiB apart, and says where they are.
fn post(guest: &mut Guest, lengths: &[u32]) {
    for (index, length) in (0_u16..).zip(lengths) {
        guest.descriptor(index, BUFFERS + 0x800 * u64::from(index), *length, WRITE, 0);
        guest.post(index);
    }
}

fn place(guest: &Guest, cursor: &mut Cursor, placer: &mut Placer, frame: (Permit, Vec<u8>)) -> Placed {
    let (permit, mut bytes) = frame;
    let view = guest.open(cursor);
    cursor.waiting(&view).unwrap();
    let from = cursor.next();
    let mut buffers = Buffers::new(&view, &guest.memory, guest.acked);
    let placed = placer.place(&mut buffers, cursor, permit, &mut bytes);
    cursor.publish(&view, from);
    placed
}

#[test]
fn a_frame_stands_behind_its_header_and_the_length_is_what_was_written() {
    let mut guest = Guest::new();
    guest.fill(BUFFERS, &[0xee; 2048]);
    post(&mut guest, &[2048]);
    let (mut cursor, mut placer, mut press) = (Cursor::default(), Placer::default(), Press::new());
    let frame = press.frame(100);
    let bytes = frame.1.clone();
    assert!(matches!(place(&guest, &mut cursor, &mut placer, frame), Placed::Yes));
    assert_eq!((guest.used_index(), guest.used(0)), (1, (0, 112)));
    assert_eq!(
        guest.bytes(BUFFERS, 12),
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0],
        "all of the header, one buffer"
    );
    assert_eq!(guest.bytes(BUFFERS + 12, 100), bytes);
    assert_eq!(guest.bytes(BUFFERS + 112, 2048 - 112), vec![0xee; 2048 - 112], "nothing beyond");
}

#[test]
fn a_big_frame_is_merged_over_buffers_and_shown_at_once() {
    let mut guest = Guest::new();
    post(&mut guest, &[512, 512, 512, 512]);
    let (mut cursor, mut placer, mut press) = (Cursor::default(), Placer::default(), Press::new());
    let frame = press.frame(1300);
    let bytes = frame.1.clone();
    assert!(matches!(place(&guest, &mut cursor, &mut placer, frame), Placed::Yes));
    assert_eq!(guest.used_index(), 3);
    assert_eq!([guest.used(0), guest.used(1), guest.used(2)], [(0, 512), (1, 512), (2, 288)]);
    assert_eq!(guest.bytes(BUFFERS + 10, 2), [3, 0]);
    let got = [
        guest.bytes(BUFFERS + 12, 500),
        guest.bytes(BUFFERS + 0x800, 512),
        guest.bytes(BUFFERS + 0x1000, 288),
    ];
    assert_eq!(got.concat(), bytes);
}

#[test]
fn too_few_buffers_take_nothing_and_the_frame_comes_when_there_are_enough() {
    let mut guest = Guest::new();
    guest.fill(BUFFERS, &[0xee; 1024]);
    post(&mut guest, &[512, 512]);
    let (mut cursor, mut placer, mut press) = (Cursor::default(), Placer::default(), Press::new());
    let (permit, bytes) = press.frame(1300);
    let Placed::NoRoom(permit) = place(&guest, &mut cursor, &mut placer, (permit, bytes.clone())) else {
        panic!()
    };
    assert_eq!((guest.used_index(), guest.bytes(BUFFERS, 512)), (0, vec![0xee; 512]));
    guest.descriptor(2, BUFFERS + 0x1000, 512, WRITE, 0);
    guest.post(2);
    assert!(matches!(place(&guest, &mut cursor, &mut placer, (permit, bytes)), Placed::Yes));
    assert_eq!(guest.used_index(), 3);
}

#[test]
fn a_frame_that_a_full_ring_cannot_hold_never_fits() {
    let mut guest = Guest::new();
    post(&mut guest, &[100; SIZE as usize]);
    let (mut cursor, mut placer, mut press) = (Cursor::default(), Placer::default(), Press::new());
    assert!(matches!(place(&guest, &mut cursor, &mut placer, press.frame(1300)), Placed::TooSmall));
    assert_eq!(guest.used_index(), 0);
    assert!(matches!(place(&guest, &mut cursor, &mut placer, press.frame(80)), Placed::Yes));
}

#[test]
fn without_merging_a_buffer_too_small_is_kept_for_the_next_frame() {
    let mut guest = Guest::new().without(VIRTIO_NET_F_MRG_RXBUF);
    post(&mut guest, &[512, 512, 512]);
    let (mut cursor, mut placer, mut press) = (Cursor::default(), Placer::default(), Press::new());
    assert!(matches!(place(&guest, &mut cursor, &mut placer, press.frame(501)), Placed::TooSmall));
    assert_eq!(guest.used_index(), 0);
    assert!(matches!(place(&guest, &mut cursor, &mut placer, press.frame(500)), Placed::Yes));
    assert_eq!((guest.used_index(), guest.used(0)), (1, (0, 512)));
}

#[test]
fn bad_buffers_are_retired_in_order_and_the_frame_takes_the_next() {
    let mut guest = Guest::new();
    guest.descriptor(0, BUFFERS, 512, WRITE, 0);
    guest.descriptor(1, BUFFERS, 512, 0, 0);
    guest.descriptor(2, HOLE, 512, WRITE, 0);
    guest.descriptor(3, BUFFERS, 512, WRITE | NEXT, 3);
    guest.descriptor(4, BUFFERS, 0, WRITE, 0);
    guest.descriptor(5, BUFFERS, 2048, WRITE, 0);
    for head in [0, 1, 2, 3, 4, SIZE + 7, 5] {
        guest.post(head);
    }
    let (mut cursor, mut placer, mut press) = (Cursor::default(), Placer::default(), Press::new());
    assert!(matches!(place(&guest, &mut cursor, &mut placer, press.frame(1300)), Placed::Yes));
    let given: Vec<_> = (0..7).map(|at| guest.used(at)).collect();
    assert_eq!(given, [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (15, 0), (5, 1312)]);
    assert_eq!((guest.used_index(), placer.take_bad(), placer.take_bad()), (7, 5, 0));
}
