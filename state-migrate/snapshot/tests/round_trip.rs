//! What is written is what is read, small, and nothing else is read.
#![cfg(test)]
#![expect(clippy::cast_possible_truncation, reason = "random numbers are cut to size")]

use conn_snapshot::{
    CHUNK_HEAD_LEN, Chunk, ChunkHead, Decoder, Encoder, HEADER_LEN, Header, Key, Kind, Record, SLOT_LEN,
    SavedEnd, SavedSlot, SavedState, SavedTcp, Sealed, SlotKey, SnapshotError,
};
use fw_model::{Addr, Direction, FlowKey, HandoverId, MacAddr, OnRevoke, Protocol, RuleId};
use proptest::prelude::*;

fn key() -> Key {
    Key::new(&[7; 32])
}

fn header() -> Header {
    Header {
        kind: Kind::Whole,
        nic: "web-1".parse().unwrap(),
        generation: 7,
        created_ms: 1_795_000_000_000,
        handover: HandoverId([9; 16]),
        base: [0; 32],
        records: 0,
        chunks: 0,
        body_len: 0,
    }
}

fn names() -> Vec<RuleId> {
    ["web", "db", "a-rule-with-a-longer-name"].map(|name| name.parse().unwrap()).to_vec()
}

fn snapshot(records: &[Record]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    for record in records {
        encoder.push(record, &names());
    }
    encoder.finish(header(), &names(), &key()).bytes
}

/// Every record, its rule by name; a reader of one chunk after the other says the same.
fn read(bytes: &[u8]) -> Result<Vec<(Record, Option<RuleId>)>, SnapshotError> {
    let whole = read_whole(bytes);
    assert_eq!(read_by_chunks(bytes), whole);
    whole
}

fn read_whole(bytes: &[u8]) -> Result<Vec<(Record, Option<RuleId>)>, SnapshotError> {
    let checked = Decoder::check(bytes, &key(), 1 << 20)?;
    let mut read = Vec::new();
    checked.visit(|chunk| take(chunk, &mut read));
    assert_eq!(read.len() as u64, checked.header().records);
    Ok(read)
}

fn read_by_chunks(bytes: &[u8]) -> Result<Vec<(Record, Option<RuleId>)>, SnapshotError> {
    let mut decoder = Decoder::new(bytes, &key(), 1 << 20)?;
    let (mut read, mut chunk, mut rest) = (Vec::new(), Chunk::default(), &bytes[HEADER_LEN..]);
    let mut take_bytes = |length: usize| {
        let (first, behind) = rest.split_at_checked(length).ok_or(SnapshotError::CutShort("body"))?;
        rest = behind;
        Ok(first)
    };
    while decoder.has_more() {
        let head = ChunkHead::read(take_bytes(CHUNK_HEAD_LEN)?)?;
        decoder.chunk(head, take_bytes(head.rest_len())?, &mut chunk)?;
        take(&chunk, &mut read);
    }
    decoder.finish(rest.len() as u64)?;
    Ok(read)
}

fn take(chunk: &Chunk, read: &mut Vec<(Record, Option<RuleId>)>) {
    for record in &chunk.records {
        let rule = record.rule.map(|rule| chunk.rules[rule as usize].clone());
        read.push((Record { rule: None, ..*record }, rule));
    }
}

fn named(records: &[Record]) -> Vec<(Record, Option<RuleId>)> {
    records
        .iter()
        .map(|record| {
            (Record { rule: None, ..*record }, record.rule.map(|rule| names()[rule as usize].clone()))
        })
        .collect()
}

fn number(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A TCP conn as a busy server has them: any peer, a scaled window, some bytes in flight.
fn living(v4: bool, seed: &mut u64) -> Record {
    let mut random = || number(seed);
    let remote = if v4 {
        Addr::v4((random() as u32 | 0x0100_0000).to_be_bytes())
    } else {
        Addr::v6((0x2001_0db8_u128 << 96 | u128::from(random())).to_be_bytes())
    };
    let local = if v4 {
        Addr::v4([10, 0, 0, 10])
    } else {
        Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x10])
    };
    let (a, b) = (random() as u32, random() as u32);
    let (flight_a, flight_b) = (random() as u32 % 3_000, random() as u32 % 60_000);
    let (window_a, window_b) = (65_536 + random() as u32 % 2_000_000, 65_536 + random() as u32 % 2_000_000);
    let acked_a = b.wrapping_sub(flight_b);
    let acked_b = a.wrapping_sub(flight_a);
    let end = |end, acked, max_window, max_end| SavedEnd {
        end,
        max_end,
        max_window,
        acked,
        scale: Some(7),
        fin: false,
        resuming: false,
    };
    let slack = random() as u32 % 20_000;
    Record {
        flow: FlowKey {
            local,
            remote,
            local_port: 443,
            remote_port: 1_024 + (random() % 60_000) as u16,
            protocol: Protocol::TCP,
            vlan: 0,
        },
        opener: Direction::In,
        peer_mac: MacAddr([0x52, 0x54, 0, 0, 0, 0xfe]),
        state: SavedState::Established,
        remaining_ms: random() % 7_440_000,
        ends_in_ms: None,
        on_revoke: OnRevoke::Kill,
        expected: false,
        rule: Some(0),
        tcp: Some(SavedTcp {
            ends: [
                end(a, acked_a, window_a, acked_b.wrapping_add(window_b).wrapping_sub(slack)),
                end(b, acked_b, window_b, acked_a.wrapping_add(window_a)),
            ],
            awaited: 0,
            pending_scale: None,
            pending: false,
            challenged: false,
        }),
    }
}

#[test]
fn a_table_of_living_conns_is_small() {
    for count in [1_000, 100_000] {
        let mut seed = 1;
        for (v4, mean) in [(true, 40.0), (false, 64.0)] {
            let records: Vec<_> = (0..count).map(|_| living(v4, &mut seed)).collect();
            let bytes = snapshot(&records);
            assert_eq!(read(&bytes).unwrap(), named(&records));
            let each = bytes.len() as f64 / f64::from(count);
            assert!(each <= mean, "{each} bytes each, v4 {v4}");
        }
    }
}

#[test]
fn an_empty_table_is_a_header() {
    let bytes = snapshot(&[]);
    assert_eq!(bytes.len(), HEADER_LEN);
    assert_eq!(read(&bytes), Ok(Vec::new()));
}

#[test]
fn the_header_is_read_and_believed_alone() {
    let mut seed = 3;
    let records: Vec<_> = (0..2_000).map(|_| living(true, &mut seed)).collect();
    let bytes = snapshot(&records);
    let sealed = Sealed::read(&bytes[..HEADER_LEN]).unwrap();
    sealed.check(&key()).unwrap();
    assert_eq!(sealed.header.nic.as_str(), "web-1");
    assert_eq!((sealed.header.generation, sealed.header.records), (7, 2_000));
    assert_eq!(sealed.header.body_len, (bytes.len() - HEADER_LEN) as u64);
    assert!(sealed.header.chunks > 1);
    let other = sealed.check(&Key::new(&[8; 32]));
    assert_eq!(other, Err(SnapshotError::NotAuthentic("header")));
}

/// A short snapshot of two chunks.
fn short() -> Vec<u8> {
    let mut seed = 4;
    let records: Vec<_> = (0..2_000).map(|_| living(true, &mut seed)).collect();
    snapshot(&records)
}

/// MIG-001.
#[test]
fn cut_short_anywhere_it_is_refused() {
    let bytes = short();
    for length in (0..bytes.len()).step_by(97).chain(0..HEADER_LEN + 20).chain(bytes.len() - 40..bytes.len())
    {
        let error = read(&bytes[..length]).unwrap_err();
        assert!(matches!(error, SnapshotError::CutShort(_)), "{length}: {error}");
    }
}

/// MIG-002, in every byte of the header and of the ends of chunks; `--long` flips more.
#[test]
fn a_flipped_bit_is_found_wherever_it_is() {
    let bytes = short();
    for place in (0..bytes.len()).step_by(61).chain(0..HEADER_LEN + 16).chain(bytes.len() - 40..bytes.len()) {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[place] ^= 1 << bit;
            assert!(read(&changed).is_err(), "byte {place}, bit {bit}");
        }
    }
}

/// MIG-003.
#[test]
fn another_key_is_no_key() {
    let mut encoder = Encoder::new();
    encoder.push(&living(true, &mut 1), &names());
    let forged = encoder.finish(header(), &names(), &Key::new(&[8; 32])).bytes;
    assert_eq!(read(&forged), Err(SnapshotError::NotAuthentic("header")));
    // The right header with another body.
    let mut mixed = snapshot(&[living(true, &mut 1)]);
    mixed.truncate(HEADER_LEN);
    mixed.extend_from_slice(&forged[HEADER_LEN..]);
    assert_eq!(read(&mixed), Err(SnapshotError::NotAuthentic("chunk")));
}

#[test]
fn chunks_keep_their_places_and_their_snapshot() {
    let bytes = short();
    let first_len = u32::from_le_bytes(bytes[HEADER_LEN..HEADER_LEN + 4].try_into().unwrap()) as usize + 44;
    let (header, body) = bytes.split_at(HEADER_LEN);
    let (first, second) = body.split_at(first_len);
    let swapped = [header, second, first].concat();
    assert_eq!(read(&swapped), Err(SnapshotError::NotAuthentic("chunk")));
    let doubled = [header, first, first].concat();
    assert_eq!(read(&doubled), Err(SnapshotError::NotAuthentic("chunk")));
    let more = [header, first, second, second].concat();
    assert_eq!(read(&more), Err(SnapshotError::Trailing(second.len() as u64)));
}

/// MIG-006 and MIG-018: counts are held to what may be read before anything else is.
#[test]
fn more_conns_than_there_is_room_for_are_refused_by_the_header() {
    let bytes = short();
    let refused = Decoder::new(&bytes, &key(), 1_999).unwrap_err();
    assert_eq!(refused, SnapshotError::TooMany { what: "conns", found: 2_000, limit: 1_999 });
    assert!(Decoder::new(&bytes, &key(), 2_000).is_ok());
}

fn any_record() -> impl Strategy<Value = Record> {
    let addr = |v4: bool| {
        any::<u128>().prop_map(move |bits| {
            let [a, b, c, d, ..] = bits.to_be_bytes();
            if v4 { Addr::v4([a, b, c, d]) } else { Addr::v6((bits | 1 << 127).to_be_bytes()) }
        })
    };
    let end = (any::<[u32; 4]>(), proptest::option::of(0..=14_u8), any::<[bool; 2]>()).prop_map(
        |([end, max_end, max_window, acked], scale, [fin, resuming])| SavedEnd {
            end,
            max_end,
            max_window,
            acked,
            scale,
            fin,
            resuming,
        },
    );
    let waits = (any::<[bool; 2]>(), any::<u32>(), proptest::option::of(0..=14_u8));
    let tcp = ([end.clone(), end], waits).prop_map(|(ends, ([pending, challenged], awaited, scale))| {
        let waits = pending || challenged;
        SavedTcp {
            ends,
            awaited: if waits { awaited } else { 0 },
            pending_scale: scale.filter(|_| waits),
            pending,
            challenged,
        }
    });
    let flow = any::<bool>().prop_flat_map(move |v4| {
        (addr(v4), addr(v4), any::<[u16; 2]>(), any::<u8>(), 0..4_095_u16).prop_map(
            |(local, remote, [local_port, remote_port], protocol, vlan)| {
                let protocol = match protocol {
                    0..100 => Protocol::TCP,
                    100..180 => Protocol::UDP,
                    180..200 => Protocol::ICMP,
                    200..220 => Protocol::ICMPV6,
                    other => Protocol(other),
                };
                let ports = matches!(protocol, Protocol::TCP | Protocol::UDP)
                    || (protocol == Protocol::ICMP && local.is_v4())
                    || (protocol == Protocol::ICMPV6 && !local.is_v4());
                let port = |port| if ports { port } else { 0 };
                FlowKey {
                    local,
                    remote,
                    local_port: port(local_port),
                    remote_port: port(remote_port),
                    protocol,
                    vlan,
                }
            },
        )
    });
    let rest = (
        any::<[bool; 2]>(),
        any::<[u8; 6]>(),
        0..8_usize,
        any::<u64>(),
        any::<Option<u64>>(),
        0..3_u8,
        0..4_u32,
    );
    (flow, rest, tcp).prop_map(
        |(flow, ([out, expected], mac, state, remaining_ms, ends_in_ms, revoke, rule), tcp)| Record {
            flow,
            opener: if out { Direction::Out } else { Direction::In },
            peer_mac: MacAddr(mac),
            state: [
                SavedState::SynSent,
                SavedState::SynReceived,
                SavedState::Established,
                SavedState::FinWait,
                SavedState::TimeWait,
                SavedState::Close,
                SavedState::Asked,
                SavedState::Answered,
            ][state],
            remaining_ms,
            ends_in_ms,
            on_revoke: [OnRevoke::Kill, OnRevoke::Drain, OnRevoke::Keep][revoke as usize],
            expected,
            rule: (rule < 3).then_some(rule),
            tcp: (flow.protocol == Protocol::TCP).then_some(tcp),
        },
    )
}

proptest! {
    #[test]
    fn every_record_comes_back(records in proptest::collection::vec(any_record(), 0..40)) {
        prop_assert_eq!(read(&snapshot(&records)).unwrap(), named(&records));
    }

    #[test]
    fn a_slot_holds_any_record_and_no_half_write(record in any_record(), at in 0..SLOT_LEN, bit in 0..8_u8) {
        let slot_key = SlotKey::new(Some(&key()), &[3; 32]);
        // Moments do not reach beyond the end of time.
        let record = Record { remaining_ms: record.remaining_ms >> 1, ends_in_ms: record.ends_in_ms.map(|ms| ms >> 1), rule: None, ..record };
        let tag = slot_key.tag("web");
        let slot = SavedSlot { sequence: 7, conn: Some((record, tag)) };
        let mut bytes = slot.encode(&slot_key, 5, 1_000);
        prop_assert_eq!(SavedSlot::decode(&bytes, &slot_key, 5, 1_000), Some(slot));
        prop_assert_eq!(SavedSlot::decode(&bytes, &slot_key, 6, 1_000), None);
        prop_assert_eq!(SavedSlot::decode(&bytes, &SlotKey::new(None, &[3; 32]), 5, 1_000), None);
        bytes[at] ^= 1 << bit;
        prop_assert_eq!(SavedSlot::decode(&bytes, &slot_key, 5, 1_000), None);
    }

    #[test]
    fn no_bytes_are_a_snapshot(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
    }
}

#[test]
fn only_a_delta_says_what_is_gone() {
    let records = [living(true, &mut 1), living(false, &mut 2)];
    let make = |kind| {
        let mut encoder = Encoder::new();
        encoder.push(&records[0], &names());
        encoder.push_gone(&records[1].flow, &names());
        encoder.finish(Header { kind, ..header() }, &names(), &key()).bytes
    };
    let mut gone = Vec::new();
    let delta = make(Kind::Delta);
    let checked = Decoder::check(&delta, &key(), 10).unwrap();
    checked.visit(|chunk| gone.extend_from_slice(&chunk.gone));
    assert_eq!((gone.as_slice(), checked.gone()), (&[records[1].flow][..], 1));
    let refused = SnapshotError::Malformed("only a delta says that conns are gone");
    assert_eq!(read(&make(Kind::Whole)), Err(refused));
}

/// What is gone is held to what may be read as the records are, and its bytes must be there.
#[test]
fn more_gone_conns_than_there_can_be_are_refused() {
    let mut encoder = Encoder::new();
    for port in 1..=11 {
        encoder.push_gone(&FlowKey { remote_port: port, ..living(true, &mut 1).flow }, &names());
    }
    let bytes = encoder.finish(Header { kind: Kind::Delta, ..header() }, &names(), &key()).bytes;
    assert_eq!(Decoder::check(&bytes, &key(), 11).unwrap().gone(), 11);
    let refused = Decoder::check(&bytes, &key(), 10).unwrap_err();
    assert_eq!(refused, SnapshotError::TooMany { what: "conns that are gone", found: 11, limit: 10 });
}
