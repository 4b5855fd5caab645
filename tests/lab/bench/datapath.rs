//! One core of ours against one core of a peer, fed by the same generator.
//!
//! It may know how a firewall is started and what it counts. It must never count a frame that no rule judged.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Rounds, dpdk, quiet, tap};
use crate::firewall::{Firewall, Uplink};
use crate::host::ip;
use crate::process::run;
use crate::program;

/// How long the generator may take to send its first frame.
const START: Duration = Duration::from_secs(30);
/// How long a backend is fed before and while it is measured.
const WARM: Duration = Duration::from_secs(2);
const MEASURED: Duration = Duration::from_secs(4);

pub(super) fn null_1k() -> Result<Rounds> {
    quiet::take_turns(|| ours(Uplink::Null, 64, 1_024), || receive_only(64, 1_024))
}

pub(super) fn null_100k() -> Result<Rounds> {
    quiet::take_turns(|| ours(Uplink::Null, 64, 100_000), || receive_only(64, 100_000))
}

pub(super) fn tap_64() -> Result<Rounds> {
    let uplink = Uplink::Tap("bench0".to_owned());
    quiet::take_turns(|| ours(uplink.clone(), 64, 1_024), || tap::written_per_second(64).map(mega))
}

/// Millions of frames per second that a rule of ours lets through.
fn ours(uplink: Uplink, size: u32, flows: u32) -> Result<f64> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    if let Uplink::Tap(name) = &uplink {
        // Made ahead, so that the firewall finds it up and nothing on it speaks.
        let _ = ip(&format!("link del {name}"));
        ip(&format!("tuntap add {name} mode tap vnet_hdr"))?;
        ip(&format!("link set {name} addrgenmode none"))?;
    }
    let mut words = vec!["--max-connections", "262144"];
    let help = run(&program::ours("vhost-fw")?.display().to_string(), &["--help"])?;
    if help.contains("--poll") {
        words.push("--poll");
    }
    let firewall = Firewall::start_with("bench", &rules(), uplink, &words, folder.path())?;
    // All its threads on one core; the generator has the other.
    run("taskset", &["--all-tasks", "--cpu-list", "--pid", "1", &firewall.id().to_string()])?;
    let _generator = dpdk::generator(&firewall.socket(), size, flows, folder.path())?;
    let end = Instant::now() + START;
    while passed(&firewall)? == 0 {
        let said = || generator_said(folder.path());
        ensure!(Instant::now() < end, "no frame passed; it dropped {:?}\n{}", firewall.drops()?, said());
        thread::sleep(Duration::from_millis(100));
    }
    thread::sleep(WARM);
    let (before, start) = (passed(&firewall)?, Instant::now());
    thread::sleep(MEASURED);
    let (after, seconds) = (passed(&firewall)?, start.elapsed().as_secs_f64());
    ensure!(after > before, "frames stopped passing; it dropped {:?}", firewall.drops()?);
    Ok(mega(count(after - before) / seconds))
}

/// Millions of frames per second that the peer takes out of the ring and looks at no further.
fn receive_only(size: u32, flows: u32) -> Result<f64> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let socket = folder.path().join("vhost.sock");
    let _receiver = dpdk::receiver(&socket, folder.path())?;
    let mut generator = dpdk::generator(&socket, size, flows, folder.path())?;
    generator.wait_until(START, || dpdk::received_per_second(folder.path()).is_ok())?;
    thread::sleep(WARM + MEASURED);
    dpdk::received_per_second(folder.path()).map(mega)
}

fn rules() -> String {
    format!(
        r#"nic: {{id: bench, mac: "{}", addresses: [{}]}}
defaults: {{out: drop, in: drop}}
rules:
  - {{id: flows, direction: out, action: allow, protocol: udp, ports: [1001]}}
"#,
        dpdk::GENERATOR_MAC,
        dpdk::GENERATOR_ADDRESS
    )
}

fn passed(firewall: &Firewall) -> Result<u64> {
    let stats = firewall.stats()?;
    stats.pointer("/rules/flows/frames").and_then(Value::as_u64).context("stats without the rule's frames")
}

fn generator_said(folder: &Path) -> String {
    let log = fs::read_to_string(folder.join("generator.log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
}

#[expect(clippy::cast_precision_loss, reason = "a count of frames stays far below 2^52")]
fn count(frames: u64) -> f64 {
    frames as f64
}

fn mega(rate: f64) -> f64 {
    rate / 1e6
}
