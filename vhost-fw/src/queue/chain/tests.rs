//! Every way a driver may write a chain, and every way it must not.

use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

use super::super::fixture::{BORDER, BUFFERS, Guest, HOLE, INDIRECT, NEXT, SIZE, WRITE};
use super::super::ring::Cursor;
use super::*;

const LIMIT: usize = 65_565;

fn lengths(guest: &Guest, head: u16, way: Way) -> Result<Vec<usize>, BadChain> {
    let mut cursor = Cursor::default();
    let view = guest.open(&mut cursor);
    let mut slices = Vec::new();
    let total = Chains::new(&view, &guest.memory, way, LIMIT).walk(head, &mut slices);
    let lengths: Vec<usize> = slices.iter().map(|slice| slice.len()).collect();
    match total {
        Ok(total) => assert_eq!(total, lengths.iter().sum::<usize>()),
        Err(BadChain) => assert!(lengths.is_empty(), "a bad chain names no buffer"),
    }
    total.map(|_| lengths)
}

fn out(guest: &Guest, head: u16) -> Result<Vec<usize>, BadChain> {
    lengths(guest, head, Way::FromGuest)
}

#[test]
fn buffers_come_in_the_order_of_the_chain_and_empty_ones_are_skipped() {
    let guest = Guest::new();
    guest.descriptor(5, BUFFERS, 12, NEXT, 2);
    guest.descriptor(2, BUFFERS + 100, 0, NEXT, 7);
    guest.descriptor(7, BUFFERS + 200, 60, 0, 0);
    assert_eq!(out(&guest, 5), Ok(vec![12, 60]));
}

#[test]
fn a_buffer_across_two_regions_is_two_slices() {
    let guest = Guest::new();
    guest.descriptor(0, BORDER - 3, 10, 0, 0);
    assert_eq!(out(&guest, 0), Ok(vec![3, 7]));
}

#[test]
fn a_buffer_that_leaves_memory_is_bad() {
    let guest = Guest::new();
    for (address, length) in
        [(HOLE, 1), (HOLE - 1, 2), (BORDER - 1, 0x2_0000), (u64::MAX, 2), (0xfee0_0000, 4)]
    {
        guest.descriptor(0, BUFFERS, 12, NEXT, 1);
        guest.descriptor(1, address, length, 0, 0);
        assert_eq!(out(&guest, 0), Err(BadChain), "{address:#x}+{length}");
    }
    guest.descriptor(1, HOLE - 1, 1, 0, 0);
    assert_eq!(out(&guest, 0), Ok(vec![12, 1]), "the last byte of memory is memory");
}

#[test]
fn a_circle_is_bad_and_the_longest_chain_is_not() {
    let guest = Guest::new();
    guest.descriptor(0, BUFFERS, 1, NEXT, 0);
    assert_eq!(out(&guest, 0), Err(BadChain));
    guest.descriptor(0, BUFFERS, 1, NEXT, 1);
    guest.descriptor(1, BUFFERS, 1, NEXT, 0);
    assert_eq!(out(&guest, 0), Err(BadChain));
    for index in 0..SIZE {
        guest.descriptor(index, BUFFERS, 1, if index + 1 < SIZE { NEXT } else { 0 }, index + 1);
    }
    assert_eq!(out(&guest, 0), Ok(vec![1; usize::from(SIZE)]));
}

#[test]
fn a_link_or_head_beyond_the_table_is_bad() {
    let guest = Guest::new();
    guest.descriptor(0, BUFFERS, 12, NEXT, SIZE);
    for head in [0, SIZE, 0x7fff, u16::MAX] {
        assert_eq!(out(&guest, head), Err(BadChain), "head {head}");
    }
}

#[test]
fn a_buffer_of_the_wrong_way_is_bad_wherever_it_stands() {
    let guest = Guest::new();
    for (first, second) in [(0, WRITE), (WRITE, 0)] {
        guest.descriptor(0, BUFFERS, 12, first | NEXT, 1);
        guest.descriptor(1, BUFFERS, 60, second, 0);
        assert_eq!(out(&guest, 0), Err(BadChain));
        assert_eq!(lengths(&guest, 0, Way::ToGuest), Err(BadChain));
    }
    guest.descriptor(0, BUFFERS, 12, WRITE, 0);
    assert_eq!(out(&guest, 0), Err(BadChain));
    assert_eq!(lengths(&guest, 0, Way::ToGuest), Ok(vec![12]));
}

#[test]
fn a_chain_longer_than_the_limit_is_bad_even_where_lengths_overflow() {
    let guest = Guest::new();
    guest.descriptor(0, 0x40000, 0x1_0000, NEXT, 1);
    guest.descriptor(1, 0x40000, 29, 0, 0);
    assert_eq!(out(&guest, 0), Ok(vec![0x1_0000, 29]));
    for length in [30, u32::MAX] {
        guest.descriptor(1, 0x40000, length, 0, 0);
        assert_eq!(out(&guest, 0), Err(BadChain), "{length}");
    }
}

#[test]
fn an_indirect_table_is_followed_also_across_regions() {
    let guest = Guest::new();
    for table in [BUFFERS, BORDER - 24] {
        guest.descriptor_at(table, 0x5000, 12, NEXT, 2);
        guest.descriptor_at(table + 32, 0x6000, 60, 0, 0);
        guest.descriptor(0, table, 48, INDIRECT, 0);
        assert_eq!(out(&guest, 0), Ok(vec![12, 60]), "{table:#x}");
    }
    guest.descriptor(1, 0x7000, 5, NEXT, 0);
    assert_eq!(out(&guest, 1), Ok(vec![5, 12, 60]), "after direct ones (virtio 1.2 section 2.7.5.3.2)");
}

#[test]
fn an_indirect_table_of_one_byte_buffers_may_be_long() {
    let guest = Guest::new();
    let entries = u16::try_from(DESCRIPTORS_MAX).unwrap();
    for entry in 0..entries {
        let flags = if entry + 1 < entries { NEXT } else { 0 };
        guest.descriptor_at(0x40000 + 16 * u64::from(entry), BUFFERS, 1, flags, entry + 1);
    }
    guest.descriptor(0, 0x40000, 16 * u32::from(entries), INDIRECT, 0);
    assert_eq!(out(&guest, 0).map(|lengths| lengths.len()), Ok(DESCRIPTORS_MAX));
    guest.descriptor(1, BUFFERS, 1, NEXT, 0);
    assert_eq!(out(&guest, 1), Err(BadChain), "one more in all");
}

#[test]
fn an_indirect_table_that_breaks_the_rules_is_bad() {
    let guest = Guest::new();
    let table = BUFFERS;
    guest.descriptor_at(table, 0x5000, 12, 0, 0);
    for length in [0, 8, 15, 17, 31, 16 * 1025, u32::MAX, u32::MAX - 15] {
        guest.descriptor(0, table, length, INDIRECT, 0);
        assert_eq!(out(&guest, 0), Err(BadChain), "length {length}");
    }
    guest.descriptor(0, HOLE, 16, INDIRECT, 0);
    assert_eq!(out(&guest, 0), Err(BadChain), "unmapped");
    guest.descriptor(0, table, 16, INDIRECT | NEXT, 1);
    assert_eq!(out(&guest, 0), Err(BadChain), "with NEXT");
    guest.descriptor(0, table, 16, INDIRECT, 0);
    guest.descriptor_at(table, table, 16, INDIRECT, 0);
    assert_eq!(out(&guest, 0), Err(BadChain), "nested in itself");
    guest.descriptor_at(table, table, 16, NEXT, 0);
    assert_eq!(out(&guest, 0), Err(BadChain), "a circle within");
    guest.descriptor_at(table, table, 16, NEXT, 1);
    assert_eq!(out(&guest, 0), Err(BadChain), "a link beyond it");
    guest.descriptor_at(table, 0x5000, 16, 0, 0);
    assert_eq!(out(&guest, 0), Ok(vec![16]));
}

#[test]
fn an_indirect_table_nobody_agreed_on_is_bad() {
    let guest = Guest::new().without(VIRTIO_RING_F_INDIRECT_DESC);
    guest.descriptor_at(BUFFERS, 0x5000, 12, 0, 0);
    guest.descriptor(0, BUFFERS, 16, INDIRECT, 0);
    assert_eq!(out(&guest, 0), Err(BadChain));
}
