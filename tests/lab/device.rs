//! A whole device on a wire of this process, for a guest and a VMM played by hand.
//!
//! Knows how a device is put together. Never knows what a test does to it.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::new_without_default,
    reason = "a panic here is the test's report"
)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use etherparse::PacketBuilder;
use fw_control::Reply;
use fw_engine::{Config, Engine, PreparedRules, VnetHeader};
use fw_model::{HandoverId, Reason, Stats};
use vhost_fw::crash_copy::CrashCopy;
use vhost_fw::decision::{Decision, Observer};
use vhost_fw::device::{Device, DeviceOptions};
use vhost_fw::handover::{Handover, HandoverOptions};
use vhost_fw::serve::{Endpoint, ServeError};
use vhost_fw::uplink::{Far, Uplink, pair};
use vhost_fw::worker::{Command, WorkerHandle, boot_time};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::guest::{Guest, Layout, PATIENCE, Vmm};

/// The guest's MAC address.
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// The peer's.
pub const PEER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// The guest's address.
pub const GUEST: [u8; 4] = [10, 0, 0, 10];
/// The peer's.
pub const PEER: [u8; 4] = [10, 0, 0, 20];

/// The rules of a [`Bench`].
pub const RULES: &str = r#"
nic: {id: web-1, mac: "52:54:00:00:00:01", addresses: [10.0.0.10]}
defaults: {out: drop, in: drop}
rules:
  - {id: dns, direction: out, action: allow, protocol: udp, ports: [53]}
  - {id: echo, direction: in, action: allow, protocol: udp, ports: [7]}
  - {id: web, direction: out, action: allow, protocol: tcp, ports: [80], log: true}
  - {id: ident, direction: out, action: reject, protocol: udp, ports: [113]}
"#;

/// Rules that allow nothing.
pub const CLOSED: &str = r#"
nic: {id: web-1, mac: "52:54:00:00:00:01", addresses: [10.0.0.10]}
defaults: {out: drop, in: drop}
"#;

/// A header that claims nothing.
pub const PLAIN: [u8; 12] = [0; 12];
/// `NEEDS_CSUM` over UDP behind Ethernet and IPv4.
pub const NEEDS_CSUM: [u8; 12] = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0];

/// An onlooker that remembers all it is shown.
struct Onlooker(Arc<Mutex<Vec<Decision>>>);

impl Observer for Onlooker {
    fn wants(&mut self, _reason: Reason) -> bool {
        true
    }
    fn decided(&mut self, decision: &Decision) {
        self.0.lock().unwrap().push(decision.clone());
    }
    fn lost(&self) -> u64 {
        0
    }
}

/// A running device with its wire.
pub struct Bench {
    /// The other end of the wire, if it is ours.
    pub far: Option<Far>,
    /// Asks the device.
    pub worker: WorkerHandle,
    handover: Option<Arc<Handover>>,
    /// What the onlooker was shown.
    pub shown: Arc<Mutex<Vec<Decision>>>,
    stop: Arc<EventFd>,
    serving: Option<JoinHandle<Result<(), ServeError>>>,
    /// Where it listens.
    pub socket: PathBuf,
    _folder: tempfile::TempDir,
}

/// Rules ready to be put in force after generation `previous`.
#[must_use]
pub fn prepared(rules: &str, previous: u64) -> Arc<PreparedRules> {
    let rules = vhost_fw::rules_file::parse(rules, "rules", previous).unwrap();
    Arc::new(PreparedRules::new(rules).unwrap())
}

/// An engine with [`RULES`] in force and room for so many conns.
#[must_use]
pub fn engine(conns: u32) -> Engine {
    let config = Config { conns, fragments: Config::FRAGMENTS, hash_key: [7; 16], mtu: 1500 };
    let mut engine = Engine::new(config);
    engine.install(prepared(RULES, 0), fw_engine::Tick(0));
    engine
}

impl Bench {
    /// A device on a wire of ours, with [`RULES`].
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("vhost.sock");
        Self::at(Endpoint::Listen(socket.clone()), socket, folder)
    }

    /// As [`Bench::new`], for a VM that moves.
    #[must_use]
    pub fn moving(handover: HandoverOptions) -> Self {
        Self::holding(engine(4096), handover)
    }

    /// As [`Bench::moving`], with an engine of one's own making.
    #[must_use]
    pub fn holding(engine: Engine, handover: HandoverOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("vhost.sock");
        let (near, far) = pair(1500).unwrap();
        let endpoint = Endpoint::Listen(socket.clone());
        let mut bench = Self::made(engine, Box::new(near), endpoint, socket, folder, Some(handover), None);
        bench.far = Some(far);
        bench
    }

    /// As [`Bench::moving`], with a crash copy in `state`.
    #[must_use]
    pub fn keeping(state: &Path, handover: HandoverOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("vhost.sock");
        let (near, far) = pair(1500).unwrap();
        let mut engine = engine(handover.conns);
        let HandoverOptions { nic, key, conns, .. } = &handover;
        let (copy, _) = CrashCopy::open(state, nic, Some(key), *conns, &mut engine, boot_time()).unwrap();
        let endpoint = Endpoint::Listen(socket.clone());
        let (uplink, copy) = (Box::new(near), Some(Box::new(copy)));
        let mut bench = Self::made(engine, uplink, endpoint, socket, folder, Some(handover), copy);
        bench.far = Some(far);
        bench
    }

    /// As [`Bench::new`], reached otherwise.
    #[must_use]
    pub fn at(endpoint: Endpoint, socket: PathBuf, folder: tempfile::TempDir) -> Self {
        let (near, far) = pair(1500).unwrap();
        let mut bench = Self::over(Box::new(near), endpoint, socket, folder);
        bench.far = Some(far);
        bench
    }

    /// A device with another uplink.
    #[must_use]
    pub fn over(
        uplink: Box<dyn Uplink>,
        endpoint: Endpoint,
        socket: PathBuf,
        folder: tempfile::TempDir,
    ) -> Self {
        Self::made(engine(4096), uplink, endpoint, socket, folder, None, None)
    }

    fn made(
        engine: Engine,
        uplink: Box<dyn Uplink>,
        endpoint: Endpoint,
        socket: PathBuf,
        folder: tempfile::TempDir,
        handover: Option<HandoverOptions>,
        crash_copy: Option<Box<CrashCopy>>,
    ) -> Self {
        let shown = Arc::new(Mutex::new(Vec::new()));
        let device = Device::start(DeviceOptions {
            engine,
            uplink,
            mac: Some(fw_model::MacAddr(GUEST_MAC)),
            mtu: 1500,
            queue_size: 256,
            poll: false,
            observer: Box::new(Onlooker(Arc::clone(&shown))),
            clock: Box::new(boot_time),
            handover,
            crash_copy,
            thread_setup: Box::new(|| Ok(())),
        })
        .unwrap();
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let (worker, handover) = (device.worker(), device.handover());
        let serving = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || device.serve(&endpoint, &stop))
        };
        let start = Instant::now();
        while !socket.exists() && start.elapsed() < PATIENCE {
            thread::yield_now();
        }
        Self { far: None, worker, handover, shown, stop, serving: Some(serving), socket, _folder: folder }
    }

    /// Its end of a handover on a control connection that asked for this.
    pub fn hand_over(&self, request: fw_control::Request, stream: std::os::unix::net::UnixStream) {
        self.handover.as_ref().unwrap().serve(request, stream).unwrap();
    }

    /// Nothing is announced or expected any more.
    pub fn cancel(&self) {
        self.handover.as_ref().unwrap().cancel().unwrap();
    }

    /// The next table that leaves belongs to this handover.
    pub fn announce(&self, id: HandoverId) {
        self.handover.as_ref().unwrap().announce(id);
    }

    /// The next table that arrives must be this handover's.
    pub fn expect(&self, id: HandoverId) {
        self.handover.as_ref().unwrap().expect(id);
    }

    /// A guest that booted on it.
    #[must_use]
    pub fn boot(&self) -> Guest {
        Guest::boot(&self.socket, Vmm::CloudHypervisor, &[]).unwrap()
    }

    /// The other end of the wire.
    #[must_use]
    pub fn far(&self) -> &Far {
        self.far.as_ref().unwrap()
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let Reply::Stats(stats) = self.worker.ask(Command::Stats).unwrap() else { panic!("no stats") };
        *stats
    }

    /// Frames dropped for a reason.
    #[must_use]
    pub fn drops(&self, reason: Reason) -> u64 {
        self.stats().drops.get(&reason).copied().unwrap_or(0)
    }

    /// The next frame on the wire.
    pub fn arrives(&self) -> (VnetHeader, Vec<u8>) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(frame) = self.far().recv().unwrap() {
                return frame;
            }
            thread::yield_now();
        }
        panic!("no frame came out in time: {:?}", self.stats())
    }

    /// Nothing is on the wire.
    pub fn nothing_arrives(&self) {
        assert!(self.far().recv().unwrap().is_none(), "a frame came out");
    }

    /// A good frame must pass either way.
    pub fn all_is_well(&self, guest: &mut Guest) {
        let frame = dns(b"still here");
        assert_eq!(guest.send(PLAIN, &frame, Layout::Linear).unwrap(), 0);
        assert_eq!(self.arrives().1, frame);
        let frame = echo(b"and back");
        guest.post_buffers(1, 2048).unwrap();
        self.far().send(VnetHeader::NONE, &frame).unwrap();
        assert_eq!(guest.receive().unwrap().1, frame);
    }

    /// Ends the device; what serving said.
    pub fn end(&mut self) -> Result<(), ServeError> {
        self.stop.write(1).unwrap();
        self.ended()
    }

    /// What serving said when it ended by itself.
    pub fn ended(&mut self) -> Result<(), ServeError> {
        self.serving.take().unwrap().join().unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.serving.is_some() && !thread::panicking() {
            self.end().unwrap();
        }
    }
}

/// A datagram from the guest (`out`) or to it.
#[must_use]
pub fn udp(out: bool, port: u16, payload: &[u8]) -> Vec<u8> {
    let (from_mac, to_mac, from, to) =
        if out { (GUEST_MAC, PEER_MAC, GUEST, PEER) } else { (PEER_MAC, GUEST_MAC, PEER, GUEST) };
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(from_mac, to_mac).ipv4(from, to, 64).udp(4000, port);
    builder.write(&mut frame, payload).unwrap();
    frame
}

/// What [`RULES`] let out.
#[must_use]
pub fn dns(payload: &[u8]) -> Vec<u8> {
    udp(true, 53, payload)
}

/// What they let in.
#[must_use]
pub fn echo(payload: &[u8]) -> Vec<u8> {
    udp(false, 7, payload)
}

/// So many bytes to be known again.
#[must_use]
pub fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 253).unwrap()).collect()
}
