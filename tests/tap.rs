//! The device on a real tap: no claim in a guest's virtio-net header moves an inspected byte, and the kernel takes
//! every header we build.
//!
//! A guest played by hand sits behind the real program, in namespaces of its own. Its tap is a port of a bridge; on
//! another port the kernel finishes checksums and segments, as for a wire, and there we look.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use fw_engine::VnetHeader;
use fw_tests::cases::{self, Case, Expect, Step};
use fw_tests::claim::{self, DATA_VALID, NEEDS_CSUM, Place};
use fw_tests::firewall::{Firewall, Uplink};
use fw_tests::guest::{Guest, Layout, PATIENCE, Vmm};
use fw_tests::host::{self, BRIDGE, HOST_V4, HOST_V6, Stay, ip};
use fw_tests::program;
use fw_tests::report::Report;
use fw_tests::suite::Size;
use fw_tests::tap::{HEADER, Tap};
use fw_tests::wire::{self, End, Segment};

const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xfe];
const HOST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xfd];
const NAIVE_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0x77];
/// Bytes of each of the guest's receive buffers.
const BUFFER: u32 = 2048;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
/// What must not be counted while nobody does wrong.
const TROUBLE: [&str; 8] = [
    "bad-gso",
    "bad-vnet-header",
    "checksum",
    "oversize",
    "uplink-full",
    "uplink-refused",
    "rx-buffer-too-small",
    "bad-descriptor",
];

type Outcome = Result<Option<String>>;
type Test = (&'static str, fn(&mut Rig) -> Outcome);

const TESTS: &[Test] = &[
    ("a_claim_forwarded_as_it_came_would_move_inspected_bytes", a_claim_forwarded_would_move_bytes),
    ("no_claim_moves_an_inspected_byte", no_claim_moves_an_inspected_byte),
    ("the_catalogues_claims_meet_their_fate_on_a_tap", the_catalogues_claims_meet_their_fate),
    ("super_segments_become_right_segments_on_the_wire", super_segments_become_right_segments),
    ("the_hosts_kernel_takes_super_segments_and_gives_them", the_hosts_kernel_takes_and_gives),
];

fn main() -> ExitCode {
    let Some(mut report) = Report::asked(TESTS.iter().map(|(name, _)| *name)) else {
        return ExitCode::SUCCESS;
    };
    let entered = if env::var_os(host::INSIDE).is_none() {
        program::build().and_then(|()| host::enter(Stay::Ends))
    } else {
        Ok(())
    };
    match entered {
        Err(why) => TESTS.iter().for_each(|(name, _)| report.ignore(name, &format!("{why:#}"))),
        Ok(()) => match Rig::make() {
            Err(why) => report.note("the_rig_stands", &Err(why)),
            Ok(mut rig) => TESTS.iter().for_each(|(name, test)| report.run(name, || test(&mut rig))),
        },
    }
    report.close()
}

/// A bridge with a firewall's tap, and the tap on which we look.
struct Rig {
    firewall: Firewall,
    peer: Tap,
    folder: tempfile::TempDir,
}

impl Rig {
    fn make() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
        ip("link set lo up")?;
        ip(&format!("link add {BRIDGE} address {} type bridge", mac(HOST_MAC)))?;
        ip(&format!("link set {BRIDGE} addrgenmode none"))?;
        ip(&format!("addr add {HOST_V4}/24 dev {BRIDGE}"))?;
        ip(&format!("-6 addr add {HOST_V6}/64 dev {BRIDGE} nodad"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        for address in ["10.0.0.10", "2001:db8:0:1::10"] {
            ip(&format!("neigh add {address} lladdr {} dev {BRIDGE} nud permanent", mac(GUEST_MAC)))?;
        }
        let peer = port("peer0")?;
        let rules = fs::read_to_string(cases::rules_of("WEB"))?;
        let firewall = Firewall::start_with(
            "guest",
            &rules,
            Uplink::Tap("vm0".to_owned()),
            // One id is mapped here, and it is root: there is none to change to.
            &["--allow-missing-sandbox"],
            folder.path(),
        )?;
        // It answers once its tap is there.
        firewall.stats().with_context(|| firewall.log_tail())?;
        ip(&format!("link set vm0 master {BRIDGE}"))?;
        let mut rig = Self { firewall, peer, folder };
        rig.wait_for_the_bridge()?;
        Ok(rig)
    }

    /// A port forwards a moment after it is up.
    fn wait_for_the_bridge(&mut self) -> Result<()> {
        let mut guest = self.boot()?;
        let frame = wire::tcp(&guest_end(IpAddr::from([10, 0, 0, 10])), &peer_end(true), &Segment::syn(1));
        let start = Instant::now();
        loop {
            send(&mut guest, VnetHeader::NONE, &frame)?;
            if self.next(Duration::from_millis(100))?.is_some() {
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "the bridge forwards nothing: {:?}", self.firewall.drops());
        }
    }

    fn boot(&self) -> Result<Guest> {
        let mut guest = Guest::boot(&self.firewall.socket(), Vmm::CloudHypervisor, &[]).map_err(told)?;
        guest.post_buffers(250, BUFFER).map_err(told)?;
        Ok(guest)
    }

    /// The next frame of the guest's that comes out of the bridge.
    fn next(&mut self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let start = Instant::now();
        loop {
            match self.peer.receive()? {
                Some(frame) if frame.get(6..12) == Some(&GUEST_MAC) => return Ok(Some(frame)),
                Some(_) => {}
                None if start.elapsed() >= patience => return Ok(None),
                None => thread::sleep(Duration::from_micros(200)),
            }
        }
    }

    fn must_come(&mut self) -> Result<Vec<u8>> {
        match self.next(PATIENCE)? {
            Some(frame) => Ok(frame),
            None => bail!("nothing came; drops: {:?}\n{}", self.firewall.drops(), self.firewall.log_tail()),
        }
    }

    /// Closes all conns and lets what that sends pass by.
    fn forget(&mut self, guest: &mut Guest) -> Result<()> {
        self.firewall.ctl(&["conns", "kill", "all"])?;
        thread::sleep(Duration::from_millis(2));
        while self.peer.receive()?.is_some() {}
        guest.received(BUFFER).map_err(told)?;
        Ok(())
    }

    /// Frames refused for their claim, once everything that waits in the guest's tap is judged: a bridge brings it
    /// what it does not know elsewhere.
    fn refused_claims(&mut self) -> Result<u64> {
        let denied = wire::tcp(&peer_end(true), &End { port: 22, ..own(true) }, &Segment::syn(1));
        let count = |rig: &Self, reason: &str| -> Result<u64> {
            Ok(rig.firewall.drops()?.get(reason).copied().unwrap_or(0))
        };
        let before = count(self, "default-drop")?;
        self.peer.send(&denied)?;
        until(|| Ok(count(self, "default-drop")? > before))?;
        count(self, "bad-vnet-header")
    }

    /// What went wrong so far, here and in the kernel.
    fn trouble(&self) -> Result<BTreeMap<String, u64>> {
        let mut trouble = self.firewall.drops()?;
        trouble.retain(|reason, _| TROUBLE.contains(&reason.as_str()));
        trouble.extend(kernel_trouble()?);
        Ok(trouble)
    }
}

/// A tap of ours as a port of the bridge.
fn port(name: &str) -> Result<Tap> {
    let tap = Tap::open(name)?;
    ip(&format!("link set {name} addrgenmode none master {BRIDGE} up"))?;
    Ok(tap)
}

/// Errors and drops of the two taps, both ways.
fn kernel_trouble() -> Result<BTreeMap<String, u64>> {
    let devices = fs::read_to_string("/proc/self/net/dev")?;
    let mut trouble = BTreeMap::new();
    for line in devices.lines() {
        let Some((name, counters)) = line.split_once(':') else { continue };
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if ["vm0", "peer0"].contains(&name.trim()) {
            for (place, what) in [(2, "rx errors"), (3, "rx drops"), (10, "tx errors"), (11, "tx drops")] {
                let count = counters.get(place).context("a device without counters")?;
                trouble.insert(format!("{} {what}", name.trim()), *count);
            }
        }
    }
    ensure!(trouble.len() == 8, "a tap is gone: {devices}");
    Ok(trouble)
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

fn told(error: Box<dyn std::error::Error>) -> anyhow::Error {
    anyhow!("{error}")
}

fn guest_end(ip: IpAddr) -> End {
    End { mac: GUEST_MAC, ip, port: 40_000 }
}

fn own(is_v4: bool) -> End {
    let [v4, v6] = [IpAddr::from([10, 0, 0, 10]), IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x10])];
    guest_end(if is_v4 { v4 } else { v6 })
}

/// Somebody behind a gateway that nobody on the bridge is.
fn peer_end(is_v4: bool) -> End {
    let [v4, v6] = [IpAddr::from([198, 51, 100, 7]), IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7])];
    End { mac: PEER_MAC, ip: if is_v4 { v4 } else { v6 }, port: 443 }
}

fn send(guest: &mut Guest, vnet: VnetHeader, frame: &[u8]) -> Result<()> {
    let written = guest.send(vnet.to_bytes(), frame, Layout::Linear).map_err(told)?;
    ensure!(written == 0, "{written} bytes were written into a frame that was sent");
    Ok(())
}

/// What the device protects from: the same claims, forwarded as they came by a backend that trusts them.
fn a_claim_forwarded_would_move_bytes(rig: &mut Rig) -> Outcome {
    let mut naive = port("naive0")?;
    let from = End { mac: NAIVE_MAC, ..own(true) };
    let frame = wire::tcp(&from, &peer_end(true), &Segment::syn(1));
    let mut moved = Vec::new();
    // Over the port, over the source, where it belongs.
    for (csum_start, csum_offset) in [(34, 2), (26, 0), (34, 16)] {
        let vnet = VnetHeader { flags: NEEDS_CSUM, csum_start, csum_offset, ..VnetHeader::NONE };
        let record = [vnet.to_bytes().get(..HEADER).unwrap_or_default(), &frame].concat();
        let start = Instant::now();
        'tries: while start.elapsed() < PATIENCE {
            if naive.write(&record).is_err() {
                return Ok(Some("this kernel refuses the claims itself".to_owned()));
            }
            while let Some(out) = rig.peer.receive()? {
                if out.get(6..12) == Some(&NAIVE_MAC) {
                    moved.push(differences(&frame, &out));
                    break 'tries;
                }
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    drop(naive);
    while rig.next(Duration::from_millis(5))?.is_some() {}
    let inspected = |place: &usize| *place < 50 || *place > 51;
    ensure!(moved.len() == 3, "only {} of 3 frames came: {moved:?}", moved.len());
    ensure!(
        moved.iter().take(2).all(|places| places.iter().any(inspected)),
        "the rig shows no rewriting, so it proves nothing: {moved:?}"
    );
    Ok(None)
}

fn differences(a: &[u8], b: &[u8]) -> Vec<usize> {
    a.iter().zip(b).enumerate().filter(|(_, (a, b))| a != b).map(|(place, _)| place).collect()
}

/// VIO-001 to 012: every place a checksum could be written to.
fn no_claim_moves_an_inspected_byte(rig: &mut Rig) -> Outcome {
    let mut guest = rig.boot()?;
    let before = rig.refused_claims()?;
    let size = Size::asked();
    let (starts, offsets) = if size == Size::Fast { (128, 64) } else { (256, 256) };
    let mut swept = Swept::default();
    for flags in [NEEDS_CSUM, 0, DATA_VALID, NEEDS_CSUM | DATA_VALID] {
        for (is_v4, place) in [(true, 34), (false, 54)] {
            let every = if size == Size::Long || flags == NEEDS_CSUM && is_v4 { 1 } else { 13 };
            let grid = (0..starts).flat_map(|start| (0..offsets).map(move |offset| (start, offset)));
            let edges =
                [(place, 16), (65_535, 65_535), (34, 65_502), (65_502, 34), (60_000, 16), (34, 60_000)];
            let claims: Vec<(u16, u16)> = grid.step_by(every).chain(edges).collect();
            for batch in claims.chunks(64) {
                sweep(rig, &mut guest, &Sweep { flags, is_v4, place }, batch, &mut swept)?;
            }
        }
    }
    ensure!(rig.next(Duration::from_millis(50))?.is_none(), "a frame left that must not");
    eprintln!("{} claims, {} frames left", swept.sent, swept.left);
    let refused = swept.sent - swept.left;
    ensure!(swept.left > 600 && refused > 8_000, "{} left and {refused} did not", swept.left);
    let counted = rig.refused_claims()? - before;
    ensure!(counted == refused, "{refused} frames were refused and {counted} counted");
    Ok(None)
}

/// Claims that are alike but for where they point.
struct Sweep {
    flags: u8,
    is_v4: bool,
    /// Where the segment starts in truth.
    place: u16,
}

#[derive(Default)]
struct Swept {
    sent: u64,
    left: u64,
}

/// Sends a frame with each claim; those that leave are as they were judged, with a right checksum.
fn sweep(
    rig: &mut Rig,
    guest: &mut Guest,
    sweep: &Sweep,
    batch: &[(u16, u16)],
    swept: &mut Swept,
) -> Result<()> {
    let Sweep { flags, is_v4, place } = *sweep;
    let mut owed = BTreeMap::new();
    for (csum_start, csum_offset) in batch {
        // The window tells which frame it is.
        let window = u16::try_from(swept.sent % 0x1_0000)?;
        let frame = wire::tcp(&own(is_v4), &peer_end(is_v4), &Segment { window, ..Segment::syn(1000) });
        let mut bytes = frame.clone();
        if flags & NEEDS_CSUM != 0 {
            let truth = Place::of(&frame).context("no TCP segment")?.leave_unwritten(&mut bytes);
            ensure!(truth.csum_start == place, "the sweep misses the truth");
        }
        let vnet =
            VnetHeader { flags, csum_start: *csum_start, csum_offset: *csum_offset, ..VnetHeader::NONE };
        send(guest, vnet, &bytes)?;
        swept.sent += 1;
        if flags & NEEDS_CSUM == 0 || (*csum_start, *csum_offset) == (place, 16) {
            owed.insert(window, claim::with_right_checksum(&frame));
        }
    }
    swept.left += u64::try_from(owed.len())?;
    while !owed.is_empty() {
        let frame = rig.must_come()?;
        check(&frame, &mut owed)?;
    }
    while let Some(frame) = rig.next(Duration::ZERO)? {
        check(&frame, &mut owed)?;
    }
    Ok(())
}

fn check(frame: &[u8], owed: &mut BTreeMap<u16, Vec<u8>>) -> Result<()> {
    let window = Seen::of(frame)?.window;
    match owed.remove(&window) {
        // TCP's two zeros are one number.
        Some(judged) if judged == frame || claim::with_right_checksum(frame) == judged => Ok(()),
        Some(judged) => bail!("it left with other bytes at {:?}: {frame:02x?}", differences(&judged, frame)),
        None => bail!("it left with a false claim, or moved: {frame:02x?}"),
    }
}

/// VIO-001 to 025 as the catalogue has them.
fn the_catalogues_claims_meet_their_fate(rig: &mut Rig) -> Outcome {
    let mut guest = rig.boot()?;
    rig.firewall.install(&fs::read_to_string(cases::rules_of("LOCKED"))?)?;
    let cases: Vec<Case> =
        cases::frame_level().into_iter().filter(|case| case.id.starts_with("VIO-0")).collect();
    ensure!(cases.len() >= 15, "only {} cases were found", cases.len());
    for case in &cases {
        rig.forget(&mut guest)?;
        for (place, step) in case.steps.iter().enumerate() {
            let Step::Frame(frame) = step else { continue };
            one_step(rig, &mut guest, frame)
                .with_context(|| format!("{} {} step {place}", case.id, case.name))?;
        }
    }
    rig.forget(&mut guest)?;
    rig.firewall.install(&fs::read_to_string(cases::rules_of("WEB"))?)?;
    Ok(None)
}

fn one_step(rig: &mut Rig, guest: &mut Guest, frame: &cases::Frame) -> Result<()> {
    if frame.from == "net" {
        rig.peer.send(&frame.bytes)?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let received = guest.received(BUFFER).map_err(told)?;
            if received.iter().any(|(_, bytes)| *bytes == frame.bytes) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        bail!("the network's frame did not come: {:?}", rig.firewall.drops());
    }
    let vnet = match frame.vnet.as_deref() {
        Some(header) => VnetHeader::from_bytes(header.try_into()?),
        None => VnetHeader::NONE,
    };
    send(guest, vnet, &frame.bytes)?;
    if frame.expect.contains(&Expect::Drop) {
        ensure!(rig.next(Duration::from_millis(10))?.is_none(), "it left");
    } else {
        let out = rig.must_come()?;
        ensure!(out == claim::with_right_checksum(&frame.bytes), "it left as {out:02x?}");
    }
    Ok(())
}

/// A TCP segment as it was seen.
struct Seen {
    sequence: u32,
    acknowledgement: u32,
    window: u16,
    payload: Vec<u8>,
}

impl Seen {
    fn of(frame: &[u8]) -> Result<Self> {
        let place = Place::of(frame).with_context(|| format!("no TCP segment: {frame:02x?}"))?;
        let segment = frame.get(place.start..place.end).unwrap_or_default();
        let (header, payload) = etherparse::TcpHeader::from_slice(segment)?;
        Ok(Self {
            sequence: header.sequence_number,
            acknowledgement: header.acknowledgment_number,
            window: header.window_size,
            payload: payload.to_vec(),
        })
    }
}

/// A segment with bytes that differ from place to place, its checksum left to the device, to be cut into pieces of
/// `gso_size`.
fn super_segment(from: &End, to: &End, segment: &Segment, gso_size: u16) -> Result<(VnetHeader, Vec<u8>)> {
    let mut frame = wire::tcp(from, to, segment);
    let behind = frame.len() - segment.payload;
    for (byte, value) in frame.iter_mut().skip(behind).zip(pattern(segment.sequence)) {
        *byte = value;
    }
    let vnet = Place::of(&frame).context("no TCP segment")?.leave_unwritten(&mut frame);
    let gso_type = if from.ip.is_ipv4() { GSO_TCPV4 } else { GSO_TCPV6 };
    Ok((VnetHeader { gso_type, gso_size, hdr_len: u16::try_from(behind)?, ..vnet }, frame))
}

/// The bytes of a stream from `sequence` on.
fn pattern(sequence: u32) -> impl Iterator<Item = u8> {
    (sequence..).map(|at| u8::try_from(at % 251).unwrap_or(0))
}

fn super_segments_become_right_segments(rig: &mut Rig) -> Outcome {
    let mut guest = rig.boot()?;
    let before = rig.trouble()?;
    for is_v4 in [true, false] {
        rig.forget(&mut guest)?;
        let (us, peer) = (own(is_v4), peer_end(is_v4));
        send(&mut guest, VnetHeader::NONE, &wire::tcp(&us, &peer, &Segment::syn(1000)))?;
        rig.must_come()?;
        let answer = Segment { acknowledgement: Some(1001), ..Segment::syn(5000) };
        rig.peer.send(&wire::tcp(&peer, &us, &answer))?;
        until(|| Ok(!guest.received(BUFFER).map_err(told)?.is_empty()))?;
        send(&mut guest, VnetHeader::NONE, &wire::tcp(&us, &peer, &Segment::ack(1001, 5001)))?;
        rig.must_come()?;
        let mut sequence = 1001;
        for (payload, gso_size) in [(2_897, 1448), (3_000, 1000), (40_000, 1400), (60_000, 536), (1_400, 700)]
        {
            let gso_size = if is_v4 { gso_size } else { gso_size.min(1428) };
            let segment = Segment { payload, ..Segment::ack(sequence, 5001) };
            let (vnet, frame) = super_segment(&us, &peer, &segment, gso_size)?;
            send(&mut guest, vnet, &frame)?;
            sequence = gathered(rig, sequence, payload, gso_size)?;
            rig.peer.send(&wire::tcp(&peer, &us, &Segment::ack(5001, sequence)))?;
            until(|| Ok(!guest.received(BUFFER).map_err(told)?.is_empty()))?;
        }
    }
    is_unchanged(&before, &rig.trouble()?)
}

/// Takes the segments of `payload` bytes from `sequence` on; each is right, and of the size asked for.
fn gathered(rig: &mut Rig, sequence: u32, payload: usize, gso_size: u16) -> Result<u32> {
    let mut stream = Vec::new();
    while stream.len() < payload {
        let frame = rig.must_come()?;
        let seen = Seen::of(&frame)?;
        ensure!(seen.sequence == sequence + u32::try_from(stream.len())?, "out of order: {}", seen.sequence);
        ensure!(claim::with_right_checksum(&frame) == frame, "a wrong checksum: {frame:02x?}");
        ensure!(seen.payload.len() <= usize::from(gso_size), "{} bytes in one piece", seen.payload.len());
        stream.extend(seen.payload);
    }
    ensure!(stream.len() == payload && pattern(sequence).zip(&stream).all(|(a, b)| a == *b), "other bytes");
    Ok(sequence + u32::try_from(payload)?)
}

fn until(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !done()? {
        ensure!(start.elapsed() < PATIENCE, "it did not happen in time");
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn is_unchanged(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> Outcome {
    ensure!(before == after, "trouble was counted: {before:?} -> {after:?}");
    Ok(None)
}

/// Bytes the guest sends to the host's kernel, in super-segments, and bytes it gets back.
const SENT: usize = 200_000;
const GIVEN: usize = 400_000;

fn the_hosts_kernel_takes_and_gives(rig: &mut Rig) -> Outcome {
    let before = rig.trouble()?;
    for is_v4 in [true, false] {
        let mut guest = rig.boot()?;
        rig.forget(&mut guest)?;
        let address: IpAddr = if is_v4 { HOST_V4 } else { HOST_V6 }.parse()?;
        let listener = TcpListener::bind((address, 443))?;
        let host = thread::spawn(move || -> Result<Vec<u8>> {
            let (mut stream, _) = listener.accept()?;
            let mut taken = vec![0; SENT];
            stream.read_exact(&mut taken)?;
            stream.write_all(&pattern(0).take(GIVEN).collect::<Vec<u8>>())?;
            // The last bytes must be acknowledged before the socket goes.
            let _ = stream.read(&mut [0]);
            Ok(taken)
        });
        let mut talk = Talk::open(guest, own(is_v4), End { mac: HOST_MAC, ip: address, port: 443 })?;
        talk.give(SENT)?;
        let longest = talk.take(GIVEN)?;
        talk.hang_up()?;
        let taken = host.join().map_err(|_| anyhow!("the host's end died"))??;
        ensure!(pattern(1001).zip(&taken).all(|(a, b)| a == *b), "the host's kernel took other bytes");
        ensure!(longest > 2_000, "the host's kernel gave no super-segment: the longest had {longest} bytes");
    }
    ensure!(rig.folder.path().exists(), "the rig is gone");
    is_unchanged(&before, &rig.trouble()?)
}

/// The guest's end of a TCP conn with the host's kernel, as simple as can be.
struct Talk {
    guest: Guest,
    us: End,
    them: End,
    next: u32,
    wanted: u32,
    /// Came with the acknowledgement of our last bytes.
    early: Vec<(u8, Seen)>,
}

impl Talk {
    fn open(guest: Guest, us: End, them: End) -> Result<Self> {
        let mut talk = Self { guest, us, them, next: 1001, wanted: 0, early: Vec::new() };
        send(&mut talk.guest, VnetHeader::NONE, &wire::tcp(&us, &them, &Segment::syn(1000)))?;
        let mut opened = false;
        until(|| {
            for (_, seen) in talk.heard()? {
                talk.wanted = seen.sequence.wrapping_add(1);
                opened = seen.acknowledgement == 1001;
            }
            Ok(opened)
        })?;
        talk.acknowledge()?;
        Ok(talk)
    }

    /// What came from the other end, with how its header asked for segmentation; each frame has a right checksum.
    fn heard(&mut self) -> Result<Vec<(u8, Seen)>> {
        let mut heard = Vec::new();
        for (vnet, frame) in self.guest.received(BUFFER).map_err(told)? {
            let is_theirs = frame.get(6..12) == Some(&self.them.mac) && Place::of(&frame).is_some();
            if !is_theirs {
                continue;
            }
            let vnet = VnetHeader::from_bytes(vnet.as_slice().try_into()?);
            let whole = claim::completed(vnet, &frame);
            ensure!(
                whole == claim::with_right_checksum(&frame) || vnet.flags == DATA_VALID,
                "a wrong checksum behind {vnet:?}"
            );
            ensure!(frame.len() <= 1514 || vnet.gso_type != 0, "{} bytes in one piece", frame.len());
            heard.push((vnet.gso_type, Seen::of(&frame)?));
        }
        Ok(heard)
    }

    fn acknowledge(&mut self) -> Result<()> {
        let segment = Segment::ack(self.next, self.wanted);
        send(&mut self.guest, VnetHeader::NONE, &wire::tcp(&self.us, &self.them, &segment))
    }

    /// Gives the other end so many bytes in super-segments, each when the one before was acknowledged.
    fn give(&mut self, bytes: usize) -> Result<()> {
        let end = self.next + u32::try_from(bytes)?;
        while self.next < end {
            let payload = usize::try_from(end - self.next)?.min(20_000);
            let segment = Segment { payload, ..Segment::ack(self.next, self.wanted) };
            let (vnet, frame) = super_segment(&self.us, &self.them, &segment, 1400)?;
            send(&mut self.guest, vnet, &frame)?;
            self.next += u32::try_from(payload)?;
            until(|| {
                let heard = self.heard()?;
                let acknowledged = heard.iter().any(|(_, seen)| seen.acknowledgement == self.next);
                self.early.extend(heard);
                Ok(acknowledged)
            })?;
        }
        Ok(())
    }

    /// Takes so many bytes and gives the length of the longest segment among them.
    fn take(&mut self, bytes: usize) -> Result<usize> {
        let (mut taken, mut longest) = (Vec::<u8>::new(), 0);
        until(|| {
            let early = std::mem::take(&mut self.early);
            for (gso_type, seen) in early.into_iter().chain(self.heard()?) {
                // What comes twice was acknowledged too late for the kernel's taste.
                if seen.sequence == self.wanted && !seen.payload.is_empty() {
                    longest = longest.max(if gso_type == 0 { 0 } else { seen.payload.len() });
                    self.wanted = self.wanted.wrapping_add(u32::try_from(seen.payload.len())?);
                    taken.extend(&seen.payload);
                }
                if !seen.payload.is_empty() {
                    self.acknowledge()?;
                }
            }
            Ok(taken.len() >= bytes)
        })?;
        ensure!(pattern(0).zip(&taken).all(|(a, b)| a == *b) && taken.len() == bytes, "other bytes");
        Ok(longest)
    }

    fn hang_up(&mut self) -> Result<()> {
        let segment = Segment { rst: true, ..Segment::ack(self.next, self.wanted) };
        send(&mut self.guest, VnetHeader::NONE, &wire::tcp(&self.us, &self.them, &segment))
    }
}
