//! A guest's firewall is killed and replaced again and again under traffic, and what became of the guest's conns.
//!
//! It may know what a run is asked and what it found. It must never know how a worker or a keeper is replaced.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::host::{self, BRIDGE, HOST_V4, Stay, ip};
use crate::image::Image;
use crate::process::run as run_program;
use crate::rung::{self, Processor, Rung, Wiring};

mod machine;
mod pump;
mod site;

use site::{Round, Site};

/// What is asked of a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often the worker is killed.
    pub worker_kills: usize,
    /// How often the keeper is.
    pub keeper_kills: usize,
    /// How often `ctl upgrade` replaces the worker.
    pub upgrades: usize,
    /// How many conns the guest has.
    pub conns: usize,
    /// Whether conns can outlive a worker.
    pub keeping: Keeping,
    /// What the guest runs under.
    pub under: Under,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            worker_kills: 50,
            keeper_kills: 50,
            upgrades: 20,
            conns: 1000,
            keeping: Keeping::Copies,
            under: Under::Played,
        }
    }
}

/// Whether conns can outlive a worker that is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// By `--state-dir`.
    Copies,
    /// Not at all: what the copies are for.
    Nothing,
}

impl Keeping {
    /// How long a conn may take to answer: retransmissions back off. Who expects nothing waits less.
    const fn patience(self) -> Duration {
        match self {
            Self::Copies => Duration::from_secs(20),
            Self::Nothing => Duration::from_secs(4),
        }
    }
}

/// What the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    /// Played by hand: rings of this program, the kernel of a namespace; connects again as Cloud Hypervisor does.
    Played,
    /// A VM under QEMU.
    Qemu,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Nothing: how silent the guest is anyway.
    Nothing,
    /// `kill -9` of the worker.
    WorkerKill,
    /// `kill -9` of the keeper, which is started again.
    KeeperKill,
    /// `ctl upgrade`.
    Upgrade,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::WorkerKill => "worker-kill",
            Self::KeeperKill => "keeper-kill",
            Self::Upgrade => "upgrade",
        })
    }
}

/// What all rounds of one kind came to.
#[derive(Debug, Clone)]
pub struct Found {
    conns: usize,
    event: Event,
    rounds: Vec<Round>,
}

/// Runs it in namespaces of its own; a line for each kind, and whether all is as it must be.
///
/// # Errors
/// A part does not start, or the guest is not reached after an event.
pub fn run(options: Options) -> Result<bool> {
    let rung = match options.under {
        Under::Qemu => {
            let image = Image::ensure()?;
            Some((rung::qemu()?, image))
        }
        Under::Played => None,
    };
    host::enter(Stay::Ends)?;
    make_host()?;
    let rung = rung.map(|(vmm, image)| {
        let processor = if rung::kvm_boots(&image) { Processor::Kvm } else { Processor::Emulated };
        (Rung { vmm, processor, wiring: Wiring::Bridge }, image)
    });
    let mut good = true;
    for found in on(rung.as_ref(), options)? {
        writeln!(io::stdout(), "{}", found.line())?;
        good &= found.is_good();
    }
    Ok(good)
}

/// The bridge that everything stands on, in the namespaces that [`host::enter`] made.
///
/// # Errors
/// A network command fails; each says what.
pub fn make_host() -> Result<()> {
    // Names of namespaces are mounts below /run: ours alone, and gone with us.
    run_program("mount", &["-t", "tmpfs", "hosts", "/run"])?;
    std::fs::create_dir_all("/run/netns")?;
    ip("link set lo up")?;
    ip(&format!("link add {BRIDGE} type bridge"))?;
    ip(&format!("addr add {HOST_V4}/24 dev {BRIDGE}"))?;
    ip(&format!("link set {BRIDGE} up"))?;
    Ok(())
}

/// Runs it on ground that [`make_host`] made.
///
/// # Errors
/// As [`run`].
pub fn on(rung: Option<&(Rung, Image)>, options: Options) -> Result<Vec<Found>> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let (rung, image) = rung.map(|(rung, image)| (rung, image)).unzip();
    let mut site = Site::open(rung, image, options, folder.path())?;
    let mut all = Vec::new();
    for (event, count) in [
        (Event::Nothing, 3),
        (Event::WorkerKill, options.worker_kills),
        (Event::Upgrade, options.upgrades),
        (Event::KeeperKill, options.keeper_kills),
    ] {
        let rounds = (0..count).map(|_| site.round(event)).collect::<Result<Vec<_>>>()?;
        if !rounds.is_empty() {
            all.push(Found { conns: options.conns, event, rounds });
        }
    }
    Ok(all)
}

/// Says on stderr how far a run is.
fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

impl Found {
    /// What happened.
    #[must_use]
    pub const fn event(&self) -> Event {
        self.event
    }

    /// Conns that did not survive.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.rounds.iter().map(|round| round.lost).sum()
    }

    /// What came through and must not.
    #[must_use]
    pub fn denied_passed(&self) -> u64 {
        self.rounds.iter().map(|round| round.denied_passed).sum()
    }

    /// Whether no conn was lost and nothing passed that must not.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.lost() == 0 && self.denied_passed() == 0
    }

    /// How often it happened.
    #[must_use]
    pub const fn rounds(&self) -> usize {
        self.rounds.len()
    }

    /// The longest silence in a round: median and maximum, in milliseconds.
    #[must_use]
    pub fn gaps_ms(&self) -> Option<(f64, f64)> {
        let mut gaps = self.each_gap_ms();
        gaps.sort_by(f64::total_cmp);
        Some((*gaps.get(gaps.len() / 2)?, *gaps.last()?))
    }

    fn each_gap_ms(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| (round.gap.as_secs_f64() * 10_000.0).round() / 10.0).collect()
    }

    /// All of it in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let (median_gap_ms, max_gap_ms) = self.gaps_ms().unzip();
        let line = Line {
            event: self.event.to_string(),
            times: self.rounds.len(),
            conns: self.conns,
            lost: self.lost(),
            denied_passed: self.denied_passed(),
            median_gap_ms,
            max_gap_ms,
            gap_ms: self.each_gap_ms(),
        };
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// A line's keys, in their order.
#[derive(Debug, Serialize)]
struct Line {
    event: String,
    times: usize,
    conns: usize,
    lost: usize,
    denied_passed: u64,
    median_gap_ms: Option<f64>,
    max_gap_ms: Option<f64>,
    gap_ms: Vec<f64>,
}
