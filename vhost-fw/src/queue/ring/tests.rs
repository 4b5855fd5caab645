//! Where a ring starts, when it stops, and who is told.

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::super::fixture::{Guest, HOLE, SIZE};
use super::*;

#[test]
fn a_ring_starts_at_its_used_index_whatever_base_it_was_given() {
    let guest = Guest::new().starting_at(40);
    let mut cursor = Cursor::default();
    let view = guest.open(&mut cursor);
    assert_eq!(cursor.next(), 40);
    assert_eq!(cursor.waiting(&view), Ok(0));
}

#[test]
fn a_ring_set_up_anew_starts_at_its_used_index_again() {
    let mut guest = Guest::new();
    let mut cursor = Cursor::default();
    guest.open(&mut cursor);
    guest = guest.starting_at(7);
    guest.open(&mut cursor);
    assert_eq!(cursor.next(), 0);
    cursor.open(&guest.memory, &guest.geometry, guest.acked, 2).unwrap();
    assert_eq!(cursor.next(), 7);
}

#[test]
fn an_index_more_than_the_size_ahead_stops_the_ring() {
    for ahead in [SIZE + 1, 1000, u16::MAX] {
        let guest = Guest::new();
        let mut cursor = Cursor::default();
        let view = guest.open(&mut cursor);
        guest.set_avail_index(ahead);
        assert_eq!(cursor.waiting(&view), Err(Stopped::RanAway { ahead, size: SIZE }));
        assert!(guest.try_open(&mut cursor).unwrap().is_none(), "it stays stopped, and says so once");
    }
}

#[test]
fn a_full_ring_is_no_offence_even_around_the_wrap() {
    let mut guest = Guest::new().starting_at(u16::MAX - 2);
    for _ in 0..SIZE {
        guest.post(0);
    }
    let mut cursor = Cursor::default();
    let view = guest.open(&mut cursor);
    assert_eq!(cursor.waiting(&view), Ok(SIZE));
}

#[test]
fn a_ring_outside_memory_stops_once_and_runs_when_memory_comes() {
    let mut guest = Guest::new();
    let mut cursor = Cursor::default();
    let good = guest.geometry.used_ring;
    for bad in [HOLE - 4, HOLE, u64::MAX - 3] {
        guest.geometry.used_ring = bad;
        cursor = Cursor::default();
        assert!(matches!(guest.try_open(&mut cursor), Err(Stopped::Unmapped)));
        assert!(matches!(guest.try_open(&mut cursor), Ok(None)));
    }
    guest.geometry.used_ring = good;
    assert!(cursor.open(&guest.memory, &guest.geometry, guest.acked, 2).unwrap().is_some());
}

#[test]
fn used_elements_show_with_one_store_of_the_index() {
    let guest = Guest::new().starting_at(6);
    let mut cursor = Cursor::default();
    let view = guest.open(&mut cursor);
    for id in [3, 5, 1] {
        view.write_used(cursor.next(), id, u32::from(id) * 10);
        cursor.advance();
    }
    assert_eq!(guest.used_index(), 6);
    cursor.publish(&view, 6);
    assert_eq!(guest.used_index(), 9);
    assert_eq!([guest.used(6), guest.used(7), guest.used(8)], [(3, 30), (5, 50), (1, 10)]);
}

#[test]
fn the_driver_is_called_when_its_event_lies_in_the_batch() {
    for (event, called) in [(9, false), (10, true), (11, true), (12, false), (u16::MAX, false)] {
        let guest = Guest::new().starting_at(10);
        guest.set_used_event(event);
        let mut cursor = Cursor::default();
        let view = guest.open(&mut cursor);
        cursor.advance();
        cursor.advance();
        assert_eq!(cursor.publish(&view, 10), called, "event {event}");
    }
}

#[test]
fn without_event_idx_the_flags_speak() {
    for (flags, called) in [(0, true), (1, false)] {
        let guest = Guest::new().without(VIRTIO_RING_F_EVENT_IDX);
        guest.set_avail_flags(flags);
        let mut cursor = Cursor::default();
        let view = guest.open(&mut cursor);
        cursor.hush(&view);
        assert_eq!(guest.used_flags(), 1);
        cursor.advance();
        assert_eq!(cursor.publish(&view, 0), called);
        assert!(!cursor.listen(&view));
        assert_eq!(guest.used_flags(), 0);
    }
}

#[test]
fn an_empty_batch_calls_nobody() {
    let guest = Guest::new();
    let mut cursor = Cursor::default();
    let view = guest.open(&mut cursor);
    assert!(!cursor.publish(&view, 0));
}

#[test]
fn a_chain_added_before_we_listen_is_not_slept_over() {
    let mut guest = Guest::new().starting_at(20);
    let mut cursor = Cursor::default();
    {
        let view = guest.open(&mut cursor);
        assert_eq!(cursor.waiting(&view), Ok(0));
    }
    guest.post(0);
    let view = guest.open(&mut cursor);
    assert!(cursor.listen(&view));
    assert_eq!(cursor.waiting(&view), Ok(1));
    cursor.advance();
    assert!(!cursor.listen(&view));
    assert_eq!(guest.avail_event(), 21);
}
