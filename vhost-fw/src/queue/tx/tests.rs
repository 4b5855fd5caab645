//! Frames come off the ring whole, private and once.

use super::super::fixture::{BORDER, BUFFERS, Guest, HOLE, NEXT, SIZE};
use super::*;
use crate::queue::ring::Cursor;

/// A frame of `length` bytes, each different from its neighbours, with a header of `header_len` nines.
fn bytes(header_len: usize, length: usize) -> Vec<u8> {
    let frame = (0..length).map(|at| u8::try_from(at % 251).unwrap());
    std::iter::repeat_n(9, header_len).chain(frame).collect()
}

fn collect<'m>(
    guest: &'m Guest,
    cursor: &mut Cursor,
    batch: &mut Batch,
    slices: &mut Vec<Slice<'m>>,
) -> View<'m> {
    let view = guest.open(cursor);
    let waiting = cursor.waiting(&view).unwrap();
    batch.collect(&view, &guest.memory, cursor, waiting, guest.acked.header_len(), slices);
    view
}

#[test]
fn a_frame_is_the_same_however_it_is_cut() {
    let bytes = bytes(12, 700);
    for place in [BUFFERS, BORDER - 5, BORDER - 100] {
        for cut in [1, 11, 12, 13, 26, 100, 267, 268, 269, 711] {
            let mut guest = Guest::new();
            guest.fill(place, &bytes);
            guest.descriptor(0, place, cut, NEXT, 1);
            guest.descriptor(1, place + u64::from(cut), 712 - cut, 0, 0);
            guest.post(0);
            let (mut cursor, mut batch, mut slices) = (Cursor::default(), Batch::new(), Vec::new());
            collect(&guest, &mut cursor, &mut batch, &mut slices);
            let slot = batch.slots().next().unwrap();
            assert_eq!((slot.length(), slot.head()), (700, &bytes[12..268]), "{place:#x} {cut}");
            let rest: usize = slices[slot.parts().1].iter().map(|slice| slice.len()).sum();
            assert_eq!(rest, 700 - HEAD_LEN);
            let mut whole = vec![0; 12 + FRAME_LEN_MAX];
            assert_eq!(slot.fetch(&mut slices, &mut whole)[12..], bytes[12..]);
        }
    }
}

#[test]
fn what_was_judged_is_what_is_fetched_though_the_guest_rewrites_it() {
    let mut guest = Guest::new();
    guest.fill(BUFFERS, &bytes(12, 400));
    guest.descriptor(0, BUFFERS, 412, 0, 0);
    guest.post(0);
    let (mut cursor, mut batch, mut slices) = (Cursor::default(), Batch::new(), Vec::new());
    collect(&guest, &mut cursor, &mut batch, &mut slices);
    guest.fill(BUFFERS, &[0xee; 412]);
    let slot = batch.slots().next().unwrap();
    let mut whole = vec![0; 12 + FRAME_LEN_MAX];
    let fetched = &slot.fetch(&mut slices, &mut whole)[12..];
    assert_eq!(fetched[..HEAD_LEN], bytes(0, 400)[..HEAD_LEN]);
    assert!(fetched[HEAD_LEN..].iter().all(|byte| *byte == 0xee));
}

#[test]
fn every_chain_comes_back_once_with_its_id_as_read() {
    let mut guest = Guest::new().starting_at(u16::MAX);
    guest.fill(BUFFERS, &bytes(12, 60));
    guest.descriptor(0, BUFFERS, 72, 0, 0);
    guest.descriptor(1, HOLE, 72, 0, 0);
    guest.descriptor(2, BUFFERS, 11, 0, 0);
    guest.descriptor(3, BUFFERS, 3, NEXT, 3);
    for head in [0, 1, 2, 3, SIZE, u16::MAX, 0, 0] {
        guest.post(head);
    }
    let (mut cursor, mut batch, mut slices) = (Cursor::default(), Batch::new(), Vec::new());
    let view = collect(&guest, &mut cursor, &mut batch, &mut slices);
    assert_eq!((batch.slots().count(), batch.bad()), (3, 5));
    batch.give_back(&view, u16::MAX);
    cursor.publish(&view, u16::MAX);
    let given: Vec<_> = (0..8).map(|at: u16| guest.used(at.wrapping_add(u16::MAX))).collect();
    assert_eq!(given, [(0, 0), (1, 0), (2, 0), (3, 0), (8, 0), (0xffff, 0), (0, 0), (0, 0)]);
    assert_eq!(guest.used_index(), 7);
}

#[test]
fn a_header_alone_is_an_empty_frame_for_the_engine_to_judge() {
    let mut guest = Guest::new();
    guest.descriptor(0, BUFFERS, 12, 0, 0);
    guest.post(0);
    let (mut cursor, mut batch, mut slices) = (Cursor::default(), Batch::new(), Vec::new());
    collect(&guest, &mut cursor, &mut batch, &mut slices);
    let slot = batch.slots().next().unwrap();
    assert_eq!((slot.length(), slot.head().len()), (0, 0));
}

#[test]
fn a_driver_from_before_virtio_1_has_a_shorter_header() {
    let mut guest = Guest::new();
    guest.acked = crate::features::Acked(0);
    guest.fill(BUFFERS, &bytes(10, 60));
    guest.descriptor(0, BUFFERS, 70, 0, 0);
    guest.post(0);
    let (mut cursor, mut batch, mut slices) = (Cursor::default(), Batch::new(), Vec::new());
    collect(&guest, &mut cursor, &mut batch, &mut slices);
    assert_eq!(batch.slots().next().unwrap().head(), bytes(0, 60));
}
