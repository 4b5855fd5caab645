//! Orders for a running Cloud Hypervisor: HTTP on its API socket, and what its event monitor tells.
//!
//! It may know the calls that move a VM. It must never know why one moves.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::monitor::Left;

/// How long the API may take to be there.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a guest may take to move; a nested one is slow.
const MOVE_PATIENCE: Duration = Duration::from_secs(400);
/// From one look at the events to the next: they carry no clock that two VMMs share.
const LOOK: Duration = Duration::from_millis(1);

/// A line to one Cloud Hypervisor.
#[derive(Debug)]
pub(super) struct Api {
    socket: PathBuf,
    events: PathBuf,
    arriving: Option<JoinHandle<Result<()>>>,
}

impl Api {
    /// Waits until Cloud Hypervisor listens.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn connect(socket: &Path, events: PathBuf) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        while let Err(error) = UnixStream::connect(socket) {
            ensure!(Instant::now() < end, "Cloud Hypervisor's API at {}: {error}", socket.display());
            thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { socket: socket.to_owned(), events, arriving: None })
    }

    /// Lets it wait for a guest at `door`; returns once it does.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn receive(&mut self, door: &Path) -> Result<()> {
        let body = json!({"receiver_url": format!("unix:{}", door.display())});
        let socket = self.socket.clone();
        // The call ends when the guest has arrived.
        self.arriving = Some(thread::spawn(move || put(&socket, "vm.receive-migration", &body)));
        self.wait_for("migration-receive-ready", PATIENCE).map(drop)
    }

    /// Sends the guest to the one that waits at `to`, and returns when it has been paused for good.
    ///
    /// # Errors
    /// It refuses.
    pub(super) fn migrate(&mut self, to: &Path) -> Result<Left> {
        let destination = format!("unix:{}", to.display());
        let body = json!({"destination_url": destination, "timeout_s": 120, "timeout_strategy": "Ignore"});
        put(&self.socket, "vm.send-migration", &body)?;
        self.left()
    }

    /// Returns when a guest that is being moved has been paused for good.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn left(&mut self) -> Result<Left> {
        Ok(Left { stopped_us: self.wait_for("paused", MOVE_PATIENCE)?, downtime_ms: None })
    }

    /// Whether the guest runs here.
    pub(super) fn is_running(&self) -> bool {
        fs::read_to_string(&self.events).is_ok_and(|told| {
            let last = |word: &str| told.rfind(&format!("\"{word}\""));
            last("resumed").max(last("booted")) > last("paused")
        })
    }

    /// Waits until the guest runs here; since when, in microseconds of the wall clock.
    ///
    /// # Errors
    /// It does not arrive.
    pub(super) fn wait_running(&mut self) -> Result<u64> {
        let resumed_us = loop {
            let ended = self.arriving.as_ref().is_none_or(JoinHandle::is_finished);
            match self.wait_for("resumed", Duration::from_millis(100)) {
                Ok(resumed_us) => break resumed_us,
                // The call ended without the guest, and says why.
                Err(error) if ended => return self.arrived().and(Err(error)),
                Err(_) => {}
            }
        };
        self.arrived().map(|()| resumed_us)
    }

    /// Takes the answer of the call that waited for the guest.
    fn arrived(&mut self) -> Result<()> {
        let arriving = self.arriving.take().context("no guest was to arrive here")?;
        arriving.join().or_else(|_| bail!("the thread that waited for the guest died"))?
    }

    /// When an event was told first, in microseconds of the wall clock.
    fn wait_for(&self, event: &str, patience: Duration) -> Result<u64> {
        let end = Instant::now() + patience;
        let word = format!("\"{event}\"");
        while !fs::read_to_string(&self.events).is_ok_and(|told| told.contains(&word)) {
            ensure!(Instant::now() < end, "Cloud Hypervisor does not tell `{event}` within {patience:?}");
            thread::sleep(LOOK);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
    }
}

/// One call; it is done when this returns.
fn put(socket: &Path, call: &str, body: &Value) -> Result<()> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.set_read_timeout(Some(MOVE_PATIENCE))?;
    let body = body.to_string();
    write!(
        stream,
        "PUT /api/v1/{call} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut lines = BufReader::new(stream);
    let mut status = String::new();
    lines.read_line(&mut status).with_context(|| format!("{call}: no answer"))?;
    if status.split_whitespace().nth(1).is_some_and(|code| code.starts_with('2')) {
        return Ok(());
    }
    let mut why = vec![0; 2048];
    let length = lines.read(&mut why).unwrap_or(0);
    bail!("{call}: {} {}", status.trim(), String::from_utf8_lossy(why.get(..length).unwrap_or_default()))
}
