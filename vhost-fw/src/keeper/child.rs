//! The worker as its keeper sees it: a process at the other end of a line.
//!
//! Knows how one is started and how it ends. Never knows what it judges.

use std::env;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
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
    pub(super) since: Tick,
}

impl Worker {
    /// Starts `program` with this process's words and the one that makes it a worker.
    pub(super) fn start(program: &Path, start: Start, held: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let (line, far) = Line::new()?;
        line.say(&Word::Start(start), held)?;
        let words = env::args_os().skip(1);
        let child = Command::new(program).args(words).arg("--kept").stdin(far).spawn()?;
        Ok(Self { child, line, since: boot_time() })
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
