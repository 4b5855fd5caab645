//! Whether the worker does anything while somebody waits for it.
//!
//! While nobody does, nobody is woken: what a guest's kick, a frame in the uplink or a VMM's message starts is one question
//! to the worker a second later. An answer is all that is wanted, whatever it is busy with. Knows files and time. Never
//! reads a kick or a frame.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use fw_engine::Tick;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};

use super::child::Worker;
use super::relay::Relay;

/// From the first who may wait to the question, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// How many further seconds it may be silent before it is held to hang. Seconds that passed while this process did not run
/// either, on a machine that was stopped, count as one.
const SILENT_SECONDS: u8 = 4;
/// How long a VMM may wait for the answer to one message although the worker says that it is there, in milliseconds: tables
/// are moved meanwhile.
const MESSAGE_MS: u64 = 30_000;

/// What is known of the worker.
pub(crate) enum Watch {
    /// Nobody is known to wait. Whoever does from now on shows here.
    Resting(OwnedFd),
    /// Somebody may wait, and the worker is asked then.
    Stirred(Tick),
    /// It was asked; until when it may be silent, how many seconds are left after that, and who waits since.
    Asked(Tick, u8, OwnedFd),
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing is wrong, as far as is known.
    Well,
    /// It hangs.
    Hangs,
}

impl Watch {
    /// A worker of which nothing is known.
    pub(crate) fn new(now: Tick) -> Self {
        Self::Stirred(now.after_ms(LOOK_MS))
    }

    /// Where it shows that somebody may wait.
    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Resting(file) => Some(file.as_fd()),
            Self::Stirred(_) | Self::Asked(..) => None,
        }
    }

    /// When to look.
    pub(super) const fn due(&self) -> Option<Tick> {
        match self {
            Self::Resting(_) => None,
            Self::Stirred(due) | Self::Asked(due, ..) => Some(*due),
        }
    }

    /// Somebody may wait from now on.
    pub(super) fn stir(&mut self, now: Tick) {
        if matches!(self, Self::Resting(_)) {
            *self = Self::new(now);
        }
    }

    /// Time has passed: asks, or finds that there was no answer.
    ///
    /// # Errors
    /// The files of those who may wait cannot be watched.
    pub(super) fn look<'a>(
        &mut self,
        now: Tick,
        worker: &Worker,
        waiting: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<Found> {
        match self {
            Self::Stirred(due) if *due <= now => {
                // Before the question: whoever comes after this is seen, and whoever came before is answered for.
                let from_now = edges(waiting)?;
                // A worker that is gone is found out by the end of its line.
                let _ = worker.ask();
                *self = Self::Asked(now.after_ms(1_000), SILENT_SECONDS, from_now);
                Ok(Found::Well)
            }
            Self::Asked(due, 0, _) if *due <= now => Ok(Found::Hangs),
            Self::Asked(due, left, _) if *due <= now => {
                (*due, *left) = (now.after_ms(1_000), left.saturating_sub(1));
                Ok(Found::Well)
            }
            Self::Resting(_) | Self::Stirred(_) | Self::Asked(..) => Ok(Found::Well),
        }
    }

    /// It answered, at `now`. A VMM may wait for an answer of its own still.
    pub(super) fn answered(self, now: Tick, relay: Option<&Relay>) -> (Self, Found) {
        let waits_since = relay.and_then(Relay::asks_since);
        match self {
            _ if waits_since.is_some_and(|since| since.after_ms(MESSAGE_MS) <= now) => (self, Found::Hangs),
            Self::Asked(..) if waits_since.is_some() => (Self::new(now), Found::Well),
            Self::Asked(.., from_now) => (Self::Resting(from_now), Found::Well),
            Self::Resting(_) | Self::Stirred(_) => (self, Found::Well),
        }
    }
}

/// Becomes readable when something new happens to one of `files`. An eventfd that was kicked once stays readable, since
/// nobody reads it.
fn edges<'a>(files: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<OwnedFd> {
    let edges = epoll::create(CreateFlags::CLOEXEC)?;
    for file in files {
        // What cannot be waited for never tells of anybody.
        let _ = epoll::add(&edges, file, EventData::new_u64(0), EventFlags::IN | EventFlags::ET);
    }
    let mut seen = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 16];
    while epoll::wait(&edges, seen.as_mut_slice(), Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0 {}
    Ok(edges)
}
