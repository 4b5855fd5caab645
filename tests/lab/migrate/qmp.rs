//! Orders for a running QEMU (QMP: one JSON value a line).
//!
//! It may know the protocol and the commands that move a VM. It must never know why one moves.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::monitor::Left;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a VM may take to move.
const MOVE_PATIENCE: Duration = Duration::from_secs(180);

/// A line to one QEMU.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    lines: BufReader<UnixStream>,
    /// When the VM last stopped or ran on, in microseconds of the wall clock: events.
    stopped_us: Option<u64>,
    resumed_us: Option<u64>,
}

impl Qmp {
    /// Connects, once QEMU listens.
    ///
    /// # Errors
    /// It does not listen, or speaks otherwise.
    pub(super) fn connect(path: &Path) -> Result<Self> {
        let end = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > end => return Err(error).context("QEMU's monitor"),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        let lines = BufReader::new(stream.try_clone()?);
        let mut qmp = Self { stream, lines, stopped_us: None, resumed_us: None };
        qmp.line()?.get("QMP").context("no greeting")?;
        qmp.run("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command; what it returns.
    ///
    /// # Errors
    /// QEMU refuses, or does not answer.
    pub(super) fn run(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let order = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream, "{order}")?;
        loop {
            let mut line = self.line()?;
            if let Some(error) = line.get("error") {
                bail!("{command}: {error}");
            }
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            bail!("QEMU closed its monitor");
        }
        let line: Value = serde_json::from_str(&line)?;
        match line.get("event").and_then(Value::as_str) {
            Some("STOP") => self.stopped_us = when(&line),
            Some("RESUME") => self.resumed_us = when(&line),
            Some(_) | None => {}
        }
        Ok(line)
    }

    /// Moves the VM to the QEMU that waits at `to`, and returns when it has left.
    ///
    /// # Errors
    /// The migration fails: the error is QEMU's.
    pub(super) fn migrate(&mut self, to: &Path) -> Result<Left> {
        self.run("migrate-set-parameters", json!({"downtime-limit": 300, "max-bandwidth": 1_u64 << 40}))?;
        self.run("migrate", json!({"uri": format!("unix:{}", to.display())}))?;
        self.left()
    }

    /// Returns when a VM that is being moved has left.
    ///
    /// # Errors
    /// The migration fails: the error is QEMU's.
    pub(super) fn left(&mut self) -> Result<Left> {
        let end = Instant::now() + MOVE_PATIENCE;
        while Instant::now() < end {
            let status = self.run("query-migrate", json!({}))?;
            match status.get("status").and_then(Value::as_str) {
                Some("completed") => {
                    let downtime = status.get("downtime").and_then(Value::as_u64);
                    let stopped_us = self.stopped_us.context("it moved without stopping")?;
                    return Ok(Left { stopped_us, downtime_ms: Some(downtime.context("no downtime")?) });
                }
                Some("failed" | "cancelled") => bail!("the migration failed: {status}"),
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
        bail!("the migration did not end within {MOVE_PATIENCE:?}")
    }

    /// Whether the VM runs here.
    pub(super) fn is_running(&mut self) -> bool {
        let status = self.run("query-status", json!({}));
        status.is_ok_and(|status| status.get("status").and_then(Value::as_str) == Some("running"))
    }

    /// Whether the VM is on its way from here.
    pub(super) fn is_sending(&mut self) -> bool {
        let status = self.run("query-migrate", json!({}));
        let word = status.ok().and_then(|status| Some(status.get("status")?.as_str()?.to_owned()));
        word.is_some_and(|word| !["none", "failed", "cancelled", "completed"].contains(&word.as_str()))
    }

    /// Lets its memory go at so many bytes per second.
    ///
    /// # Errors
    /// QEMU refuses.
    pub(super) fn slow_down(&mut self, bytes_per_s: u64) -> Result<()> {
        self.run("migrate-set-parameters", json!({"max-bandwidth": bytes_per_s})).map(drop)
    }

    /// Waits until the VM runs here; since when, in microseconds of the wall clock.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn wait_running(&mut self) -> Result<u64> {
        let end = Instant::now() + MOVE_PATIENCE;
        while Instant::now() < end {
            self.run("query-status", json!({}))?;
            if let Some(resumed_us) = self.resumed_us {
                return Ok(resumed_us);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("the VM does not run at its new host")
    }
}

/// An event's time in microseconds.
fn when(event: &Value) -> Option<u64> {
    let part = |name: &str| event.pointer(name).and_then(Value::as_u64);
    Some(part("/timestamp/seconds")? * 1_000_000 + part("/timestamp/microseconds")?)
}
