//! Frames that wait in a tap until somebody reads them: written into another tap, carried there by a bridge.
//!
//! It may know bridges and the kernel's counters. It must never know who reads.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::{floor, generator};
use crate::host::ip;
use crate::tap::{LONG_HEADER, Tap};

/// Frames that wait before anybody reads.
pub(super) const FRAMES: u32 = 50_000;
/// Room for more than these.
const QUEUE: u32 = 1 << 16;
/// Flows of the frames.
pub(super) const FLOWS: u32 = 1_024;
const SIZE: usize = 64;
const BRIDGE: &str = "backlog-br";
const FEEDER: &str = "feeder0";

/// A tap, and a way for frames into it.
pub(super) struct Backlog {
    tap: String,
    feeder: Tap,
}

impl Backlog {
    /// Makes the tap `name` with a long queue, and a bridge with a feeder beside it.
    pub(super) fn open(name: &str) -> Result<Self> {
        for old in [name, BRIDGE, FEEDER] {
            let _ = ip(&format!("link del {old}"));
        }
        ip(&format!("tuntap add {name} mode tap vnet_hdr"))?;
        ip(&format!("link set {name} txqueuelen {QUEUE}"))?;
        ip(&format!("link add {BRIDGE} type bridge"))?;
        let feeder = Tap::open_with_long_header(FEEDER).context("cannot make a tap")?;
        for device in [name, BRIDGE, FEEDER] {
            // The host has nothing to say here.
            let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{device}/disable_ipv6"), "1");
        }
        ip(&format!("link set {BRIDGE} up"))?;
        ip(&format!("link set {FEEDER} master {BRIDGE} up"))?;
        Ok(Self { tap: name.to_owned(), feeder })
    }

    /// Connects the tap, which somebody has attached to by now.
    pub(super) fn connect(&self) -> Result<()> {
        ip(&format!("link set {} master {BRIDGE} up", self.tap)).map(|_| ())
    }

    /// Takes it off the bridge: what is written to it from now on goes nowhere.
    pub(super) fn disconnect(&self) -> Result<()> {
        ip(&format!("link set {} nomaster", self.tap)).map(|_| ())
    }

    /// The far end of the wire.
    pub(super) const fn feeder(&mut self) -> &mut Tap {
        &mut self.feeder
    }

    /// Queues frames of all flows in turn, as answers to the generator.
    pub(super) fn queue(&mut self, count: u32) -> Result<()> {
        let records: Vec<Vec<u8>> =
            (0..FLOWS).map(|flow| [&[0; LONG_HEADER][..], &generator::answer(flow, SIZE)].concat()).collect();
        let lost = self.counters()?.1;
        // Never where they are read: a frame in the reader's own cache is no frame from a wire.
        floor::on(floor::NEIGHBOUR, || {
            for record in records.iter().cycle().take(count as usize) {
                self.feeder.write(record)?;
            }
            Ok(())
        })?;
        let lost = self.counters()?.1 - lost;
        ensure!(lost == 0, "the tap had no room for {lost} frames");
        Ok(())
    }

    /// Frames that were read from the tap, and frames it had no room for.
    pub(super) fn counters(&self) -> Result<(u64, u64)> {
        let devices = fs::read_to_string("/proc/self/net/dev")?;
        let line = devices.lines().find_map(|line| line.trim().strip_prefix(&self.tap)?.strip_prefix(':'));
        let counters: Vec<u64> =
            line.unwrap_or_default().split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // Eight counters of what was received, then sent: bytes, frames, errors, drops.
        Ok((
            *counters.get(9).context("a device without counters")?,
            *counters.get(11).context("a device without counters")?,
        ))
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        for name in [BRIDGE, self.tap.as_str()] {
            let _ = ip(&format!("link del {name}"));
        }
    }
}
