//! A table is written down as it lives and found again by the next process; what cannot be believed is not.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;

use fw_engine::{Answers, Config, Frame, PortableEnd, PortableTcp, PreparedRules, VnetHeader};
use fw_model::{ConnFilter, Direction, MacAddr};

use super::*;

const RULES: &str = "nic: {id: web-1, mac: \"52:54:00:00:00:01\", addresses: [10.0.0.10]}\n\
                     defaults: {out: drop, in: drop}\n\
                     rules:\n  - {id: dns, direction: out, action: allow, protocol: udp, ports: [53]}\n";
const ROOM: u32 = 64;

/// A folder that nobody else may look into.
fn private() -> tempfile::TempDir {
    tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().unwrap()
}

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
    let folder = private();
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
    let folder = private();
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
    let folder = private();
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

fn fill(folder: &Path) {
    let mut first = engine();
    let (mut copy, _) = open(folder, &mut first, Tick(0));
    ask(&mut first, 1, Tick(1_000));
    copy.follow(&mut first, Tick(1_000));
}

/// Opens what is there: how many conns resumed, or why none did.
fn resumed(folder: &Path, key: Option<&Key>, room: u32) -> Result<u64, String> {
    let mut second = engine();
    let (copy, adoption) = CrashCopy::open(folder, &nic(), key, room, &mut second, Tick(2_000)).unwrap();
    match copy.resumed() {
        Some(Arrived::Adopted(told)) => {
            assert_eq!(told, &adoption);
            Ok(told.kept)
        }
        Some(Arrived::Refused(cause)) => {
            assert_eq!(conns(&second, Tick(2_000)), 0);
            Err(cause.clone())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_is_not_ours_is_not_believed_and_that_is_told() {
    let folder = private();
    let path = folder.path().join("web-1.conns");
    let refused = |key: Option<&Key>, room| resumed(folder.path(), key, room).unwrap_err();
    fill(folder.path());
    assert!(refused(Some(&Key::new(&[1; 32])), ROOM).contains("another key"));
    fill(folder.path());
    assert!(refused(None, ROOM / 2).contains("one of 32 conns has 12288"));
    for place in [0, 40, 60, 70] {
        fill(folder.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[place] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(refused(None, ROOM).contains("another boot"), "byte {place}");
    }
    for length in [0, 31, 4095] {
        fill(folder.path());
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..length]).unwrap();
        assert!(refused(None, ROOM).contains(&format!("it has {length} bytes")), "{length}");
    }
    fill(folder.path());
    assert_eq!(resumed(folder.path(), None, ROOM), Ok(1));
}

/// However long a file claims to be, no more of it is read than this table's has.
#[test]
fn an_endless_file_is_refused_by_its_length() {
    let folder = private();
    fill(folder.path());
    let file = fs::File::options().write(true).open(folder.path().join("web-1.conns")).unwrap();
    file.set_len(1 << 40).unwrap();
    drop(file);
    assert!(resumed(folder.path(), None, ROOM).unwrap_err().contains("it has 1099511627776 bytes"));
}

#[test]
fn two_processes_cannot_share_a_file() {
    let folder = private();
    let mut first = engine();
    let (mut copy, _) = open(folder.path(), &mut first, Tick(0));
    ask(&mut first, 1, Tick(1_000));
    copy.follow(&mut first, Tick(1_000));
    let refused = CrashCopy::open(folder.path(), &nic(), None, ROOM, &mut engine(), Tick(2_000));
    let told = refused.err().unwrap().to_string();
    assert!(told.contains("another vhost-fw of this NIC runs"), "{told}");
    // Its copy is as it was.
    ask(&mut first, 2, Tick(3_000));
    copy.follow(&mut first, Tick(3_000));
    drop((copy, first));
    assert_eq!(resumed(folder.path(), None, ROOM), Ok(2));
}

#[test]
fn what_others_may_read_or_write_is_refused_with_the_remedy() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("state");
    let exposed = || match CrashCopy::open(&folder, &nic(), None, ROOM, &mut engine(), Tick(2_000)) {
        Ok(_) => None,
        Err(error) => Some(error.to_string()).filter(|told| told.contains("chmod go= it")),
    };
    fill(&folder);
    let is = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let file = folder.join("web-1.conns");
    assert_eq!((is(&folder), is(&file)), (0o700, 0o600));
    for (path, good) in [(&folder, 0o700), (&file, 0o600)] {
        for bad in [0o040, 0o020, 0o004, 0o002] {
            fs::set_permissions(path, fs::Permissions::from_mode(good | bad)).unwrap();
            assert!(exposed().is_some(), "{} with {bad:o}", path.display());
            fs::set_permissions(path, fs::Permissions::from_mode(good)).unwrap();
        }
    }
    assert_eq!(exposed(), None);
}

/// Another conn in the same place, another rule, a FIN: written at once, for what was written stands for something else.
#[test]
fn what_a_conn_stands_for_is_written_at_once() {
    let folder = private();
    let mut first = engine();
    let (mut copy, _) = open(folder.path(), &mut first, Tick(0));
    ask(&mut first, 1, Tick(1_000));
    copy.follow(&mut first, Tick(1_000));
    let mut conn = None;
    first.export(0..1, Tick(1_001), |_, found, rule| conn = Some((*found, rule)));
    let (conn, rule) = conn.unwrap();
    let now = Tick(1_001);
    assert!(!copy.is_urgent(0, Some((&conn, rule)), now), "nothing has changed");
    let mut flow = conn.flow;
    flow.remote = Addr::v4([10, 0, 0, 21]);
    assert!(copy.is_urgent(0, Some((&PortableConn { flow, ..conn }, rule)), now), "another address");
    flow = conn.flow;
    flow.vlan = 7;
    assert!(copy.is_urgent(0, Some((&PortableConn { flow, ..conn }, rule)), now), "another VLAN");
    let peer_mac = MacAddr([2; 6]);
    assert!(copy.is_urgent(0, Some((&PortableConn { peer_mac, ..conn }, rule)), now), "another MAC address");
    assert!(copy.is_urgent(0, Some((&conn, None)), now), "another rule");
    let end =
        PortableEnd { end: 1, max_end: 2, max_window: 3, acked: 0, scale: None, fin: false, resuming: false };
    let tcp =
        PortableTcp { ends: [end; 2], awaited: 0, pending_scale: None, pending: false, challenged: false };
    let open = PortableConn { tcp: Some(tcp), ..conn };
    copy.write(&first, 0, Some((&open, rule)), now);
    assert!(!copy.is_urgent(0, Some((&open, rule)), now));
    let fin = PortableTcp { ends: [end, PortableEnd { fin: true, ..end }], ..tcp };
    assert!(copy.is_urgent(0, Some((&PortableConn { tcp: Some(fin), ..conn }, rule)), now), "a FIN");
}

#[test]
fn handovers_that_were_taken_are_known_to_the_next_process_and_to_a_successor() {
    let folder = private();
    let ids = [HandoverId([1; 16]), HandoverId([2; 16])];
    let mut first = engine();
    let (mut copy, _) = open(folder.path(), &mut first, Tick(0));
    ids.iter().for_each(|id| copy.remember(*id));
    let (successor, _) = CrashCopy::make_after(folder.path(), &nic(), None, ROOM).unwrap();
    assert_eq!(successor.taken(), ids, "while the one before still serves");
    drop((successor, copy));
    for _ in 0..2 {
        let (copy, _) = open(folder.path(), &mut engine(), Tick(1_000));
        assert_eq!(copy.taken(), ids);
    }
    let (copy, _) =
        CrashCopy::open(folder.path(), &nic(), Some(&Key::new(&[1; 32])), ROOM, &mut engine(), Tick(1_000))
            .unwrap();
    assert_eq!(copy.taken(), [], "a file that is not believed says nothing");
}
