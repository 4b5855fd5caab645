//! Programs the laboratory starts, each with its log.
//!
//! A process dies with its owner unless it is let go on purpose. It may know a child and its files. It must never
//! end a process that it did not start.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A child with its log; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with its output in `folder/name.log`.
    ///
    /// # Errors
    /// The program cannot be run or the log cannot be written.
    pub fn start(name: &str, command: &mut Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self { child: Some(child), name: name.to_owned(), log })
    }

    /// Its process id; 0 once it is gone.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its exit code, waiting up to `patience`; `None` if it still runs or died by a signal.
    pub fn exit_code(&mut self, patience: Duration) -> Option<i32> {
        let end = Instant::now() + patience;
        loop {
            let status = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            if status.is_some() || Instant::now() > end {
                return status.and_then(|status| status.code());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it at once (SIGKILL): what it leaves behind is what a crash leaves behind.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Lets it live on after its owner.
    pub fn let_go(mut self) -> u32 {
        self.child.take().map_or(0, |child| child.id())
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }

    /// Waits until `ready` says so.
    ///
    /// # Errors
    /// The process ends or `patience` runs out first; the error shows the end of its log.
    pub fn wait_until(&mut self, patience: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + patience;
        while !ready() {
            if !self.is_alive() {
                bail!("{} ended; the last lines of {}:\n{}", self.name, self.log.display(), self.log_tail());
            }
            if Instant::now() > end {
                bail!("{} is not ready after {patience:?}; its last lines:\n{}", self.name, self.log_tail());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// It cannot be run, or does not end well: the error shows what it said.
pub fn run(program: &str, words: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
