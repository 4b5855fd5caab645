//! One core of ours against one core of a peer, fed by the same generator.
//!
//! It may know how a firewall is started and what it counts. It must never count a frame that no rule judged.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Rounds, dpdk, quiet, tap};
use crate::firewall::{Firewall, Uplink};
use crate::host::ip;

/// How long a generator may take until its first frame: mapping its memory is slow where the machine is busy.
const PATIENCE: Duration = Duration::from_secs(30);
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
    let words = ["--max-connections", "262144", "--poll", "--pin", "1"];
    let firewall = Firewall::start_with("bench", &rules(), uplink, &words, folder.path())?;
    let mut generator = dpdk::generator(&firewall.socket(), size, flows, folder.path())?;
    generator
        .wait_until(PATIENCE, || passed(&firewall).is_ok_and(|frames| frames > 0))
        .with_context(|| format!("no frame passed; it dropped {:?}", firewall.drops()))?;
    thread::sleep(WARM);
    let (before, opened, start) = (passed(&firewall)?, opened(&firewall)?, Instant::now());
    thread::sleep(MEASURED);
    let (after, seconds) = (passed(&firewall)?, start.elapsed().as_secs_f64());
    ensure!(after > before, "frames stopped passing; it dropped {:?}", firewall.drops()?);
    ensure!(
        opened == self::opened(&firewall)?,
        "conns were opened: not the frames of living conns were measured"
    );
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
"#,
        dpdk::GENERATOR_MAC,
        dpdk::GENERATOR_ADDRESS
    )
}

/// Frames that the rule let through.
fn passed(firewall: &Firewall) -> Result<u64> {
    of_the_rule(firewall, "frames")
}

/// Conns that the rule let open.
fn opened(firewall: &Firewall) -> Result<u64> {
    of_the_rule(firewall, "conns")
}

fn of_the_rule(firewall: &Firewall, what: &str) -> Result<u64> {
    let stats = firewall.stats()?;
    let count = stats.pointer(&format!("/rules/flows/{what}")).and_then(Value::as_u64);
    count.with_context(|| format!("stats without the rule's {what}"))
}

#[expect(clippy::cast_precision_loss, reason = "a count of frames stays far below 2^52")]
fn count(frames: u64) -> f64 {
    frames as f64
}

fn mega(rate: f64) -> f64 {
    rate / 1e6
}
