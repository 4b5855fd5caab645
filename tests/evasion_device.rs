//! Every frame-level case of the evasion catalogue again, through the real device: from a guest's descriptors or the
//! wire to what leaves on the other side.
//!
//! `evasion.rs` holds the simulation to the catalogue; here the device is held to both. Layouts of descriptors and
//! truthful claims in the virtio-net header change no verdict, except where a wrong checksum was the whole attack:
//! `NEEDS_CSUM` then repairs it, and from the host's kernel `DATA_VALID` vouches for it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a panic here is the report, and so is its tally"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use fw_control::Reply;
use fw_engine::{Config, Engine, Tick, VnetHeader, driver_claim};
use fw_model::{ConnFilter, Reason, Stats};
use fw_tests::cases::{self, Case, Expect, Frame, Step};
use fw_tests::claim::{self, DATA_VALID, NEEDS_CSUM, Place};
use fw_tests::guest::{BORDER, FRAMES, Guest, Layout, PATIENCE, Vmm};
use fw_tests::simulator::{Answer, Simulator};
use fw_tests::suite::Size;
use vhost_fw::decision::{Decision, Observer};
use vhost_fw::device::{Device, DeviceOptions};
use vhost_fw::serve::{Endpoint, ServeError};
use vhost_fw::uplink::{Far, pair};
use vhost_fw::worker::{Command, WorkerHandle};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const MTU: u16 = 1500;
/// Long enough for every conn, fragment and bucket of the case before to be over.
const BETWEEN_CASES_MS: u64 = 30 * 24 * 3600 * 1000;
/// A frame from the wire that is refused at once: when it is counted, those before it have been judged.
const MARK: [u8; 3] = [0; 3];

/// Where the bytes of a guest's frame stand.
#[derive(Debug, Clone, Copy)]
enum Standing {
    In(Layout),
    /// In one descriptor, this many bytes of it before the border of two memory regions.
    Over(u64),
}

/// What the virtio-net header says where the case leaves it open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saying {
    /// What a driver says that claims nothing it need not.
    Least,
    /// That the checksum is still to be computed, which is true.
    Unwritten,
    /// That the checksum is right, whether it is or not.
    Valid,
}

#[derive(Debug, Clone, Copy)]
struct Way {
    standing: Standing,
    saying: Saying,
    /// Bytes of each of the guest's receive buffers.
    buffer: u32,
}

const fn way(standing: Standing) -> Way {
    Way { standing, saying: Saying::Least, buffer: 2048 }
}

/// The ways a case is tried in: five layouts, split at the seams of headers, and true and false claims.
fn ways() -> Vec<Way> {
    let linear = Standing::In(Layout::Linear);
    let mut ways = vec![
        way(linear),
        way(Standing::In(Layout::Indirect)),
        way(Standing::In(Layout::Crumbs(240))),
        Way { buffer: 300, ..way(Standing::In(Layout::Split(12))) },
        Way { saying: Saying::Unwritten, ..way(linear) },
        Way { saying: Saying::Unwritten, ..way(Standing::In(Layout::Crumbs(64))) },
        Way { saying: Saying::Valid, ..way(linear) },
    ];
    // Inside the header of virtio-net, of Ethernet, of IP, of TCP; and each side of the first 256 bytes.
    let split: Vec<usize> =
        if Size::asked() == Size::Long { (1..300).collect() } else { vec![1, 11, 25, 35, 47, 60, 268] };
    ways.extend(split.into_iter().map(|at| way(Standing::In(Layout::Split(at)))));
    ways.extend([20, 40, 62].map(|before| way(Standing::Over(before))));
    ways
}

#[test]
fn every_case_meets_the_same_fate_through_the_device() {
    let mut by_policy: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for case in cases::frame_level() {
        by_policy.entry(case.policy.clone()).or_default().push(case);
    }
    let (start, mut tally, mut wrong) = (Instant::now(), Tally::default(), String::new());
    for (policy, cases) in &by_policy {
        let answered: Vec<Vec<Answer>> = simulated(policy, cases);
        for way in ways() {
            let mut site = Site::open(policy, way);
            for (case, answers) in cases.iter().zip(&answered) {
                site.reset();
                tally.cases += 1;
                if let Err(why) = run(&mut site, case, answers, &mut tally) {
                    let _ = writeln!(wrong, "{} [{policy}] {} {way:?}: {why}", case.id, case.name);
                }
            }
            site.close();
        }
    }
    // Nothing is left to the simulation: the worker's clock is ours, so waiting costs no time.
    println!("{tally:?} in {:?}", start.elapsed());
    assert!(tally.cases > 150 * ways().len() && tally.claimed > 100 && tally.repaired > 1, "{tally:?}");
    assert!(wrong.is_empty(), "of {tally:?}:\n{wrong}");
}

/// What was tried.
#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    frames: usize,
    /// Frames that bore a claim of ours.
    claimed: usize,
    /// Cases that ended early because a claim repaired the attack.
    repaired: usize,
    waits: usize,
}

/// What the simulation says to each frame of each case.
fn simulated(policy: &str, cases: &[Case]) -> Vec<Vec<Answer>> {
    let mut simulator = Simulator::new(&cases::rules_of(policy));
    let mut answers = |case: &Case| {
        simulator.reset();
        let mut answers = Vec::new();
        for step in &case.steps {
            match step {
                Step::Wait(seconds) => simulator.wait(*seconds),
                Step::Frame(frame) => {
                    answers.push(simulator.judge(&frame.from, &frame.bytes, frame.vnet.as_deref()));
                }
            }
        }
        answers
    };
    cases.iter().map(&mut answers).collect()
}

fn run(site: &mut Site, case: &Case, answers: &[Answer], tally: &mut Tally) -> Result<(), String> {
    let mut answers = answers.iter();
    for (place, step) in case.steps.iter().enumerate() {
        match step {
            Step::Wait(seconds) => {
                tally.waits += 1;
                site.wait(*seconds);
            }
            Step::Frame(frame) => {
                let answer = answers.next().ok_or("the simulation said too little")?;
                let told = Told::new(frame, site.way.saying);
                tally.frames += 1;
                tally.claimed += usize::from(told.is_claim);
                let fate = site.judge(&frame.from, &told)?;
                if told.repairs(answer) {
                    tally.repaired += 1;
                    return is_repaired(&told, &fate).map_err(|why| format!("step {place}: {why}"));
                }
                is_right(frame, &told, answer, &fate).map_err(|why| format!("step {place}: {why}"))?;
            }
        }
    }
    Ok(())
}

/// A frame as it is put into the device.
struct Told {
    vnet: VnetHeader,
    bytes: Vec<u8>,
    from_guest: bool,
    is_claim: bool,
}

impl Told {
    fn new(frame: &Frame, saying: Saying) -> Self {
        let given: Option<[u8; VnetHeader::LEN]> =
            frame.vnet.as_deref().map(|header| header.try_into().unwrap());
        let least = given.map_or_else(|| driver_claim(&frame.bytes, MTU), VnetHeader::from_bytes);
        let mut told = Self {
            vnet: least,
            bytes: frame.bytes.clone(),
            from_guest: frame.from == "guest",
            is_claim: false,
        };
        let place = Place::of(&frame.bytes).filter(|_| given.is_none() && least == VnetHeader::NONE);
        match (saying, place) {
            (Saying::Least, _) | (_, None) => {}
            (Saying::Unwritten, Some(place)) => {
                told.vnet = place.leave_unwritten(&mut told.bytes);
                told.is_claim = true;
            }
            (Saying::Valid, Some(_)) => {
                told.vnet = VnetHeader { flags: DATA_VALID, ..VnetHeader::NONE };
                told.is_claim = true;
            }
        }
        told
    }

    /// Whether what it says about the checksum is believed, and was all that spoke against the frame. A checksum that
    /// is missing where IPv6 demands it is not right because somebody says so.
    fn repairs(&self, answer: &Answer) -> bool {
        let is_there = Place::of(&self.bytes)
            .is_some_and(|place| self.bytes.get(place.field()..place.field() + 2) != Some([0, 0].as_slice()));
        let believed = self.vnet.flags == NEEDS_CSUM || !self.from_guest && is_there;
        self.is_claim && believed && answer.reason == Reason::Checksum.name()
    }
}

/// What became of a frame.
#[derive(Debug)]
struct Fate {
    verdict: &'static str,
    drops: BTreeMap<Reason, u64>,
    /// On the other side.
    left: Vec<(VnetHeader, Vec<u8>)>,
    /// Back to the sender.
    replied: Vec<(VnetHeader, Vec<u8>)>,
}

fn is_right(frame: &Frame, told: &Told, answer: &Answer, fate: &Fate) -> Result<(), String> {
    let said = if answer.verdict == "reject" { "drop" } else { &answer.verdict };
    if fate.verdict != said {
        return Err(format!("{} ({:?}) instead of {said} ({})", fate.verdict, fate.drops, answer.reason));
    }
    if said == "hold" && answer.reason != Reason::FragmentHeld.name() {
        return Err(format!("held for {}", answer.reason));
    }
    let counted = fate.drops.keys().any(|reason| reason.name() == answer.reason);
    if said == "drop" && !counted || said != "drop" && !fate.drops.is_empty() {
        return Err(format!("{} was counted as {:?}", answer.reason, fate.drops));
    }
    let whole = |(vnet, bytes): &(VnetHeader, Vec<u8>)| claim::completed(*vnet, bytes);
    let (left, replied): (Vec<_>, Vec<_>) =
        (fate.left.iter().map(whole).collect(), fate.replied.iter().map(whole).collect());
    let simulated = |frames: &[String], vnets: &[String]| -> Vec<Vec<u8>> {
        let headers = vnets.iter().map(|vnet| header(&cases::bytes(vnet)));
        let frames = frames.iter().map(|frame| cases::bytes(frame));
        headers.chain(std::iter::repeat(VnetHeader::NONE)).zip(frames).map(|(v, f)| whole(&(v, f))).collect()
    };
    let same = |ours: &[Vec<u8>], theirs: &[Vec<u8>]| {
        let right = |frames: &[Vec<u8>]| -> Vec<_> {
            frames.iter().map(|frame| claim::with_right_checksum(frame)).collect()
        };
        // With the checksum left to the device a frame without one may leave with one.
        ours == theirs || told.vnet.flags == NEEDS_CSUM && right(ours) == right(theirs)
    };
    if !same(&left, &simulated(&answer.emitted, &answer.emitted_vnet)) {
        return Err(format!("other bytes left: {left:02x?}"));
    }
    if !same(&replied, &simulated(&answer.replied, &[])) {
        return Err(format!("other bytes were replied: {replied:02x?}"));
    }
    if told.from_guest && fate.left.iter().any(|(vnet, _)| vnet.flags & !NEEDS_CSUM != 0) {
        return Err(format!("a claim of the guest's left with it: {:?}", fate.left));
    }
    is_expected(frame, told, fate, &left)
}

/// Whether it is what the catalogue wants.
fn is_expected(frame: &Frame, told: &Told, fate: &Fate, left: &[Vec<u8>]) -> Result<(), String> {
    let unwritten = told.is_claim && told.vnet.flags == NEEDS_CSUM;
    let expected = |expect: &Expect| {
        let expect = if unwritten && *expect == Expect::Pass { Expect::PassNormalised } else { *expect };
        expect.is_met(frame, fate.verdict, left)
    };
    if frame.expect.iter().any(expected) {
        Ok(())
    } else {
        Err(format!("the catalogue wants {:?}, got {}", frame.expect, fate.verdict))
    }
}

/// A frame whose checksum was the attack either meets the rules, or leaves as a good one.
fn is_repaired(told: &Told, fate: &Fate) -> Result<(), String> {
    for (vnet, frame) in &fate.left {
        let whole = claim::completed(*vnet, frame);
        let vouched = told.vnet.flags == DATA_VALID && whole == told.bytes;
        if whole != claim::with_right_checksum(&told.bytes) && !vouched {
            return Err(format!("left as {whole:02x?}"));
        }
    }
    if fate.drops.contains_key(&Reason::Checksum) {
        return Err("a checksum that is vouched for was verified".to_owned());
    }
    Ok(())
}

fn header(bytes: &[u8]) -> VnetHeader {
    // How many buffers a frame fills says nothing about the frame.
    VnetHeader { num_buffers: 0, ..VnetHeader::from_bytes(bytes.try_into().unwrap()) }
}

struct Blind;

impl Observer for Blind {
    fn wants(&mut self, _reason: Reason) -> bool {
        false
    }
    fn decided(&mut self, _decision: &Decision) {}
    fn lost(&self) -> u64 {
        0
    }
}

/// A device with its guest, its wire and its time.
struct Site {
    way: Way,
    guest: Guest,
    far: Far,
    clock: Arc<AtomicU64>,
    worker: WorkerHandle,
    stop: Arc<EventFd>,
    serving: JoinHandle<Result<(), ServeError>>,
    _folder: tempfile::TempDir,
}

impl Site {
    fn open(policy: &str, way: Way) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket: PathBuf = folder.path().join("vhost.sock");
        let (near, far) = pair(MTU).unwrap();
        let config = Config { conns: 4096, fragments: Config::FRAGMENTS, hash_key: [7; 16], mtu: MTU };
        let mut engine = Engine::new(config);
        let rules = vhost_fw::rules_file::load_prepared(&cases::rules_of(policy), 0).unwrap();
        engine.install(rules, Tick(0));
        let clock = Arc::new(AtomicU64::new(0));
        let time = Arc::clone(&clock);
        let device = Device::start(DeviceOptions {
            engine,
            uplink: Box::new(near),
            mac: Some(fw_model::MacAddr(GUEST_MAC)),
            mtu: MTU,
            queue_size: 256,
            poll: false,
            observer: Box::new(Blind),
            clock: Box::new(move || Tick(time.load(Ordering::SeqCst))),
            handover: None,
            crash_copy: None,
            thread_setup: Box::new(|| Ok(())),
        })
        .unwrap();
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let worker = device.worker();
        let serving = {
            let (stop, endpoint) = (Arc::clone(&stop), Endpoint::Listen(socket.clone()));
            thread::spawn(move || device.serve(&endpoint, &stop))
        };
        let start = Instant::now();
        while !socket.exists() && start.elapsed() < PATIENCE {
            thread::yield_now();
        }
        let mut guest = Guest::boot(&socket, Vmm::CloudHypervisor, &[]).unwrap();
        guest.post_buffers(250, way.buffer).unwrap();
        Self { way, guest, far, clock, worker, stop, serving, _folder: folder }
    }

    fn stats(&self) -> Stats {
        let Reply::Stats(stats) = self.worker.ask(Command::Stats).unwrap() else { panic!("no stats") };
        *stats
    }

    /// Nothing of the case before remains: no conn, and by now no fragment, expectation or spent budget.
    fn reset(&mut self) {
        self.worker.ask(Command::Kill(ConnFilter::default())).unwrap();
        self.clock.fetch_add(BETWEEN_CASES_MS, Ordering::SeqCst);
        self.settle();
        assert_eq!(self.stats().conns, 0);
    }

    fn wait(&mut self, seconds: u64) {
        self.clock.fetch_add(1000 * seconds, Ordering::SeqCst);
        self.settle();
    }

    /// Lets the device do what is due. What it sends because of time alone belongs to no frame.
    fn settle(&mut self) {
        self.mark(&self.stats());
        self.departed();
        self.delivered();
    }

    /// Returns when everything that was put into the wire has been judged.
    fn mark(&self, before: &Stats) {
        let runts = |stats: &Stats| stats.drops.get(&Reason::Runt).copied().unwrap_or(0);
        let wanted = runts(before) + 1;
        self.far.send(VnetHeader::NONE, &MARK).unwrap();
        let start = Instant::now();
        while runts(&self.stats()) < wanted {
            assert!(start.elapsed() < PATIENCE, "the device reads no more frames: {:?}", self.stats());
            thread::yield_now();
        }
    }

    fn judge(&mut self, from: &str, told: &Told) -> Result<Fate, String> {
        let before = self.stats();
        let (left, replied) = if told.from_guest {
            self.send(told)?;
            // The worker answers between two rounds: by then everything that follows from the frame has left.
            let _ = self.stats();
            (self.departed(), self.delivered())
        } else {
            assert_eq!(from, "net");
            self.far.send(told.vnet, &told.bytes).map_err(|error| error.to_string())?;
            let mut marked = before.clone();
            if told.bytes.len() < 14 {
                *marked.drops.entry(Reason::Runt).or_default() += 1;
            }
            self.mark(&marked);
            (self.delivered(), self.departed())
        };
        let after = self.stats();
        self.clock.fetch_add(1, Ordering::SeqCst);
        let mut drops: BTreeMap<Reason, u64> = after
            .drops
            .iter()
            .map(|(reason, count)| (*reason, count - before.drops.get(reason).copied().unwrap_or(0)))
            .collect();
        if !told.from_guest {
            *drops.entry(Reason::Runt).or_default() -= 1;
        }
        // Time's doing, not this frame's.
        drops.remove(&Reason::FragmentTimeout);
        drops.retain(|_, count| *count > 0);
        let passed = if told.from_guest {
            after.frames.out - before.frames.out
        } else {
            after.frames.in_ - before.frames.in_
        };
        let verdict = match (passed, drops.is_empty()) {
            (0, true) => "hold",
            (0, false) => "drop",
            _ => "pass",
        };
        Ok(Fate { verdict, drops, left, replied })
    }

    fn send(&mut self, told: &Told) -> Result<(), String> {
        let header = told.vnet.to_bytes();
        let length = header.len() + told.bytes.len();
        let sent = match self.way.standing {
            // A buffer of no bytes is another attack (VIO-035 and its kin in device.rs).
            Standing::In(Layout::Split(at)) if at >= length => {
                self.guest.send(header, &told.bytes, Layout::Linear)
            }
            Standing::In(Layout::Indirect) if told.bytes.is_empty() => {
                self.guest.send(header, &told.bytes, Layout::Linear)
            }
            Standing::In(layout) => self.guest.send_at(FRAMES, header, &told.bytes, layout),
            Standing::Over(before) => {
                self.guest.send_at(BORDER - before, header, &told.bytes, Layout::Linear)
            }
        };
        match sent {
            Ok(0) => Ok(()),
            Ok(length) => Err(format!("{length} bytes were written into a frame that was sent")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// What came out on the wire.
    fn departed(&self) -> Vec<(VnetHeader, Vec<u8>)> {
        std::iter::from_fn(|| self.far.recv().unwrap()).collect()
    }

    /// What came to the guest.
    fn delivered(&mut self) -> Vec<(VnetHeader, Vec<u8>)> {
        let frames = self.guest.received(self.way.buffer).unwrap();
        frames.into_iter().map(|(vnet, frame)| (header(&vnet), frame)).collect()
    }

    fn close(self) {
        self.stop.write(1).unwrap();
        self.serving.join().unwrap().unwrap();
    }
}
