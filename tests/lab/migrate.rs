//! A real guest moves between two hosts, back and forth, with its conns, and what became of them.
//!
//! It may know what a run is asked and what it found. It must never know how a guest or its table moves.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::host::{self, Stay};
use crate::image::Image;
use crate::outer::{self, Errand};
use crate::program;
use crate::rung::{self, Processor, Rung, Vmm, Wiring};

mod abort;
mod api;
mod hosts;
mod monitor;
mod mover;
mod qmp;
mod site;

pub use abort::{Aborted, Phase, Victim};
pub use hosts::make as make_hosts;
pub use site::{Move, RULES, Site};

/// The oldest QEMU whose migration stream carries a backend's state.
const QEMU_MIN: (u32, u32) = (10, 0);

/// What is asked of a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often the guest moves.
    pub count: usize,
    /// How many conns it has.
    pub conns: usize,
    /// What stands between it and the network.
    pub behind: Behind,
    /// Which VMM it runs under.
    pub under: Under,
    /// Who gives the order.
    pub by: By,
    /// Whether a guest without a firewall moves as often afterwards: what a move costs the VMM alone.
    pub beside: Beside,
}

/// Who has a guest moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The VMM is told to, and carries all of the table.
    Vmm,
    /// `state-migrate migrate`, which lets the table go ahead.
    StateMigrate,
}

/// Whether a run has another beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// The same without a firewall.
    Bare,
    /// None.
    None,
}

/// Which VMM the guest runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Under {
    /// QEMU 10 or later.
    Qemu,
    /// Cloud Hypervisor, nested where the machine's own KVM cannot boot a guest. It moves a guest once: from the second
    /// time on it refuses, upstream.
    CloudHypervisor,
}

/// What the guest's NIC is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Firewalls that hand the table over.
    Firewalls,
    /// Firewalls that start with an empty table: what the handover is for.
    Forgetful,
    /// Nothing, the VMM's own NIC on a tap: what a move costs without us, and what reaches a guest then.
    Nothing,
}

impl Behind {
    /// Its word on the command line, if it has one.
    fn word(self) -> Option<&'static str> {
        match self {
            Self::Firewalls => None,
            Self::Forgetful => Some("--without-state"),
            Self::Nothing => Some("--without-firewall"),
        }
    }

    /// How long a conn may take to answer after a move: retransmissions back off. Who expects nothing waits less.
    fn patience(self) -> Duration {
        match self {
            Self::Firewalls | Self::Nothing => Duration::from_secs(20),
            Self::Forgetful => Duration::from_secs(5),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            count: 2,
            conns: 1000,
            behind: Behind::Firewalls,
            under: Under::Qemu,
            by: By::Vmm,
            beside: Beside::None,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It ran: its last line, and whether all is as it must be.
    Ran {
        /// The last line.
        line: String,
        /// Whether all is as it must be.
        good: bool,
    },
    /// This machine cannot run it, and why.
    NotRun(String),
}

/// What all moves of a run came to.
#[derive(Debug, Clone)]
pub struct Found {
    options: Options,
    moves: Vec<Move>,
}

/// The QEMU of this machine under which a guest can move.
///
/// # Errors
/// There is none, in words.
pub fn vmm() -> Result<Vmm, String> {
    let vmm = rung::qemu().map_err(|why| format!("{why:#}"))?;
    if let Vmm::Qemu(_, (major, minor)) = &vmm
        && (*major, *minor) < QEMU_MIN
    {
        return Err(format!("QEMU is {major}.{minor}; a guest moves with its conns from 10.0 on"));
    }
    Ok(vmm)
}

/// Runs it in namespaces of its own, or in a machine around it.
///
/// # Errors
/// A part does not start, or a move fails.
pub fn run(options: Options) -> Result<Outcome> {
    let vmm = match options.under {
        Under::Qemu => vmm(),
        Under::CloudHypervisor => program::on_path("cloud-hypervisor")
            .map(Vmm::CloudHypervisor)
            .ok_or_else(|| "there is no cloud-hypervisor on the path".to_owned()),
    };
    let vmm = match vmm {
        Ok(vmm) => vmm,
        Err(why) => return Ok(Outcome::NotRun(why)),
    };
    let image = Image::ensure()?;
    let kvm = rung::kvm_boots(&image);
    if let (Vmm::CloudHypervisor(vmm), false) = (&vmm, kvm) {
        return nested(options, &image, vmm);
    }
    host::enter(Stay::Ends)?;
    hosts::make()?;
    let processor = if kvm { Processor::Kvm } else { Processor::Emulated };
    let rung = Rung { vmm, processor, wiring: Wiring::Bridge };
    progress(&rung.to_string());
    let found = Found::on(&rung, &image, options)?;
    let beside = match options.beside {
        Beside::Bare => {
            Some(Found::on(&rung, &image, Options { behind: Behind::Nothing, by: By::Vmm, ..options })?)
        }
        Beside::None => None,
    };
    let good = found.is_good() && beside.as_ref().is_none_or(Found::is_good);
    Ok(Outcome::Ran { line: found.line(beside.as_ref()), good })
}

/// Runs it in an emulated machine whose KVM works.
fn nested(options: Options, image: &Image, vmm: &Path) -> Result<Outcome> {
    let (count, conns) = (options.count.to_string(), options.conns.to_string());
    let mut words = vec!["migrate", "--vmm", "cloud-hypervisor", "--count", &count, "--conns", &conns];
    words.extend(options.behind.word());
    if options.beside == Beside::Bare {
        words.push("--compare");
    }
    if options.by == By::StateMigrate {
        words.push("--by-state-migrate");
    }
    let program = program::ours("lab")?;
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let errand = Errand { program, words: &words, vmm, patience: Duration::from_secs(1500) };
    progress("Cloud Hypervisor with KVM, nested in an emulated machine");
    let mut last = None;
    let said = errand.run(image, folder.path(), |line| {
        if line.starts_with(r#"{"migrations""#) {
            last = Some(line.to_owned());
        } else {
            progress(line);
        }
    })?;
    let good = said.contains(&outer::ended(0));
    let line = last.context("the machine around Cloud Hypervisor brought no result")?;
    Ok(Outcome::Ran { line, good })
}

/// Says on stderr how far a run is.
fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

impl Found {
    /// Moves a guest on this rung, with hosts that [`make_hosts`] made.
    ///
    /// # Errors
    /// A part does not start, or a move fails.
    pub fn on(rung: &Rung, image: &Image, options: Options) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
        let mut site = Site::open(rung, image, options, folder.path())?;
        let moves = (0..options.count).map(|_| site.migrate()).collect::<Result<_>>()?;
        Ok(Self { options, moves })
    }

    /// Conns that did not survive.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.moves.iter().map(|one| one.lost).sum()
    }

    /// What came through and must not.
    #[must_use]
    pub fn denied_passed(&self) -> u64 {
        self.moves.iter().map(|one| one.denied_passed).sum()
    }

    /// Whether it is as it must be. Without its table every conn dies, and without a firewall what is denied arrives: else
    /// a run with both would prove nothing.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let (lost, passed) = (self.lost(), self.denied_passed());
        let right = match self.options.behind {
            Behind::Firewalls => lost == 0 && passed == 0,
            Behind::Forgetful => lost >= self.options.conns && passed == 0,
            Behind::Nothing => lost == 0 && passed > 0,
        };
        right && self.moves.len() == self.options.count
    }

    /// All of it in one line, and how it differs from the run `beside` it.
    #[must_use]
    pub fn line(&self, beside: Option<&Self>) -> String {
        let median_blackout_ms = median(self.each(|one| one.blackout));
        let alone = beside.and_then(|bare| median(bare.each(|one| one.blackout)));
        let line = Line {
            migrations: self.moves.len(),
            conns: self.options.conns,
            lost: self.lost(),
            denied_passed: self.denied_passed(),
            downtime_ms: self.moves.iter().map(|one| one.downtime_ms).collect(),
            blackout_ms: self.each(|one| one.blackout),
            median_downtime_ms: median(self.each(|one| one.stopped)),
            median_blackout_ms,
            median_outside_downtime_ms: self.outside_downtime(),
            vmm_alone: beside.map(|bare| Alone {
                blackout_ms: bare.each(|one| one.blackout),
                median_downtime_ms: median(bare.each(|one| one.stopped)),
                median_blackout_ms: alone,
                median_outside_downtime_ms: bare.outside_downtime(),
            }),
            blackout_beyond_vmm_ms: median_blackout_ms.zip(alone).map(|(ours, alone)| tenth(ours - alone)),
        };
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// One figure of each move, in milliseconds.
    fn each(&self, figure: fn(&Move) -> Duration) -> Vec<f64> {
        self.moves.iter().map(|one| tenth(figure(one).as_secs_f64() * 1000.0)).collect()
    }

    /// How much longer the guest was silent than its VM stood.
    fn outside_downtime(&self) -> Option<f64> {
        median(self.each(|one| one.blackout.saturating_sub(one.stopped)))
    }
}

/// The last line's keys, in their order. A VM stands from one VMM's event to the other's; the peer sees the blackout.
#[derive(Debug, Serialize)]
struct Line {
    migrations: usize,
    conns: usize,
    lost: usize,
    denied_passed: u64,
    downtime_ms: Vec<u64>,
    blackout_ms: Vec<f64>,
    median_downtime_ms: Option<f64>,
    median_blackout_ms: Option<f64>,
    median_outside_downtime_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vmm_alone: Option<Alone>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blackout_beyond_vmm_ms: Option<f64>,
}

/// The same of a guest without a firewall.
#[derive(Debug, Serialize)]
struct Alone {
    blackout_ms: Vec<f64>,
    median_downtime_ms: Option<f64>,
    median_blackout_ms: Option<f64>,
    median_outside_downtime_ms: Option<f64>,
}

/// With one digit after the point.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The one in the middle; the mean of two where there are two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(tenth((upper + lower) / 2.0))
}
