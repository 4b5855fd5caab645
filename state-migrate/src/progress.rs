//! How far a move is, for whoever watches.
//!
//! A line on stderr when something changes, and no more often than once a second. Knows lines. Never knows what a phase does.

use std::fmt;
use std::io::Write;
use std::time::{Duration, Instant};

/// From one line of a phase to the next.
const PACE: Duration = Duration::from_secs(1);

/// The phases of a move, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Both ends are asked whether it can be.
    Check,
    /// The handover is announced, and big tables go ahead.
    Ahead,
    /// The VMM sends the VM, which runs on here.
    Send,
    /// The VM has left: the table must have arrived and the VM run there.
    Verify,
}

impl Phase {
    /// What becomes of a move that is given up in it.
    #[must_use]
    pub const fn put_back(self) -> &'static str {
        match self {
            Self::Check => "nothing was changed",
            Self::Ahead => "both NICs forget the handover; the VM was not touched",
            Self::Send => "the VMM is told to stop and the VM runs on here; both NICs forget the handover",
            Self::Verify => "the VM has left: it cannot be put back",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Check => "check",
            Self::Ahead => "ahead",
            Self::Send => "send",
            Self::Verify => "verify",
        })
    }
}

/// Tells how far a move is.
#[derive(Debug)]
pub(crate) struct Progress {
    began: Instant,
    last: Option<(Phase, String, Instant)>,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), last: None }
    }

    /// Seconds since the move began.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub(crate) fn tell(&mut self, phase: Phase, what: &str) {
        if let Some((before, said, when)) = &self.last
            && *before == phase
            && (said == what || when.elapsed() < PACE)
        {
            return;
        }
        let _ = writeln!(std::io::stderr(), "{:7.1} s  {phase:<6}  {what}", self.seconds());
        self.last = Some((phase, what.to_owned(), Instant::now()));
    }
}
