//! A new version takes over under a VMM that does not notice, and goes back again; and what is undone when it cannot.
//!
//! Programs as they are, a guest and a VMM played by hand, a wire that is a socket of records.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic here is the report"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use fw_tests::device::PLAIN;
use fw_tests::far_end::FarEnd;
use fw_tests::firewall::{Firewall, Uplink};
use fw_tests::guest::{Guest, Layout, PATIENCE, Vmm};
use fw_tests::process::run;
use fw_tests::wire::{self, Segment};
use fw_tests::{places, program};
use rustix::process::{Pid, Signal, kill_process};
use vhost::VhostBackend;

const WEB: &str = "id: web, direction: out, action: allow, protocol: tcp, ports: [80]";

struct Site {
    firewall: Firewall,
    program: PathBuf,
    wire: FarEnd,
    folder: tempfile::TempDir,
}

impl Site {
    fn new(words: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The NIC's own user passes through.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let state = folder.path().join("state").display().to_string();
        let words: Vec<&str> =
            words.iter().map(|word| if *word == "STATE" { &state } else { *word }).collect();
        fs::create_dir(folder.path().join("bin")).unwrap();
        let program = folder.path().join("bin/vhost-fw");
        copy(&program::vhost_fw().display().to_string(), &program);
        let wire = folder.path().join("wire.sock");
        let (rules, uplink) = (places::rules("drop/drop", &[WEB]), Uplink::Unix(wire.clone()));
        let firewall = Firewall::start_as(&program, None, "web-1", &rules, uplink, &words, folder.path());
        let firewall = firewall.unwrap_or_else(|error| panic!("{error:?}"));
        Self { firewall, program, wire: FarEnd::of(wire), folder }
    }

    /// Another file stands where the program was, as a package puts it there.
    fn replace(&self, by: &str) -> u64 {
        let new = self.folder.path().join("bin/new");
        copy(by, &new);
        fs::rename(&new, &self.program).unwrap();
        fs::metadata(&self.program).unwrap().ino()
    }

    fn replace_by_another_build(&self) -> u64 {
        self.replace(&program::vhost_fw().display().to_string())
    }

    fn upgrade(&mut self) -> Result<(), String> {
        let upgraded = self.firewall.ctl(&["upgrade"]);
        // A peer of the wire was the old worker's.
        self.wire.let_go();
        upgraded.map(drop).map_err(|error| format!("{error:#}"))
    }

    fn worker(&self) -> u32 {
        let keeper = self.firewall.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        let workers: Vec<&str> = children.split_whitespace().collect();
        assert_eq!(workers.len(), 1, "one worker at a time: {children}\n{}", self.firewall.log_tail());
        workers[0].parse().unwrap()
    }

    /// The file that the worker runs.
    fn runs(&self) -> u64 {
        fs::metadata(format!("/proc/{}/exe", self.worker())).unwrap().ino()
    }

    /// Whether a segment of the guest's conn gets out; a guest sends again what is not answered.
    fn passes(&mut self, guest: &mut Guest, port: u16, segment: &Segment) -> bool {
        let frame = wire::tcp(&places::guest(port), &places::peer(80), segment);
        (0..6).any(|_| {
            self.wire.connect();
            guest.send(PLAIN, &frame, Layout::Linear).unwrap();
            self.wire.take(Duration::from_millis(200)).is_some()
        })
    }

    /// A guest with a conn from each of these ports.
    fn with_conns(&mut self, ports: std::ops::Range<u16>) -> Guest {
        let mut guest = Guest::boot(&self.firewall.socket(), Vmm::CloudHypervisor, &[]).unwrap();
        guest.post_buffers(64, 2048).unwrap();
        for port in ports {
            assert!(self.passes(&mut guest, port, &Segment::syn(1_000)));
            let answer = Segment { syn: true, ..Segment::ack(9_000, 1_001) };
            self.wire.put(&wire::tcp(&places::peer(80), &places::guest(port), &answer));
            guest.receive().unwrap();
            assert!(self.passes(&mut guest, port, &Segment::ack(1_001, 9_001)));
        }
        guest
    }

    /// How many of them live: a segment in the middle of a conn passes by that alone.
    fn living(&mut self, guest: &mut Guest, ports: std::ops::Range<u16>) -> usize {
        let data = Segment { payload: 10, ..Segment::ack(1_001, 9_001) };
        ports.filter(|port| self.passes(guest, *port, &data)).count()
    }
}

/// By another process: a descriptor of ours that writes it would live on for a moment in whatever a neighbouring test
/// starts, and a program that is written to cannot be started.
fn copy(from: &str, to: &Path) {
    run("cp", &[from, &to.display().to_string()]).unwrap();
}

const PORTS: std::ops::Range<u16> = 40_000..40_020;

#[test]
fn a_new_version_takes_over_and_the_old_one_again() {
    let mut site = Site::new(&["--keeper"]);
    let mut guest = site.with_conns(PORTS);
    for _ in 0..3 {
        let (worker, file) = (site.worker(), site.replace_by_another_build());
        site.upgrade().unwrap();
        assert_ne!(site.worker(), worker);
        assert_eq!(site.runs(), file, "it runs what stands there now");
        // The VMM's connection is the first one still.
        guest.frontend.get_features().unwrap();
        assert_eq!(site.living(&mut guest, PORTS), PORTS.len());
    }
    // What no conn and no rule allows is refused as ever.
    assert!(!site.passes(&mut guest, 50_000, &Segment { payload: 10, ..Segment::ack(1_001, 9_001) }));
}

#[test]
fn what_does_not_come_up_changes_nothing() {
    let mut site = Site::new(&["--keeper"]);
    let mut guest = site.with_conns(PORTS);
    let worker = site.worker();
    for (program, cause) in [("/bin/false", "it ended with code 1"), ("/etc/passwd", "ermission denied")] {
        site.replace(program);
        let why = site.upgrade().unwrap_err();
        assert!(why.contains(cause) && why.contains("serves on"), "{why}");
        assert_eq!(site.worker(), worker);
        assert_eq!(site.living(&mut guest, PORTS), PORTS.len());
    }
    fs::remove_file(&site.program).unwrap();
    let why = site.upgrade().unwrap_err();
    assert!(why.contains("No such file") && why.contains("serves on"), "{why}");
    assert_eq!(site.living(&mut guest, PORTS), PORTS.len());
    // And what comes up takes over.
    site.replace_by_another_build();
    site.upgrade().unwrap();
    assert_ne!(site.worker(), worker);
    assert_eq!(site.living(&mut guest, PORTS), PORTS.len());
}

#[test]
fn rules_and_a_freeze_go_over() {
    let mut site = Site::new(&["--keeper"]);
    let mut guest = site.with_conns(PORTS);
    let rules = format!("generation: 9\n{}", places::rules("drop/drop", &[WEB]));
    site.firewall.install(&rules).unwrap();
    site.firewall.ctl(&["freeze"]).unwrap();
    site.upgrade().unwrap();
    let stats = site.firewall.stats().unwrap();
    assert_eq!((&stats["generation"], &stats["frozen"]), (&9.into(), &true.into()));
    site.firewall.ctl(&["thaw"]).unwrap();
    assert_eq!(site.living(&mut guest, PORTS), PORTS.len());
}

#[test]
fn the_crash_copy_is_the_new_ones_from_then_on() {
    let mut site = Site::new(&["--keeper", "--state-dir", "STATE"]);
    let mut guest = site.with_conns(PORTS);
    site.upgrade().unwrap();
    assert_eq!(site.living(&mut guest, PORTS), PORTS.len());
    // Older than windows may be in the copy.
    thread::sleep(Duration::from_millis(250));
    let worker = site.worker();
    kill_process(Pid::from_raw(i32::try_from(worker).unwrap()).unwrap(), Signal::KILL).unwrap();
    site.wire.let_go();
    let end = Instant::now() + 4 * PATIENCE;
    while site.firewall.stats().is_err() {
        assert!(Instant::now() < end, "{}", site.firewall.log_tail());
    }
    assert_eq!(site.living(&mut guest, PORTS), PORTS.len());
}

#[test]
fn a_nic_whose_vm_is_being_moved_waits() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let mut site = Site::new(&["--keeper", "--state-key", &key.display().to_string()]);
    let mut guest = site.with_conns(PORTS);
    let worker = site.worker();
    let id = "00112233445566778899aabbccddeeff";
    site.firewall.ctl(&["handover", "announce", id]).unwrap();
    let why = site.upgrade().unwrap_err();
    assert!(why.contains("being moved") && why.contains("serves on"), "{why}");
    assert_eq!(site.worker(), worker);
    assert_eq!(site.living(&mut guest, PORTS), PORTS.len());
}

#[test]
fn without_a_keeper_there_is_nothing_to_upgrade() {
    let mut site = Site::new(&[]);
    let why = site.upgrade().unwrap_err();
    assert!(why.contains("--keeper"), "{why}");
}
