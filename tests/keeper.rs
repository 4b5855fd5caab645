//! A keeper and its worker as the programs they are: the worker dies, and the VMM sees nothing of it.
//!
//! The guest and its VMM are played by hand, the wire is a socket of records, and no privilege is needed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic here is the report")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use fw_tests::device::{CLOSED, PLAIN, RULES, dns, echo, udp};
use fw_tests::far_end::FarEnd;
use fw_tests::firewall::{Firewall, Uplink};
use fw_tests::guest::{Descriptor, FRAMES, Guest, Layout, PATIENCE, RX, TX, Vmm};
use fw_tests::places;
use fw_tests::wire::{self, Segment};
use rustix::process::{Pid, Signal, kill_process};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vm_memory::{Bytes, GuestAddress};

struct Site {
    firewall: Firewall,
    wire: FarEnd,
    _folder: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        Self::with(RULES, false)
    }

    fn with(rules: &str, copies: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // The NIC's own user passes through.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let wire = folder.path().join("wire.sock");
        let uplink = Uplink::Unix(wire.clone());
        let state = folder.path().join("state").display().to_string();
        let words = ["--keeper", "--state-dir", &state];
        let words = if copies { &words[..] } else { &words[..1] };
        let firewall = Firewall::start_with("web-1", rules, uplink, words, folder.path());
        let firewall = firewall.unwrap_or_else(|error| panic!("{error:?}"));
        Self { firewall, wire: FarEnd::of(wire), _folder: folder }
    }

    fn boot(&self, vmm: Vmm) -> Guest {
        Guest::boot(&self.firewall.socket(), vmm, &[])
            .unwrap_or_else(|error| panic!("{error}; the firewall says:\n{}", self.firewall.log_tail()))
    }

    fn worker(&self) -> u32 {
        let keeper = self.firewall.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        let mut children = children.split_whitespace();
        let worker = children.next().unwrap_or_else(|| panic!("no worker")).parse().unwrap();
        assert_eq!(children.next(), None, "one worker at a time");
        worker
    }

    /// Kills the worker and waits until another one serves.
    fn kill_worker(&mut self) -> Duration {
        let (before, begin) = (self.worker(), Instant::now());
        signal(before, Signal::KILL);
        self.wire.let_go();
        self.wait(|site| site.firewall.stats().is_ok() && site.worker() != before);
        begin.elapsed()
    }

    fn wait(&self, until: impl Fn(&Self) -> bool) {
        let end = Instant::now() + 4 * PATIENCE;
        while !until(self) {
            assert!(Instant::now() < end, "it takes too long: {}", self.firewall.log_tail());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What is allowed passes both ways, and what is denied does not.
    fn all_is_well(&mut self, guest: &mut Guest) {
        self.wire.connect();
        // The wire is looked at while the guest has room; until its peer is taken, frames find none there.
        guest.post_buffers(1, 2048).unwrap();
        let frame = dns(b"still here");
        let end = Instant::now() + 4 * PATIENCE;
        loop {
            guest.send(PLAIN, &frame, Layout::Linear).unwrap();
            if let Some(seen) = self.wire.take(Duration::from_millis(200)) {
                assert_eq!(seen, frame, "what is denied never passes");
                break;
            }
            assert!(
                Instant::now() < end,
                "nothing passes any more: {:?}\n{}",
                self.firewall.drops(),
                self.firewall.log_tail()
            );
        }
        guest.send(PLAIN, &udp(true, 54, b"denied"), Layout::Linear).unwrap();
        guest.send(PLAIN, &frame, Layout::Linear).unwrap();
        assert_eq!(self.wire.take(PATIENCE), Some(frame));
        let frame = echo(b"and back");
        self.wire.put(&frame);
        assert_eq!(guest.receive().unwrap().1, frame);
    }

    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.firewall.id())).unwrap().count()
    }
}

fn signal(process: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn is_alive(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn a_vmm_sees_nothing_of_a_worker_that_is_killed_again_and_again() {
    for vmm in [Vmm::CloudHypervisor, Vmm::Qemu] {
        let mut site = Site::new();
        let mut guest = site.boot(vmm);
        site.all_is_well(&mut guest);
        site.kill_worker();
        site.all_is_well(&mut guest);
        let descriptors = site.descriptors();
        for _ in 0..8 {
            site.kill_worker();
            site.all_is_well(&mut guest);
        }
        // While a worker takes over, both connections to the workers are open for a moment.
        site.wait(|site| site.descriptors() <= descriptors);
        // The connection is the first one still, and a VMM may go and come as ever.
        guest.frontend.get_features().unwrap();
        let mut guest = guest.reconnect(&site.firewall.socket()).unwrap();
        site.all_is_well(&mut guest);
    }
}

#[test]
fn a_request_is_answered_once_whatever_became_of_the_worker_that_had_it() {
    type Ask = fn(&mut Guest);
    let requests: [(&str, Ask); 9] = [
        ("GET_FEATURES", |guest| assert_ne!(guest.frontend.get_features().unwrap(), 0)),
        ("SET_FEATURES", |guest| guest.frontend.set_features(guest.features).unwrap()),
        ("GET_PROTOCOL_FEATURES", |guest| {
            assert!(!guest.frontend.get_protocol_features().unwrap().is_empty())
        }),
        ("GET_QUEUE_NUM", |guest| assert_eq!(guest.frontend.get_queue_num().unwrap(), 2)),
        ("GET_CONFIG", |guest| assert_eq!(guest.config().unwrap()[..6], [0x52, 0x54, 0, 0, 0, 1])),
        ("SET_MEM_TABLE", |guest| guest.set_memory_again().unwrap()),
        ("SET_VRING_NUM", |guest| guest.frontend.set_vring_num(TX, 256).unwrap()),
        ("SET_VRING_ENABLE off", |guest| guest.frontend.set_vring_enable(RX, false).unwrap()),
        ("SET_VRING_ENABLE on", |guest| guest.frontend.set_vring_enable(RX, true).unwrap()),
    ];
    let mut site = Site::new();
    let mut guest = site.boot(Vmm::CloudHypervisor);
    for (name, ask) in requests {
        let worker = site.worker();
        // It can take the request no more, and dies with it.
        signal(worker, Signal::STOP);
        thread::scope(|scope| {
            scope.spawn(|| ask(&mut guest));
            thread::sleep(Duration::from_millis(30));
            signal(worker, Signal::KILL);
        });
        site.wire.let_go();
        // A request that nobody answers is over before its worker is.
        site.wait(|site| site.firewall.stats().is_ok() && site.worker() != worker);
        if name != "SET_VRING_ENABLE off" {
            site.all_is_well(&mut guest);
        }
    }
}

#[test]
fn acknowledged_rules_outlive_their_worker() {
    let mut site = Site::new();
    let mut guest = site.boot(Vmm::CloudHypervisor);
    site.all_is_well(&mut guest);
    site.firewall.install(&format!("generation: 9\n{CLOSED}")).unwrap();
    guest.post_buffers(1, 2048).unwrap();
    for _ in 0..3 {
        site.kill_worker();
        assert_eq!(site.firewall.stats().unwrap()["generation"], 9);
        site.wire.connect();
        for _ in 0..5 {
            guest.send(PLAIN, &dns(b"no more"), Layout::Linear).unwrap();
            guest.send(PLAIN, &udp(true, 54, b"denied"), Layout::Linear).unwrap();
        }
        assert_eq!(site.wire.take(Duration::from_millis(100)), None);
        assert!(site.firewall.drops().unwrap().values().sum::<u64>() >= 10, "they were judged");
    }
}

/// A guest sends again what is not answered; a worker takes its wire's peer at the next look.
fn passes(site: &mut Site, guest: &mut Guest, segment: &Segment) -> bool {
    let frame = wire::tcp(&places::guest(40_000), &places::peer(80), segment);
    (0..8).any(|_| {
        site.wire.connect();
        guest.send(PLAIN, &frame, Layout::Linear).unwrap();
        site.wire.take(Duration::from_millis(300)).is_some()
    })
}

fn conn_after_kills(copies: bool) -> bool {
    const WEB: &str = "id: web, direction: out, action: allow, protocol: tcp, ports: [80]";
    let mut site = Site::with(&places::rules("drop/drop", &[WEB]), copies);
    let mut guest = site.boot(Vmm::CloudHypervisor);
    guest.post_buffers(16, 2048).unwrap();
    assert!(passes(&mut site, &mut guest, &Segment::syn(1_000)));
    let answer = Segment { syn: true, ..Segment::ack(9_000, 1_001) };
    site.wire.put(&wire::tcp(&places::peer(80), &places::guest(40_000), &answer));
    guest.receive().unwrap();
    assert!(passes(&mut site, &mut guest, &Segment::ack(1_001, 9_001)));
    // Older than windows may be in the copy.
    thread::sleep(Duration::from_millis(250));
    (0..5).all(|_| {
        site.kill_worker();
        passes(&mut site, &mut guest, &Segment { payload: 10, ..Segment::ack(1_001, 9_001) })
    })
}

#[test]
fn a_conn_outlives_its_workers_where_they_leave_copies() {
    assert!(conn_after_kills(true));
    assert!(!conn_after_kills(false), "without a copy it dies");
}

#[test]
fn keeper_and_worker_end_together() {
    let site = Site::new();
    let (keeper, worker) = (site.firewall.id(), site.worker());
    signal(keeper, Signal::TERM);
    site.wait(|_| !is_alive(worker) && !is_alive(keeper));

    let mut site = Site::new();
    let guest = site.boot(Vmm::CloudHypervisor);
    let worker = site.worker();
    site.firewall.kill();
    site.wait(|_| !is_alive(worker));
    site.firewall.revive().unwrap();
    site.wire.let_go();
    let mut guest = guest.reconnect(&site.firewall.socket()).unwrap();
    site.all_is_well(&mut guest);
}

#[test]
fn a_worker_that_hangs_ends_with_its_keeper_and_is_in_nobodys_way() {
    let mut site = Site::new();
    let guest = site.boot(Vmm::CloudHypervisor);
    let worker = site.worker();
    signal(worker, Signal::STOP);
    site.firewall.kill();
    site.wait(|_| !is_alive(worker));
    site.firewall.revive().unwrap();
    let mut guest = guest.reconnect(&site.firewall.socket()).unwrap();
    site.all_is_well(&mut guest);
}

/// A frame of the guest's that nobody waits for.
fn kick(guest: &mut Guest) {
    guest.memory.write_slice(&[&PLAIN[..], &dns(b"anybody there?")].concat(), GuestAddress(FRAMES)).unwrap();
    let length = u32::try_from(PLAIN.len() + dns(b"anybody there?").len()).unwrap();
    guest.describe(9, Descriptor { address: FRAMES, length, flags: 0, next: 0 }).unwrap();
    guest.post(TX, 9).unwrap();
    guest.kick(TX).unwrap();
}

fn wakes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn a_worker_that_hangs_while_the_guest_waits_is_replaced() {
    let mut site = Site::new();
    let mut guest = site.boot(Vmm::CloudHypervisor);
    site.all_is_well(&mut guest);
    for _ in 0..2 {
        let worker = site.worker();
        signal(worker, Signal::STOP);
        let begin = Instant::now();
        kick(&mut guest);
        site.wire.let_go();
        site.wait(|site| !is_alive(worker) && site.firewall.stats().is_ok());
        let took = begin.elapsed();
        assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&took), "{took:?}");
        guest.wait_used(TX, 1).unwrap();
        site.all_is_well(&mut guest);
    }
    // And while its VMM does.
    let worker = site.worker();
    signal(worker, Signal::STOP);
    // Its threads stop one after the other.
    thread::sleep(Duration::from_millis(100));
    guest.frontend.get_features().unwrap();
    assert_ne!(site.worker(), worker);
}

#[test]
fn nobody_is_woken_and_nobody_is_killed_while_nobody_waits() {
    let mut site = Site::new();
    let mut guest = site.boot(Vmm::CloudHypervisor);
    site.all_is_well(&mut guest);
    let (keeper, worker) = (site.firewall.id(), site.worker());
    // What was said and kicked just now is asked after once.
    thread::sleep(Duration::from_secs(3));
    let before = (wakes(keeper), wakes(worker));
    thread::sleep(Duration::from_secs(4));
    assert_eq!((wakes(keeper), wakes(worker)), before, "they wake although nothing happens");

    // Frozen, it serves nobody and is there.
    site.firewall.ctl(&["freeze"]).unwrap();
    for _ in 0..8 {
        kick(&mut guest);
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(site.worker(), worker, "a frozen worker was taken for one that hangs");
    site.firewall.ctl(&["thaw"]).unwrap();
    guest.wait_used(TX, 8).unwrap();

    // Stopped, it is in nobody's way until somebody comes.
    thread::sleep(Duration::from_secs(3));
    signal(worker, Signal::STOP);
    thread::sleep(Duration::from_secs(8));
    assert!(is_alive(worker) && site.worker() == worker, "nobody waited for it");
    kick(&mut guest);
    site.wait(|_| !is_alive(worker));
}
