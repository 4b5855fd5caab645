//! What the process gives up once everything is open.
//!
//! Privileges and the file system go for the whole process, system calls thread by thread. Knows paths, users and
//! the kernel's features. Never knows a frame, a rule or the guest.
//!
//! The order is: open everything; [`Sandbox::prepare`] while there is one thread; spawn threads, each of which calls
//! what [`Sandbox::data_thread`] gave it first; [`Sandbox::enter_control_thread`] before serving. Filters hold for the
//! calling thread and those it spawns later; a data thread spawned by a confined control thread has both.

mod landlock;
mod privileges;
mod seccomp;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use fw_model::NicId;

pub use privileges::{RunAs, own_uid, user_of};
pub use seccomp::data_thread_calls;

/// What to do where the kernel lacks a feature of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Do not start.
    Refuse,
    /// Start without it, and show it ([`Sandbox::degraded`]).
    Allow,
}

/// A part of the sandbox that is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Degraded {
    /// The process keeps the uid it was started with, by the operator's choice.
    UidKept,
    /// The process keeps the uid it was started with: the user namespace has no other.
    UidUnmapped,
    /// The file system is open as far as the uid allows.
    Landlock,
    /// The file system is closed, but the kernel lacks newer parts (TCP ports, device ioctls, signals).
    LandlockPartly,
    /// No system call is refused.
    Seccomp,
}

impl fmt::Display for Degraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UidKept => "uid-kept",
            Self::UidUnmapped => "uid-unmapped",
            Self::Landlock => "landlock",
            Self::LandlockPartly => "landlock-partly",
            Self::Seccomp => "seccomp",
        })
    }
}

/// Why the sandbox does not close.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SandboxError {
    /// There are threads that would keep what this one gives up.
    #[error("the sandbox must close while the process has one thread, and it has {0}")]
    Threads(usize),
    /// The kernel lacks a feature.
    #[error("this system lacks {0}; mend that, or allow to start without it")]
    Missing(&'static str),
    /// A folder that must stay reachable cannot be opened.
    #[error("{} cannot be kept reachable in the sandbox: {reason}; does it exist?", path.display())]
    Path {
        /// The folder.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The kernel refused a step.
    #[error("closing the sandbox, {step}: {source}")]
    Step {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The filter could not be made.
    #[error("making the system call filter: {0}")]
    Filter(String),
}

/// What the process still needs.
#[derive(Debug)]
pub struct Plan<'a> {
    /// The NIC; its own uid is derived from it.
    pub nic: &'a NicId,
    /// Who to be from now on.
    pub run_as: RunAs,
    /// What to do about missing kernel features.
    pub missing: Missing,
    /// The rules file: its folder stays readable, so that a file put in its place is found on reload.
    pub rules: Option<&'a Path>,
    /// Folders in which files may be read, written, made and removed: state, and those of own sockets.
    pub writable: &'a [&'a Path],
    /// Files, sockets and folders that the new user must own: own sockets and their folder, the state folder.
    pub hand_over: &'a [&'a Path],
    /// Whether the control thread connects to a socket (`--client`).
    pub connects: bool,
    /// Whether the uplink accepts connections ([`crate::uplink::UplinkChoice::listens`]).
    pub uplink_listens: bool,
    /// Most open descriptors.
    pub open_files: u64,
    /// The program it starts again and again, if any; sockets may be made in its `writable` folders then.
    pub starts: Option<&'a Path>,
}

/// A sandbox that is closed as far as the whole process goes, with the filters for its threads.
#[derive(Debug, Clone)]
pub struct Sandbox {
    filters: Option<seccomp::Filters>,
    degraded: Vec<Degraded>,
}

impl Sandbox {
    /// Gives up privileges and the file system, for good, and makes the filters.
    ///
    /// # Errors
    /// See [`SandboxError`]; the process is then neither what it was nor confined and must end.
    pub fn prepare(plan: &Plan<'_>) -> Result<Self, SandboxError> {
        require_one_thread()?;
        let mut degraded = Vec::new();
        degraded.extend(privileges::drop_all(plan)?);
        warn_if_unreadable(plan.rules);
        degraded.extend(landlock::close(plan)?);
        let filters = seccomp::Filters::new(plan)?;
        let filters = if seccomp::is_available() {
            Some(filters)
        } else {
            degraded.push(lacking(
                plan.missing,
                "seccomp filters (CONFIG_SECCOMP_FILTER)",
                Degraded::Seccomp,
            )?);
            None
        };
        Ok(Self { filters, degraded })
    }

    /// What is not in force, for metrics and logs.
    #[must_use]
    pub fn degraded(&self) -> &[Degraded] {
        &self.degraded
    }

    /// Confines the calling thread and those it spawns from now on to what serving needs.
    ///
    /// # Errors
    /// The kernel refused the filter.
    pub fn enter_control_thread(&self) -> io::Result<()> {
        self.filters.as_ref().map_or(Ok(()), seccomp::Filters::enter_control)
    }

    /// Confines a keeper, and every worker that it starts from now on, to what both need. A worker's own filters close
    /// within this one.
    ///
    /// # Errors
    /// The kernel refused the filter.
    pub fn enter_keeper(&self) -> io::Result<()> {
        self.filters.as_ref().map_or(Ok(()), seccomp::Filters::enter_keeper)
    }

    /// What a data thread calls first. It also closes what the control thread may still reach of the file system.
    #[must_use]
    pub fn data_thread(&self) -> Box<dyn FnOnce() -> io::Result<()> + Send> {
        let filters = self.filters.clone();
        Box::new(move || {
            // The standard library draws each thread's hash keys on first use; afterwards it could not.
            let _keys = std::hash::RandomState::new();
            landlock::close_all()?;
            filters.as_ref().map_or(Ok(()), seccomp::Filters::enter_data)
        })
    }
}

/// `degraded` if it may be missing.
fn lacking(missing: Missing, what: &'static str, degraded: Degraded) -> Result<Degraded, SandboxError> {
    match missing {
        Missing::Refuse => Err(SandboxError::Missing(what)),
        Missing::Allow => Ok(degraded),
    }
}

/// Capabilities, uids and Landlock belong to threads: another thread would keep them all.
fn require_one_thread() -> Result<(), SandboxError> {
    let tasks = std::fs::read_dir("/proc/self/task")
        .map_err(|source| SandboxError::Step { step: "counting threads in /proc/self/task", source })?;
    match tasks.count() {
        1 => Ok(()),
        count => Err(SandboxError::Threads(count)),
    }
}

fn warn_if_unreadable(rules: Option<&Path>) {
    if let Some(rules) = rules
        && let Err(error) = std::fs::File::open(rules)
    {
        log::warn!(
            "{}: {error} for the user this process now is; a reload (SIGHUP) will fail until it may read it",
            rules.display()
        );
    }
}
