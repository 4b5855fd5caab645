//! One core of ours against one core of a peer, fed by the same generator.
//!
//! It may know how a firewall is started and what it counts. It must never count a frame that no rule judged.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Rounds, backlog, dpdk, floor, quiet, super_segment};
use crate::firewall::{Firewall, Uplink};
use crate::host::ip;

/// How long a generator may take until its first frame: mapping its memory is slow where the machine is busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a backend is fed before and while it is measured.
const WARM: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(4);
/// The tap of ours.
const TAP: &str = "bench0";

pub(super) fn null_1k() -> Result<Rounds> {
    quiet::take_turns(|| ours(&rules(), Uplink::Null, 64, 1_024), || receive_only(64, 1_024))
}

pub(super) fn null_100k() -> Result<Rounds> {
    quiet::take_turns(|| ours(&rules(), Uplink::Null, 64, 100_000), || receive_only(64, 100_000))
}

pub(super) fn tap_64() -> Result<Rounds> {
    let uplink = Uplink::Tap(TAP.to_owned());
    quiet::take_turns(
        || ours(&rules(), uplink.clone(), 64, 1_024),
        || floor::written_per_second(64, 1_024).map(mega),
    )
}

/// What a thousand rules cost: the same program with and without them.
pub(super) fn price_64() -> Result<Rounds> {
    let with = |rules: String| ours(&rules, Uplink::Null, 64, 1_024);
    quiet::take_turns(|| with(many_rules()), || with(allow_all()))
}

pub(super) fn tap_64k_tso() -> Result<Rounds> {
    quiet::take_turns(super_segments, || floor::super_segments_written_per_second().map(kilo))
}

pub(super) fn tap_rx() -> Result<Rounds> {
    quiet::take_turns(drained, || floor::read_per_second().map(mega))
}

/// Thousands of super-segments per second that a rule of ours lets into a tap.
fn super_segments() -> Result<f64> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let mut wire = backlog::Backlog::open(TAP)?;
    let firewall = start(&rules(), Uplink::Tap(TAP.to_owned()), folder.path())?;
    wire.connect()?;
    let mut sender = super_segment::Sender::boot(&firewall.socket(), wire.feeder())?;
    // The floor's frames go nowhere either.
    wire.disconnect()?;
    floor::on(floor::NEIGHBOUR, || sender.send_for(WARM))?;
    let before = passed(&firewall)?;
    let rate = floor::on(floor::NEIGHBOUR, || sender.send_for(MEASURED))?;
    let (passed, drops) = (passed(&firewall)? - before, firewall.drops()?);
    ensure!(count(passed) > 0.99 * rate * MEASURED.as_secs_f64(), "{passed} passed; it dropped {drops:?}");
    Ok(kilo(rate))
}

/// Millions of frames per second that ours brings to a guest out of a tap in which they wait.
fn drained() -> Result<f64> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let mut waiting = backlog::Backlog::open(TAP)?;
    let firewall = start(&rules(), Uplink::Tap(TAP.to_owned()), folder.path())?;
    waiting.connect()?;
    let mut sink = dpdk::sink(&firewall.socket(), folder.path())?;
    // Until the guest has buffers nothing is read; then every flow gets its conn.
    waiting.queue(backlog::FLOWS)?;
    let all = || conns(&firewall).is_ok_and(|conns| conns >= backlog::FLOWS.into());
    sink.wait_until(PATIENCE, all).with_context(|| format!("it dropped {:?}", firewall.drops()))?;
    firewall.ctl(&["freeze"])?;
    let (before, delivered) = (waiting.counters()?.0, frames(&firewall, "in")?);
    waiting.queue(backlog::FRAMES)?;
    firewall.ctl(&["thaw"])?;
    let seen = || Ok::<_, anyhow::Error>((Instant::now(), waiting.counters()?.0 - before));
    let (mut first, start) = (seen()?, Instant::now());
    let mut last = first;
    while last.1 < backlog::FRAMES.into() {
        ensure!(start.elapsed() < PATIENCE, "{} frames were read", last.1);
        thread::sleep(Duration::from_micros(200));
        last = seen()?;
        if first.1 == 0 {
            first = last;
        }
    }
    let delivered = frames(&firewall, "in")? - delivered;
    ensure!(delivered >= backlog::FRAMES.into(), "{delivered} passed; it dropped {:?}", firewall.drops()?);
    Ok(mega(count(last.1 - first.1) / (last.0 - first.0).as_secs_f64()))
}

fn start(rules: &str, uplink: Uplink, folder: &Path) -> Result<Firewall> {
    let words = ["--max-connections", "262144", "--poll", "--pin", "1"];
    Firewall::start_with("bench", rules, uplink, &words, folder)
}

/// Millions of frames per second that a rule of ours lets through.
fn ours(rules: &str, uplink: Uplink, size: u32, flows: u32) -> Result<f64> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    if let Uplink::Tap(name) = &uplink {
        // Made ahead, so that the firewall finds it up and nothing on it speaks.
        let _ = ip(&format!("link del {name}"));
        ip(&format!("tuntap add {name} mode tap vnet_hdr"))?;
        ip(&format!("link set {name} addrgenmode none"))?;
    }
    let firewall = start(rules, uplink, folder.path())?;
    let mut generator = dpdk::generator(&firewall.socket(), size, flows, folder.path())?;
    generator
        .wait_until(PATIENCE, || passed(&firewall).is_ok_and(|frames| frames > 0))
        .with_context(|| format!("no frame passed; it dropped {:?}", firewall.drops()))?;
    thread::sleep(WARM);
    let (before, living, start) = (passed(&firewall)?, conns(&firewall)?, Instant::now());
    thread::sleep(MEASURED);
    let (after, seconds) = (passed(&firewall)?, start.elapsed().as_secs_f64());
    ensure!(after > before, "frames stopped passing; it dropped {:?}", firewall.drops()?);
    ensure!(living == conns(&firewall)?, "conns came or went: not the frames of living conns were measured");
    Ok(mega(count(after - before) / seconds))
}

/// Millions of frames per second that the peer takes out of the ring and looks at no further.
fn receive_only(size: u32, flows: u32) -> Result<f64> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let socket = folder.path().join("vhost.sock");
    let _receiver = dpdk::receiver(&socket, folder.path())?;
    let mut generator = dpdk::generator(&socket, size, flows, folder.path())?;
    generator
        .wait_until(PATIENCE, || !dpdk::receive_rates(folder.path()).is_empty())
        .context("the receiver received nothing")?;
    thread::sleep(WARM);
    let warm = dpdk::receive_rates(folder.path()).len();
    thread::sleep(MEASURED);
    let rates = dpdk::receive_rates(folder.path());
    let rate = quiet::median(rates.get(warm..).unwrap_or_default());
    rate.map(mega).context("the receiver reported nothing more")
}

/// Nobody answers the generator, so all its conns count as half open; a quarter of the table is their share otherwise.
fn rules() -> String {
    format!(
        r#"limits: {{half_open: 200000}}
nic: {{id: bench, mac: "{}", addresses: [{}]}}
defaults: {{out: drop, in: drop}}
rules:
  - {{id: flows, direction: out, action: allow, protocol: udp, ports: [1001]}}
  - {{id: stream, direction: out, action: allow, protocol: tcp, ports: [80]}}
  - {{id: answers, direction: in, action: allow, protocol: udp, ports: [1000]}}
"#,
        dpdk::GENERATOR_MAC,
        dpdk::GENERATOR_ADDRESS
    )
}

/// Frames that left.
fn passed(firewall: &Firewall) -> Result<u64> {
    frames(firewall, "out")
}

fn frames(firewall: &Firewall, direction: &str) -> Result<u64> {
    let stats = firewall.stats()?;
    stats.pointer(&format!("/frames/{direction}")).and_then(Value::as_u64).context("stats without frames")
}

/// The same behind a thousand rules for others, over a hundred sets of a hundred prefixes.
fn many_rules() -> String {
    let sets: String = (0..100)
        .map(|set| {
            let prefixes: Vec<String> = (0..100).map(|number| format!("172.{set}.{number}.0/24")).collect();
            format!("  set-{set}: [{}]\n", prefixes.join(", "))
        })
        .collect();
    let others: String = (0..1_000)
        .map(|number| {
            let (set, port) = (number % 100, 2_000 + number);
            let ends = format!("remote: [{{set: set-{set}}}], ports: [{port}]");
            format!("  - {{id: other-{number}, direction: out, action: allow, protocol: udp, {ends}}}\n")
        })
        .collect();
    rules().replace("rules:\n", &format!("address-sets:\n{sets}rules:\n{others}"))
}

/// The same NIC, and everything it says passes.
fn allow_all() -> String {
    let rules = rules().replace("defaults: {out: drop, in: drop}", "defaults: {out: allow, in: allow}");
    rules.split("rules:\n").next().unwrap_or_default().to_owned()
}

/// Conns that live.
fn conns(firewall: &Firewall) -> Result<u64> {
    firewall.stats()?.pointer("/conns").and_then(Value::as_u64).context("stats without conns")
}

#[expect(clippy::cast_precision_loss, reason = "a count of frames stays far below 2^52")]
pub(super) fn count(frames: u64) -> f64 {
    frames as f64
}

fn mega(rate: f64) -> f64 {
    rate / 1e6
}

fn kilo(rate: f64) -> f64 {
    rate / 1e3
}
