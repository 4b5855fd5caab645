//! Whoever has the key may still be wrong: what is refused behind a valid seal, each thing by its reason.
//!
//! Every case is one change to a snapshot that is accepted, written by hand after docs/snapshot-format.md.
#![cfg(test)]

use conn_snapshot::{Decoder, Key, SnapshotError};
use fw_tests::sealing::{self, Chunk, HEADER_LEN, SECRET, put};

const DICTIONARIES: [u8; 18] = [1, 0, 10, 0, 0, 10, 1, 0x52, 0x54, 0, 0, 0, 0xfe, 1, 3, b'w', b'e', b'b'];
/// An answered UDP conn by rule `web`, 30,000 ms left.
const UDP: [u8; 16] = [0x87, 1, 187, 1, 80, 195, 0, 198, 51, 100, 7, 0, 0, 0xb0, 0xea, 1];
/// An established TCP conn by rule `web`, before its windows.
const TCP: [u8; 16] = [0x82, 0, 187, 1, 80, 195, 0, 198, 51, 100, 7, 0, 0, 0xb0, 0xea, 1];
/// Window scales and both ends' windows.
const WINDOWS: [u8; 15] = [0x77, 1, 0, 0, 0, 0x80, 8, 0, 0, 1, 0, 0, 0, 9, 0];
const LIMIT: u64 = 1_000;

fn chunk(records: u32, parts: &[&[u8]]) -> Chunk {
    Chunk { records, gone: 0, payload: parts.concat() }
}

fn good() -> Vec<Chunk> {
    vec![chunk(2, &[&DICTIONARIES, &UDP, &TCP, &WINDOWS, &[0]])]
}

fn why(snapshot: &[u8]) -> SnapshotError {
    Decoder::check(snapshot, &Key::new(&SECRET), LIMIT).map(|checked| checked.header().records).unwrap_err()
}

fn refused(chunks: &[Chunk]) -> SnapshotError {
    why(&sealing::sealed(sealing::header(0, chunks), chunks))
}

/// The good snapshot with another header.
fn header_with(at: usize, new: &[u8]) -> SnapshotError {
    let mut header = sealing::header(0, &good());
    put(&mut header, at, new);
    why(&sealing::sealed(header, &good()))
}

fn malformed(what: &'static str) -> SnapshotError {
    SnapshotError::Malformed(what)
}

#[test]
fn a_snapshot_by_hand_is_accepted() {
    let chunks = good();
    let bytes = sealing::sealed(sealing::header(0, &chunks), &chunks);
    let checked = Decoder::check(&bytes, &Key::new(&SECRET), LIMIT).unwrap();
    let mut seen = Vec::new();
    checked.visit(|chunk| seen.extend_from_slice(&chunk.records));
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].remaining_ms, seen[0].flow.remote_port), (30_000, 50_000));
    assert_eq!(seen[1].tcp.unwrap().ends.map(|end| (end.end, end.max_window)), [(1, 1_024), (1, 9)]);
    assert_eq!(sealing::chunks(&bytes), chunks);
}

#[test]
fn a_header_is_refused_field_by_field() {
    let cases: [(usize, &[u8], SnapshotError); 13] = [
        (0, b"Q", SnapshotError::Magic),
        (12, &[201, 0], malformed("the header has another length than its version's")),
        (12, &[0xff, 0xff], malformed("the header has another length than its version's")),
        (14, &[3, 0], malformed("the header names no kind of snapshot")),
        (20, &[0, 0, 0, 0], malformed("the header names no NIC")),
        (20, &[65, 0, 0, 0], malformed("the header names no NIC")),
        (20, &[0xff; 4], malformed("the header names no NIC")),
        (104, &[0xff], malformed("the header names no NIC")),
        (104, b"/", malformed("the header names no NIC")),
        (167, &[1], malformed("the header names no NIC")),
        (72, &[1], malformed("only a delta builds on another snapshot")),
        (
            24,
            &[0, 0, 0, 0, 1, 0, 0, 0],
            SnapshotError::TooMany { what: "conns", found: 1 << 32, limit: LIMIT },
        ),
        (24, &[0xff; 8], SnapshotError::TooMany { what: "conns", found: u64::MAX, limit: LIMIT }),
    ];
    for (at, new, expected) in cases {
        assert_eq!(header_with(at, new), expected, "{new:?} at {at}");
    }
    for (written, readable_from) in [(0, 0), (0, 1), (1, 0), (1, 2), (2, 2), (0xffff, 0xffff)] {
        let new: [u16; 2] = [written, readable_from];
        let new = new.map(u16::to_le_bytes).concat();
        assert!(matches!(header_with(8, &new), SnapshotError::Version { .. }), "{written}, {readable_from}");
    }
}

/// 2^32 chunks or 2^64 bytes are refused before there is a body.
#[test]
fn a_header_that_counts_more_than_its_body_can_hold_is_refused_alone() {
    let no_room = malformed("the header counts what its body has no room for");
    let counts: [(usize, &[u8]); 6] =
        [(16, &[0xff; 4]), (16, &[0; 4]), (24, &[100]), (32, &[0xff; 8]), (32, &[0; 8]), (32, &[0, 0, 2])];
    for (at, new) in counts {
        assert_eq!(header_with(at, new), no_room, "{new:?} at {at}");
        let mut header = sealing::header(0, &good());
        put(&mut header, at, new);
        let alone = sealing::sealed(header, &[]);
        assert_eq!(alone.len(), HEADER_LEN);
        assert_eq!(Decoder::new(&alone, &Key::new(&SECRET), LIMIT).unwrap_err(), no_room);
    }
}

#[test]
fn a_chunk_is_refused_by_what_its_head_counts() {
    let [whole] = <[Chunk; 1]>::try_from(good()).unwrap();
    let one = Chunk { records: 1, ..whole.clone() };
    // The header counts what the honest chunk has.
    let with_header_of = |honest: &Chunk, chunk: Chunk| {
        let header = sealing::header(0, std::slice::from_ref(honest));
        why(&sealing::sealed(header, &[chunk]))
    };
    let many = Chunk { records: u32::MAX, ..whole.clone() };
    assert_eq!(with_header_of(&whole, many), malformed("the body has more records than the header counts"));
    assert_eq!(with_header_of(&whole, one), malformed("a chunk has bytes left over"));
    let none = Chunk { records: 0, payload: vec![0; whole.payload.len()], gone: 0 };
    assert_eq!(with_header_of(&whole, none), malformed("a chunk has bytes left over"));
    let gone = Chunk { gone: 1, ..whole.clone() };
    assert_eq!(with_header_of(&whole, gone), malformed("only a delta says that conns are gone"));
    // Room for nine records in the body, and none of it in their own chunk.
    let crowded = [chunk(9, &[&DICTIONARIES, &UDP]), chunk(0, &[&[0, 0, 0], &[0; 200]])];
    assert_eq!(refused(&crowded), malformed("a chunk counts more than it has room for"));
    let fewer = [chunk(1, &[&DICTIONARIES, &UDP])];
    let mut header = sealing::header(0, &fewer);
    put(&mut header, 24, &[2]);
    let otherwise = malformed("the header counts otherwise than the body");
    assert_eq!(why(&sealing::sealed(header, &fewer)), otherwise);
    let mut header = sealing::header(0, &fewer);
    put(&mut header, 32, &[79]);
    assert_eq!(why(&sealing::sealed(header, &fewer)), otherwise);
}

#[test]
fn a_delta_cannot_say_that_more_is_gone_than_there_can_be() {
    let gone = [1, 187, 1, 80, 195, 0, 198, 51, 100, 7];
    let delta = |gone: u32, flows: &[u8]| {
        let chunks = [Chunk { records: 0, gone, payload: [&DICTIONARIES, flows].concat() }];
        sealing::sealed(sealing::header(2, &chunks), &chunks)
    };
    let key = Key::new(&SECRET);
    assert_eq!(Decoder::check(&delta(1, &gone), &key, LIMIT).unwrap().gone(), 1);
    let too_many = SnapshotError::TooMany { what: "conns that are gone", found: 1_001, limit: LIMIT };
    assert_eq!(why(&delta(1_001, &gone)), too_many);
    let all = Decoder::check(&delta(u32::MAX, &gone), &key, u64::MAX).unwrap_err();
    assert_eq!(all, malformed("a chunk counts more than it has room for"));
    assert_eq!(why(&delta(0, &gone)), malformed("a chunk has bytes left over"));
    let flagged = [&[9][..], &gone[1..]].concat();
    assert_eq!(why(&delta(1, &flagged)), malformed("a flow has flags that mean nothing"));
}

#[test]
fn chunks_must_be_there_and_nothing_else() {
    let chunks = good();
    let whole = sealing::sealed(sealing::header(0, &chunks), &chunks);
    assert_eq!(why(&[&whole[..], &[0]].concat()), SnapshotError::Trailing(1));
    assert_eq!(why(&sealing::sealed(sealing::header(0, &chunks), &[])), SnapshotError::CutShort("body"));
    for length in [65_537, u32::MAX] {
        let mut long = whole.clone();
        put(&mut long, HEADER_LEN, &length.to_le_bytes());
        let limit = 65_536;
        let found = length.into();
        assert_eq!(why(&long), SnapshotError::TooMany { what: "bytes of a chunk", found, limit });
    }
}

#[test]
fn dictionaries_are_refused_entry_by_entry() {
    let twice = || malformed("a dictionary has an entry twice");
    let no_name = || malformed("a rule's name is none");
    let cut = || SnapshotError::CutShort("chunk");
    let v6 = |first: u8| [&[1, 1][..], &[first], &[0; 15], &[0, 0]].concat();
    let cases: Vec<(Vec<u8>, SnapshotError)> = vec![
        (vec![2, 0, 10, 0, 0, 10, 0, 10, 0, 0, 10, 0, 0], twice()),
        ([&[0, 2][..], &[2; 6], &[2; 6], &[0]].concat(), twice()),
        (b"\0\0\x02\x01a\x01a".to_vec(), twice()),
        (
            [
                &[0, 40][..],
                &(0..39).flat_map(|last| [2, 0, 0, 0, 0, last]).collect::<Vec<_>>(),
                &[2, 0, 0, 0, 0, 7],
                &[0],
            ]
            .concat(),
            twice(),
        ),
        (vec![1, 2, 10, 0, 0, 10, 0, 0], malformed("an address is of no family")),
        (
            [&[1, 1][..], &[0; 10], &[0xff, 0xff, 10, 0, 0, 10], &[0, 0]].concat(),
            malformed("an IPv6 address is an IPv4 one"),
        ),
        (vec![0, 0, 1, 0], no_name()),
        (vec![0, 0, 1, 1, 0xff], no_name()),
        (b"\0\0\x01\x01 ".to_vec(), no_name()),
        (vec![0, 0, 1, 255, b'a'], cut()),
        (vec![0, 0, 0x80, 0x80, 0x80, 0x80, 0x10], cut()),
        (vec![0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], cut()),
        (vec![0x80, 0], malformed("a number is not in its shortest form")),
        (vec![0xff; 10], malformed("a number is not in its shortest form")),
        (vec![], cut()),
    ];
    for (payload, expected) in cases {
        assert_eq!(refused(&[chunk(0, &[&payload])]), expected, "{payload:?}");
    }
    assert_eq!(Decoder::check(&empty_chunk(v6(0x20)), &Key::new(&SECRET), 1).unwrap().header().records, 0);
}

fn empty_chunk(payload: Vec<u8>) -> Vec<u8> {
    let chunks = [Chunk { records: 0, gone: 0, payload }];
    sealing::sealed(sealing::header(0, &chunks), &chunks)
}

/// `record` with one byte changed, and why that is refused.
fn record_with(record: &[u8], at: usize, byte: u8) -> SnapshotError {
    let mut record = record.to_vec();
    record[at] = byte;
    refused(&[chunk(1, &[&DICTIONARIES, &record])])
}

#[test]
fn a_record_is_refused_field_by_field() {
    let tcp = [&TCP[..], &WINDOWS, &[0]].concat();
    let flags = malformed("a record has flags that mean nothing");
    let no_entry = malformed("a record names an entry its dictionary lacks");
    let long = malformed("a number is not in its shortest form");
    // Bit 7; drain and keep at once; a FIN or a rare state of what has none.
    for (record, at, byte) in [
        (&UDP[..], 1, 0x81),
        (&tcp, 1, 0x80),
        (&UDP, 0, 0xb7),
        (&UDP, 1, 0x11),
        (&UDP, 1, 0x21),
        (&UDP, 1, 0x41),
    ] {
        assert_eq!(record_with(record, at, byte), flags, "{byte:#x} at {at}");
    }
    for at in [6, 11, 12] {
        assert_eq!(record_with(&UDP, at, 1), no_entry, "place {at}");
        assert_eq!(record_with(&UDP, at, 0x7f), no_entry, "place {at}");
    }
    assert_eq!(record_with(&UDP, 15, 0), long);
    assert_eq!(record_with(&tcp, 22, 0), long, "a window");
    assert_eq!(record_with(&UDP, 15, 0x81), SnapshotError::CutShort("chunk"));
    // Sixteen bytes more are wanted for an IPv6 address where the local one is IPv4: they stay left over.
    let longer = [&UDP[..], &[0; 12]].concat();
    assert_eq!(refused(&[chunk(1, &[&DICTIONARIES, &longer])]), malformed("a chunk has bytes left over"));
}

#[test]
fn a_vlan_and_a_protocol_have_one_spelling() {
    for vlan in [0_u16, 4_095, 4_096, 0xffff] {
        let record = [&[0x87, 5][..], &UDP[2..6], &vlan.to_le_bytes(), &UDP[6..]].concat();
        let refused = refused(&[chunk(1, &[&DICTIONARIES, &record])]);
        assert_eq!(refused, malformed("a record has an impossible VLAN"), "{vlan}");
    }
    for protocol in [6, 17, 1] {
        let record = [&[0x87, 3, protocol][..], &UDP[6..]].concat();
        let refused = refused(&[chunk(1, &[&DICTIONARIES, &record])]);
        assert_eq!(refused, malformed("a record spells its protocol another way"), "{protocol}");
    }
}

#[test]
fn windows_have_one_spelling() {
    let rare = |rare: u8, awaited: &[u8]| {
        let flagged = [&[0x82, 0x40][..], &TCP[2..]].concat();
        refused(&[chunk(1, &[&DICTIONARIES, &flagged, &[0x77, rare], awaited, &WINDOWS[1..], &[0]])])
    };
    for none in [0, 0xf0, 4, 0x74] {
        assert_eq!(rare(none, &[]), malformed("a record spells a rare state that is none"), "{none:#x}");
    }
    let wide = [&[0x77, 1, 0, 0, 0][..], &[0x80, 0x80, 0x80, 0x80, 0x10], &WINDOWS[7..], &[0]].concat();
    assert_eq!(refused(&[chunk(1, &[&DICTIONARIES, &TCP, &wide])]), malformed("a number is above 32 bits"));
}
