//! Snapshots that were valid, altered at random and sealed again: what stands behind the seal is all that refuses them.
//!
//! Neither a panic nor half a table; whoever gets in could live, and ends. 100,000 in a normal run, 20,000,000 with
//! `scripts/test --long`.
#![cfg(test)]

use std::collections::BTreeMap;

use fw_model::Reason;
use fw_tests::landing::{Landed, Landing};
use fw_tests::program::repository;
use fw_tests::random::Random;
use fw_tests::sealing::{self, Chunk, put};
use fw_tests::suite::Size;

/// Bytes that sit at the edges of what fields can hold.
const EDGES: [u8; 12] = [0, 1, 2, 3, 6, 15, 17, 0x7f, 0x80, 0x81, 0xfe, 0xff];

fn count() -> u32 {
    match Size::asked() {
        Size::Fast => 10_000,
        Size::Whole => 100_000,
        Size::Long => 20_000_000,
    }
}

/// The committed golden snapshots, whole and delta, and one of conns that are all this NIC's.
fn seeds() -> Vec<(u16, Vec<Chunk>)> {
    let golden = |name: &str| {
        let path = repository().join("tests/golden/snapshot").join(name);
        sealing::chunks(&std::fs::read(path).unwrap())
    };
    vec![(0, golden("v1-whole.bin")), (2, golden("v1-delta.bin")), (0, vec![own_conns()])]
}

/// Every state of TCP, answered and asked UDP, an echo, IPv6, and a FIN.
fn own_conns() -> Chunk {
    let mut payload = vec![2, 0, 10, 0, 0, 10, 1, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x10];
    payload.extend([1, 0x52, 0x54, 0, 0, 0, 0xfe, 2, 3, b'w', b'e', b'b', 2, b'd', b'b']);
    let v4 = [198, 51, 100, 7];
    let v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9];
    let windows = [0x77, 0x10, 0x27, 0, 0, 0x80, 0x80, 4, 0, 0, 0x20, 0x4e, 0, 0, 0x80, 0x80, 4, 0, 0];
    for state in 0..6 {
        payload.extend([0x80 | state, 0, 80, 0, 1, 4 + state, 0]);
        payload.extend(v4);
        payload.extend([0, 0, 0xb0, 0xea, 1]);
        payload.extend(windows);
    }
    payload.extend([0x80 | 2, 0x30, 80, 0, 2, 4, 1]);
    payload.extend(v6);
    payload.extend([0, 0, 0xb0, 0xea, 1]);
    payload.extend(windows);
    for (first, second, ports) in
        [(0x87, 1, [53, 0, 9, 9]), (0x8e, 1, [9, 9, 53, 0]), (0x86, 2, [0, 0, 7, 0])]
    {
        payload.extend([first, second]);
        payload.extend(ports);
        payload.push(0);
        payload.extend(v4);
        payload.extend([0, u8::from(first & 8 != 0), 0xb0, 0x6d]);
    }
    Chunk { records: 10, gone: 0, payload }
}

/// One to four changes to a chunk, most of them small.
fn alter(chunk: &mut Chunk, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let length = chunk.payload.len().max(1) as u64;
        let at = usize::try_from(random.below(length)).unwrap();
        let edge = *random.one_of(&EDGES);
        match random.below(16) {
            0 => chunk.payload.truncate(at),
            1 => chunk.payload.insert(at.min(chunk.payload.len()), edge),
            2 if at < chunk.payload.len() => drop(chunk.payload.remove(at)),
            3 => {
                let end = (at + 1 + usize::try_from(random.below(64)).unwrap()).min(chunk.payload.len());
                let again = chunk.payload.get(at..end).unwrap_or_default().to_vec();
                chunk.payload.extend(again);
            }
            4 => chunk.records = chunk.records.wrapping_add(1),
            5 => chunk.records = chunk.records.wrapping_sub(1),
            6 => chunk.gone = chunk.gone.wrapping_add(u32::from(edge) << random.below(25)),
            7..=9 => put(&mut chunk.payload, at, &[edge]),
            _ => {
                let flipped = chunk.payload.get(at).copied().unwrap_or(0) ^ 1 << random.below(8);
                put(&mut chunk.payload, at, &[flipped]);
            }
        }
    }
}

fn altered(seeds: &[(u16, Vec<Chunk>)], random: &mut Random) -> Vec<u8> {
    let (kind, mut chunks) = random.one_of(seeds).clone();
    if random.once_in(8) {
        let again = chunks.clone();
        chunks.extend(again);
    }
    let place = usize::try_from(random.below(chunks.len() as u64)).unwrap();
    alter(&mut chunks[place], random);
    let mut header = sealing::header(kind, &chunks);
    if random.once_in(32) {
        let at = usize::try_from(random.below(168)).unwrap();
        put(&mut header, at, &[*random.one_of(&EDGES)]);
    }
    sealing::sealed(header, &chunks)
}

#[test]
fn an_altered_snapshot_under_a_valid_seal_is_refused_whole_or_holds_only_conns_that_could_live() {
    let (seeds, mut landing, mut random) = (seeds(), Landing::new(), Random::new(1));
    let (mut taken, mut adopted) = (0_u32, 0_u64);
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..count() {
        match landing.take(&altered(&seeds, &mut random)) {
            Landed::Refused(error) => {
                let text = error.to_string();
                let text = text.split_once(':').map_or(text.as_str(), |(what, _)| what);
                *reasons.entry(text.to_owned()).or_default() += 1;
            }
            Landed::Taken(adoption) => {
                taken += 1;
                adopted += adoption.kept + adoption.judged_again;
                for (reason, count) in adoption.refused {
                    *reasons.entry(reason.name().to_owned()).or_default() += count;
                }
            }
        }
    }
    eprintln!("{} snapshots, {taken} taken, {adopted} conns adopted, refused: {reasons:#?}", count());
    // Were everything refused by the first check, nothing would have been tried.
    assert!(taken > count() / 10 && adopted > u64::from(count()) / 2, "{taken} taken, {adopted} adopted");
    let wanted = [Reason::RecordImpossible, Reason::RecordTwice, Reason::AddressNotOurs, Reason::VlanRefused];
    for reason in wanted {
        assert!(reasons.contains_key(reason.name()), "{reason} was never met: {reasons:#?}");
    }
    let format = [
        "a chunk has bytes left over",
        "a record has flags that mean nothing",
        "a record names an entry its dictionary lacks",
        "a number is not in its shortest form",
        "it ends within the chunk",
    ];
    for reason in format {
        assert!(reasons.contains_key(reason), "`{reason}` was never met: {reasons:#?}");
    }
}
