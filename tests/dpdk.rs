//! A foreign frontend: DPDK's virtio-user, which shares no line with ours, in front of the real program.
//!
//! It sends as fast as it can, without huge pages and privileges, for seconds only. Each firewall must judge every
//! frame by its rules, and let the frontend come again.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fw_tests::bench::dpdk::{self, GENERATOR_ADDRESS, GENERATOR_MAC};
use fw_tests::firewall::{Firewall, Uplink};
use fw_tests::process::Process;
use fw_tests::program;
use fw_tests::report::Report;
use fw_tests::wire::{self, End};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::Value;

/// Frames that show a frontend at work.
const MANY: u64 = 100_000;
/// How long it may take to start and to send that many, on a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(30);
const VNET_HEADER: usize = 12;
const FLOWS: u32 = 1024;
/// Bytes of the frames whose bytes are looked at; testpmd counts Ethernet's own checksum with them.
const SIZE: usize = 128;
const ETHER_CHECKSUM: usize = 4;

type Outcome = Result<Option<String>>;
type Test = (&'static str, fn(&Path) -> Outcome);

const TESTS: &[Test] = &[
    ("every_frame_of_an_allowed_flow_passes_and_the_frontend_may_come_again", allowed_flows_pass),
    ("what_the_default_drops_is_counted_as_that", the_default_drops),
    ("what_a_rule_drops_is_counted_as_that", a_rule_drops),
    ("what_leaves_by_a_unix_uplink_is_what_was_sent", what_leaves_is_what_was_sent),
    ("what_comes_by_a_unix_uplink_reaches_the_frontend", what_comes_reaches_the_frontend),
];

fn main() -> ExitCode {
    let Some(mut report) = Report::asked(TESTS.iter().map(|(name, _)| *name)) else {
        return ExitCode::SUCCESS;
    };
    if program::on_path("dpdk-testpmd").is_none() {
        for (name, _) in TESTS {
            report.ignore(name, "there is no dpdk-testpmd on this machine");
        }
        return report.close();
    }
    if let Err(why) = program::build() {
        report.note("our_programs_build", &Err(why));
        return report.close();
    }
    for (name, test) in TESTS {
        report.run(name, || {
            let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
            let outcome = test(folder.path());
            outcome.with_context(|| format!("testpmd said:\n{}", said(folder.path())))
        });
    }
    report.close()
}

/// The last words of the frontend.
fn said(folder: &Path) -> String {
    let logs =
        ["generator.log", "sink.log"].map(|log| fs::read_to_string(folder.join(log)).unwrap_or_default());
    let lines: Vec<&str> = logs.iter().flat_map(|log| log.lines()).collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
}

fn rules(rule: &str) -> String {
    format!(
        "nic: {{id: dpdk, mac: \"{GENERATOR_MAC}\", addresses: [{GENERATOR_ADDRESS}]}}\n\
         defaults: {{out: drop, in: drop}}\nrules:\n  - {rule}\n"
    )
}

const FLOWS_ALLOWED: &str = "{id: flows, direction: out, action: allow, protocol: udp, ports: [1001]}";
const FLOWS_DENIED: &str = "{id: no-flows, direction: out, action: drop, protocol: udp, ports: [1001]}";
const OTHER_FLOWS_ALLOWED: &str = "{id: dns, direction: out, action: allow, protocol: udp, ports: [53]}";

fn firewall(rule: &str, uplink: Uplink, folder: &Path) -> Result<Firewall> {
    Firewall::start_with("dpdk", &rules(rule), uplink, &["--max-connections", "4096"], folder)
}

/// Waits until the counter has grown by `many` since, and gives what it has grown to.
fn grows(frontend: &mut Process, many: u64, mut count: impl FnMut() -> Result<u64>) -> Result<u64> {
    let before = count()?;
    let mut now = before;
    let grown = frontend.wait_until(PATIENCE, || {
        now = count().unwrap_or(now);
        now >= before + many
    });
    grown.with_context(|| format!("it went from {before} to {now} only"))?;
    Ok(now)
}

fn passed(firewall: &Firewall) -> Result<u64> {
    firewall.stats()?.pointer("/frames/out").and_then(Value::as_u64).context("stats without frames")
}

fn dropped(firewall: &Firewall, reason: &str) -> Result<u64> {
    Ok(firewall.drops()?.get(reason).copied().unwrap_or(0))
}

fn allowed_flows_pass(folder: &Path) -> Outcome {
    let firewall = firewall(FLOWS_ALLOWED, Uplink::Null, folder)?;
    for _ in 0..2 {
        let mut generator = dpdk::generator(&firewall.socket(), 64, FLOWS, folder)?;
        grows(&mut generator, MANY, || passed(&firewall))?;
        // It dies in the middle of its sending; the next one finds a device that waits.
        generator.kill();
    }
    let conns = firewall.stats()?.pointer("/conns").and_then(Value::as_u64);
    ensure!(conns == Some(FLOWS.into()), "{conns:?} conns of {FLOWS} flows");
    ensure!(firewall.drops()?.is_empty(), "it dropped {:?}", firewall.drops()?);
    Ok(None)
}

fn the_default_drops(folder: &Path) -> Outcome {
    refused(OTHER_FLOWS_ALLOWED, "default-drop", folder)
}

fn a_rule_drops(folder: &Path) -> Outcome {
    refused(FLOWS_DENIED, "rule-drop", folder)
}

fn refused(rule: &str, reason: &str, folder: &Path) -> Outcome {
    let firewall = firewall(rule, Uplink::Null, folder)?;
    let mut generator = dpdk::generator(&firewall.socket(), 64, FLOWS, folder)?;
    grows(&mut generator, MANY, || dropped(&firewall, reason))?;
    generator.kill();
    let drops = firewall.drops()?;
    ensure!(drops.keys().eq([reason]), "it dropped for other reasons too: {drops:?}");
    ensure!(passed(&firewall)? == 0, "{} frames passed", passed(&firewall)?);
    Ok(None)
}

/// Connects to a `unix:` uplink.
fn plug(path: &Path) -> Result<OwnedFd> {
    let line = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None)?;
    net::connect(&line, &SocketAddrUnix::new(path)?)?;
    Ok(line)
}

fn what_leaves_is_what_was_sent(folder: &Path) -> Outcome {
    let path = folder.join("uplink.sock");
    let firewall = firewall(FLOWS_ALLOWED, Uplink::Unix(path.clone()), folder)?;
    let line = plug(&path)?;
    let mut generator = dpdk::generator(&firewall.socket(), u32::try_from(SIZE)?, FLOWS, folder)?;
    let (mut flows, mut seen) = (BTreeMap::new(), 0_u64);
    let mut record = [0; 2048];
    let end = Instant::now() + PATIENCE;
    while seen < MANY && Instant::now() < end {
        match rustix::io::read(&line, &mut record) {
            Ok(length) => {
                let frame = record.get(VNET_HEADER..length).context("a record without a header")?;
                *flows.entry(flow_of(frame)?).or_insert(0_u64) += 1;
                seen += 1;
            }
            Err(Errno::AGAIN) => thread::sleep(Duration::from_micros(100)),
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(seen == MANY, "only {seen} frames came");
    generator.kill();
    // Frames for which this reader was too slow are counted, and no other.
    let drops = firewall.drops()?;
    ensure!(drops.keys().all(|reason| reason == "uplink-full"), "it dropped {drops:?}");
    ensure!(flows.len() > 256, "only {} of {FLOWS} flows were seen", flows.len());
    Ok(None)
}

/// The destination of a frame that is the generator's, byte for byte where it has a choice.
fn flow_of(frame: &[u8]) -> Result<[u8; 4]> {
    let sliced = etherparse::SlicedPacket::from_ethernet(frame)?;
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Udp(udp))) =
        (&sliced.net, &sliced.transport)
    else {
        anyhow::bail!("no UDP over IPv4: {frame:02x?}")
    };
    let source = ip.header().source_addr().to_string();
    let destination = ip.header().destination();
    ensure!(
        frame.len() == SIZE - ETHER_CHECKSUM
            && source == GENERATOR_ADDRESS
            && destination.starts_with(&[10, 253])
            && (udp.source_port(), udp.destination_port()) == (1000, 1001),
        "not what was sent: {frame:02x?}"
    );
    Ok(destination)
}

/// Frames put into the wire for a frontend that receives.
const GIVEN: u64 = 50_000;

fn what_comes_reaches_the_frontend(folder: &Path) -> Outcome {
    let path = folder.join("uplink.sock");
    let rule = "{id: flows, direction: in, action: allow, protocol: udp, ports: [1000]}";
    let firewall = firewall(rule, Uplink::Unix(path.clone()), folder)?;
    let line = plug(&path)?;
    let mut sink = dpdk::sink(&firewall.socket(), folder)?;
    let peer = End { mac: [0, 1, 2, 3, 4, 1], ip: "10.253.0.1".parse()?, port: 1001 };
    let guest = End { mac: [0, 1, 2, 3, 4, 0], ip: GENERATOR_ADDRESS.parse()?, port: 1000 };
    let record = [&[0; VNET_HEADER], wire::udp(&peer, &guest, &[7; 100]).as_slice()].concat();
    let end = Instant::now() + PATIENCE;
    let mut given = 0;
    while given < GIVEN {
        match rustix::io::write(&line, &record) {
            Ok(_) => given += 1,
            // The uplink is read only while the guest has buffers: a full line waits for the frontend to start.
            Err(Errno::AGAIN) => thread::sleep(Duration::from_micros(200)),
            Err(error) => return Err(error.into()),
        }
        ensure!(Instant::now() < end, "only {given} frames were taken: {:?}", firewall.drops());
    }
    sink.wait_until(PATIENCE, || dpdk::received(folder).is_ok_and(|received| received >= GIVEN))?;
    let received = dpdk::received(folder)?;
    ensure!(received == GIVEN, "{received} frames came of {GIVEN}");
    ensure!(firewall.drops()?.is_empty(), "it dropped {:?}", firewall.drops()?);
    Ok(None)
}
