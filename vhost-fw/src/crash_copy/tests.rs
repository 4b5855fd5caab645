//! A table is written down as it lives and found again by the next process; what cannot be believed is not.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;

use fw_engine::{Answers, Config, Frame, PreparedRules, VnetHeader};
use fw_model::{ConnFilter, Direction};

use super::*;

const RULES: &str = "nic: {id: web-1, mac: \"52:54:00:00:00:01\", addresses: [10.0.0.10]}\n\
                     defaults: {out: drop, in: drop}\n\
                     rules:\n  - {id: dns, direction: out, action: allow, protocol: udp, ports: [53]}\n";
const ROOM: u32 = 64;

fn nic() -> NicId {
    "web-1".parse().unwrap()
}

fn engine() -> Engine {
    let mut engine = Engine::new(Config { conns: ROOM, fragments: 1 << 16, hash_key: [3; 16], mtu: 1500 });
    let rules = crate::rules_file::parse(RULES, "rules", 0).unwrap();
    engine.install(Arc::new(PreparedRules::new(rules).unwrap()), Tick(0));
    engine
}

/// A DNS question from port `port` of the guest, without a checksum.
fn ask(engine: &mut Engine, port: u16, now: Tick) {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0x26, 0xb3, 10, 0, 0, 10, 10, 0, 0, 20]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 53, 0, 9, 0, 0, 7]);
    let judged =
        Frame { direction: Direction::Out, bytes: &frame, length: frame.len(), vnet: VnetHeader::NONE };
    let mut answers = Answers::with_capacity(1, 64);
    engine.judge(&[judged], now, &mut answers);
    let verdict = answers.drain().next().unwrap().name();
    assert_eq!(verdict, Some(fw_model::VerdictName::Pass));
}

fn conns(engine: &Engine, now: Tick) -> usize {
    engine.conns(&ConnFilter::default(), 100, now).len()
}

fn open(folder: &Path, engine: &mut Engine, now: Tick) -> (CrashCopy, Adoption) {
    CrashCopy::open(folder, &nic(), None, ROOM, engine, now).unwrap()
}

#[test]
fn a_conn_is_found_again_by_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = engine();
    let (mut copy, adoption) = open(folder.path(), &mut first, Tick(1_000));
    assert_eq!(adoption, Adoption::default());
    for port in 1..=3 {
        ask(&mut first, port, Tick(2_000));
    }
    copy.follow(&mut first, Tick(2_000));
    drop((copy, first));
    let mut second = engine();
    let (mut copy, adoption) = open(folder.path(), &mut second, Tick(7_000));
    assert_eq!((adoption.kept, conns(&second, Tick(7_000))), (3, 3));
    // Its life went on while nobody looked.
    assert_eq!(conns(&second, Tick(31_999)), 3);
    assert_eq!(conns(&second, Tick(32_000)), 0);
    // What the second closes the third does not find.
    second.kill(
        &ConnFilter { port: Some(2), ..ConnFilter::default() },
        Tick(7_000),
        &mut Answers::with_capacity(1, 64),
    );
    copy.follow(&mut second, Tick(7_000));
    drop((copy, second));
    let mut third = engine();
    assert_eq!(open(folder.path(), &mut third, Tick(8_000)).1.kept, 2);
}

#[test]
fn windows_that_moved_wait_and_states_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = engine();
    let (mut copy, _) = open(folder.path(), &mut first, Tick(0));
    ask(&mut first, 1, Tick(1_000));
    copy.follow(&mut first, Tick(1_000));
    assert_eq!(copy.next_due(), None, "an opened conn is written at once");
    ask(&mut first, 1, Tick(1_050));
    copy.follow(&mut first, Tick(1_050));
    assert_eq!(copy.next_due(), Some(Tick(1_150)));
    copy.follow(&mut first, Tick(1_150));
    assert_eq!(copy.next_due(), None, "nothing waits for ever, and nobody is woken for nothing");
    drop((copy, first));
    let mut second = engine();
    open(folder.path(), &mut second, Tick(2_000));
    assert_eq!(conns(&second, Tick(31_049)), 1, "the second question gave it new life");
}

#[test]
fn a_torn_write_leaves_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = engine();
    let (mut copy, _) = open(folder.path(), &mut first, Tick(0));
    ask(&mut first, 1, Tick(1_000));
    copy.follow(&mut first, Tick(1_000));
    ask(&mut first, 1, Tick(2_000));
    copy.follow(&mut first, Tick(2_000));
    drop((copy, first));
    let file = fs::File::options().write(true).open(folder.path().join("web-1.conns")).unwrap();
    // The second write went to the first half.
    file.write_all_at(&[0xff; 40], 4096 + 60).unwrap();
    let mut second = engine();
    assert_eq!(open(folder.path(), &mut second, Tick(3_000)).1.kept, 1);
    assert_eq!(conns(&second, Tick(30_999)), 1);
    assert_eq!(conns(&second, Tick(31_000)), 0, "as the first write has it");
}

#[test]
fn a_file_that_is_not_ours_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web-1.conns");
    let fill = || {
        let mut first = engine();
        let (mut copy, _) = open(folder.path(), &mut first, Tick(0));
        ask(&mut first, 1, Tick(1_000));
        copy.follow(&mut first, Tick(1_000));
    };
    let kept = |key: Option<&Key>, room| {
        let mut second = engine();
        CrashCopy::open(folder.path(), &nic(), key, room, &mut second, Tick(2_000)).unwrap().1.kept
    };
    fill();
    assert_eq!(kept(Some(&Key::new(&[1; 32])), ROOM), 0, "another key");
    fill();
    assert_eq!(kept(None, ROOM / 2), 0, "another size");
    for place in [0, 40, 60, 70] {
        fill();
        let mut bytes = fs::read(&path).unwrap();
        bytes[place] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert_eq!(kept(None, ROOM), 0, "byte {place}");
    }
    for length in [0, 31, 4095] {
        fill();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..length]).unwrap();
        assert_eq!(kept(None, ROOM), 0, "{length} bytes");
    }
    fill();
    assert_eq!(kept(None, ROOM), 1);
}

#[test]
fn a_folder_others_may_write_to_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let refused = CrashCopy::open(folder.path(), &nic(), None, ROOM, &mut engine(), Tick(0));
    assert!(matches!(refused, Err(CrashCopyError::Exposed(_))));
}
