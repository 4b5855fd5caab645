//! The worker as its keeper sees it: a process at the other end of a line.
//!
//! Knows how one is started and how it ends. Never knows what it judges.

use std::cell::Cell;
use std::env;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use fw_engine::Tick;
use rustix::process::{Pid, Signal, kill_process};

use super::line::{Line, Start, Word};
use crate::worker::boot_time;

/// How long a worker may take to end by itself once its line is cut.
const FAREWELL_MS: u64 = 2000;

/// A worker.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    pub(super) line: Line,
    /// A byte asks whether it is there, and a byte comes back.
    pulse: UnixStream,
    /// It is dead, or about to: its line tells.
    pulse_is_closed: Cell<bool>,
    pub(super) since: Tick,
}

impl Worker {
    /// Starts `program` with this process's words and the one that makes it a worker.
    pub(super) fn start(program: &Path, start: Start, held: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let (line, far) = Line::new()?;
        let (pulse, its_pulse) = UnixStream::pair()?;
        pulse.set_nonblocking(true)?;
        let given: Vec<BorrowedFd<'_>> =
            [its_pulse.as_fd()].into_iter().chain(held.iter().copied()).collect();
        line.say(&Word::Start(start), &given)?;
        let words = env::args_os().skip(1);
        let child = Command::new(program).args(words).arg("--kept").stdin(far).spawn()?;
        Ok(Self { child, line, pulse, pulse_is_closed: Cell::new(false), since: boot_time() })
    }

    /// Asks whether it is there.
    pub(super) fn ask(&self) -> io::Result<()> {
        (&self.pulse).write_all(&[0])
    }

    /// Where its answer shows.
    pub(super) fn pulse(&self) -> Option<BorrowedFd<'_>> {
        (!self.pulse_is_closed.get()).then(|| self.pulse.as_fd())
    }

    /// Takes its answer; whether there is one.
    pub(super) fn answers(&self) -> bool {
        let read = (&self.pulse).read(&mut [0; 8]);
        self.pulse_is_closed.set(!matches!(&read, Ok(1..)));
        read.is_ok_and(|count| count > 0)
    }

    /// Passes on the connection of a VMM.
    pub(super) fn hand(&self, vmm: &OwnedFd) -> io::Result<()> {
        self.line.say(&Word::Vmm, &[vmm.as_fd()])
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && let Err(error) = kill_process(pid, signal)
        {
            log::warn!("the worker was not told: {error}");
        }
    }

    /// Ends it at once and says how it ended, of which its own end comes first.
    pub(super) fn end(mut self) -> io::Result<ExitStatus> {
        drop(self.line);
        let end = boot_time().after_ms(FAREWELL_MS);
        while boot_time() < end {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.child.kill()?;
        self.child.wait()
    }
}
