//! Every version ever shipped, as files in `tests/golden/snapshot`: what was written then is read now, and means the same.
#![cfg(test)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use conn_snapshot::{
    Decoder, Encoder, HEADER_LEN, Header, Key, Kind, Record, SavedEnd, SavedState, SavedTcp,
};
use fw_model::{Addr, Direction, FlowKey, HandoverId, MacAddr, OnRevoke, Protocol, RuleId};

const KEY: [u8; 32] = [7; 32];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/snapshot")
}

fn conn(flow: FlowKey, state: SavedState, tcp: Option<SavedTcp>) -> Record {
    Record {
        flow,
        opener: Direction::In,
        peer_mac: MacAddr([0x52, 0x54, 0, 0, 0, 0xfe]),
        state,
        remaining_ms: 7_000_001,
        ends_in_ms: None,
        on_revoke: OnRevoke::Kill,
        expected: false,
        rule: Some(0),
        tcp,
    }
}

/// An established TCP conn, an answered UDP one of a VLAN over IPv6, an echo without a rule, a GRE flow that drains, and
/// a TCP conn in every rare state at once.
fn records() -> Vec<Record> {
    let v4 = FlowKey {
        local: Addr::v4([10, 0, 0, 10]),
        remote: Addr::v4([198, 51, 100, 7]),
        local_port: 443,
        remote_port: 50_000,
        protocol: Protocol::TCP,
        vlan: 0,
    };
    let v6 = |last| Addr::v6([0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, last]);
    let end = |end, acked, max_end| SavedEnd {
        end,
        max_end,
        max_window: 65_536,
        acked,
        scale: Some(7),
        fin: false,
        resuming: false,
    };
    let tcp = SavedTcp {
        ends: [end(4_294_967_290, 1_000, 60_000), end(1_500, 4_294_967_000, 66_000)],
        awaited: 0,
        pending_scale: None,
        pending: false,
        challenged: false,
    };
    let [mut opener, mut answerer] = tcp.ends;
    (opener.fin, opener.scale, answerer.resuming) = (true, None, true);
    let rare = SavedTcp {
        ends: [opener, answerer],
        awaited: 77,
        pending_scale: Some(3),
        pending: true,
        challenged: true,
    };
    let udp = FlowKey { local: v6(0x10), remote: v6(0x20), protocol: Protocol::UDP, vlan: 30, ..v4 };
    let echo = FlowKey { protocol: Protocol::ICMP, remote_port: 0, local_port: 9, ..v4 };
    let gre = FlowKey { protocol: Protocol(47), remote_port: 0, local_port: 0, ..v4 };
    vec![
        conn(v4, SavedState::Established, Some(tcp)),
        Record { expected: true, rule: Some(1), ..conn(udp, SavedState::Answered, None) },
        Record { rule: None, opener: Direction::Out, ..conn(echo, SavedState::Asked, None) },
        Record {
            on_revoke: OnRevoke::Drain,
            ends_in_ms: Some(300_000),
            ..conn(gre, SavedState::Answered, None)
        },
        Record {
            on_revoke: OnRevoke::Keep,
            ..conn(FlowKey { local_port: 22, ..v4 }, SavedState::FinWait, Some(rare))
        },
    ]
}

fn write(kind: Kind, key: &Key) -> Vec<u8> {
    let names: Vec<RuleId> = ["web", "db"].map(|name| name.parse().unwrap()).to_vec();
    let mut encoder = Encoder::new();
    for record in records() {
        encoder.push(&record, &names);
    }
    if kind == Kind::Delta {
        encoder.push_gone(&FlowKey { local_port: 80, ..records()[0].flow }, &names);
    }
    let header = Header {
        kind,
        nic: "web-1".parse().unwrap(),
        generation: 7,
        created_ms: 1_795_000_000_000,
        handover: HandoverId([9; 16]),
        base: if kind == Kind::Delta { [5; 32] } else { [0; 32] },
        records: 0,
        chunks: 0,
        body_len: 0,
    };
    encoder.finish(header, &names, key).bytes
}

/// The files of version 1, as this program writes them.
fn version_1() -> Vec<(&'static str, Vec<u8>)> {
    let whole = write(Kind::Whole, &Key::new(&KEY));
    let changed = |place: usize, to: u8| {
        let mut bytes = whole.clone();
        bytes[place] = to;
        bytes
    };
    vec![
        ("v1-delta", write(Kind::Delta, &Key::new(&KEY))),
        ("v1-refused-altered-body", changed(HEADER_LEN + 20, 0xff)),
        ("v1-refused-altered-header", changed(40, 8)),
        ("v1-refused-cut-short", whole[..whole.len() - 1].to_vec()),
        ("v1-refused-magic", changed(0, b'Q')),
        ("v1-refused-newer", [&whole[..8], &[2, 0, 2, 0], &whole[12..]].concat()),
        ("v1-refused-other-key", write(Kind::Whole, &Key::new(&[8; 32]))),
        ("v1-refused-trailing", [&whole[..], &[0]].concat()),
        ("v1-whole", whole),
    ]
}

/// What a file means: its header, records and gone flows, or why it is refused.
fn meaning(bytes: &[u8]) -> String {
    match Decoder::check(bytes, &Key::new(&KEY), 1_000) {
        Ok(checked) => {
            let mut said = format!("{:#?}\n", checked.header());
            checked.visit(|chunk| writeln!(said, "{chunk:#?}").unwrap());
            said
        }
        Err(error) => format!("refused: {error}\n"),
    }
}

#[test]
fn every_golden_snapshot_means_what_it_meant() {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        for (name, bytes) in version_1() {
            fs::write(folder().join(name).with_extension("txt"), meaning(&bytes)).unwrap();
            fs::write(folder().join(name).with_extension("bin"), bytes).unwrap();
        }
    }
    let mut found = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "bin") {
            found += 1;
            let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
            assert_eq!(meaning(&fs::read(&path).unwrap()), expected, "{}", path.display());
            let refused = path.to_string_lossy().contains("-refused-");
            assert_eq!(expected.starts_with("refused: "), refused, "{}", path.display());
        }
    }
    assert!(found >= version_1().len(), "golden snapshots are gone: {found} left");
}

/// A change of what is written is a new version, never another version 1.
#[test]
fn version_1_is_written_byte_for_byte_as_it_was() {
    for (name, bytes) in version_1() {
        assert_eq!(fs::read(folder().join(name).with_extension("bin")).unwrap(), bytes, "{name}");
    }
}
