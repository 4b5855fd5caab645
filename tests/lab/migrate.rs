//! A real guest moves between two hosts, back and forth, with its conns, and what became of them.
//!
//! It may know what a run is asked and what it found. It must never know how a guest or its table moves.

use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::host::{self, Stay};
use crate::image::Image;
use crate::rung::{self, Processor, Rung, Vmm, Wiring};

mod busy;
mod denied;
mod hosts;
mod peer;
mod pulse;
mod qmp;
mod site;

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
        Self { count: 2, conns: 1000, behind: Behind::Firewalls }
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It ran.
    Ran(Found),
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

/// Runs it in namespaces of its own.
///
/// # Errors
/// A part does not start, or a move fails.
pub fn run(options: Options) -> Result<Outcome> {
    let vmm = match vmm() {
        Ok(vmm) => vmm,
        Err(why) => return Ok(Outcome::NotRun(why)),
    };
    let image = Image::ensure()?;
    host::enter(Stay::Ends)?;
    hosts::make()?;
    let processor = if rung::kvm_boots(&image) { Processor::Kvm } else { Processor::Emulated };
    let rung = Rung { vmm, processor, wiring: Wiring::Bridge };
    progress(&rung.to_string());
    Found::on(&rung, &image, options).map(Outcome::Ran)
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

    /// All of it in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let of = |figure: fn(&Move) -> Duration| {
            self.moves.iter().map(|one| ms(figure(one))).collect::<Vec<f64>>()
        };
        let (blackout, stopped) = (of(|one| one.blackout), of(|one| one.stopped));
        let downtime = of(|one| Duration::from_millis(one.downtime_ms));
        let beyond = |own: &[f64]| median(blackout.iter().zip(own).map(|(all, own)| all - own).collect());
        let line = Line {
            migrations: self.moves.len(),
            conns: self.options.conns,
            lost: self.lost(),
            denied_passed: self.denied_passed(),
            downtime_ms: self.moves.iter().map(|one| one.downtime_ms).collect(),
            median_beyond_downtime_ms: beyond(&downtime),
            median_beyond_stopped_ms: beyond(&stopped),
            stopped_ms: stopped,
            blackout_ms: blackout,
        };
        serde_json::to_string(&line).unwrap_or_default()
    }
}

/// The last line's keys, in their order.
#[derive(Debug, Serialize)]
struct Line {
    migrations: usize,
    conns: usize,
    lost: usize,
    denied_passed: u64,
    downtime_ms: Vec<u64>,
    stopped_ms: Vec<f64>,
    blackout_ms: Vec<f64>,
    median_beyond_downtime_ms: Option<f64>,
    median_beyond_stopped_ms: Option<f64>,
}

/// Milliseconds with one digit after the point.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

/// The one in the middle; the mean of two where there are two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = *values.get((values.len() - 1) / 2)?;
    Some(((upper + lower) * 5.0).round() / 10.0)
}
