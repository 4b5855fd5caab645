//! QEMU's monitor: QMP, one JSON value a line.
//!
//! Knows the protocol and the commands that move a VM (QEMU's QMP reference, `migrate` and `query-migrate`). Never knows
//! why one moves.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Sending, VmState, VmmError};

/// How long an answer may take: a monitor waits while the VM's state is written.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first version whose migration stream carries a backend's state.
const MAJOR_MIN: u64 = 10;
/// The longest line that is read, in bytes.
const LINE_MAX: u64 = 1 << 20;

/// A QEMU that takes orders.
#[derive(Debug)]
pub struct Qemu {
    name: String,
    stream: UnixStream,
    lines: BufReader<UnixStream>,
    major: u64,
}

impl Qemu {
    pub(super) fn open(path: &Path) -> Result<Self, VmmError> {
        let name = format!("QEMU at {}", path.display());
        let wrong = |error: std::io::Error| VmmError::new(&name, error);
        let stream = UnixStream::connect(path).map_err(wrong)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(wrong)?;
        let lines = BufReader::new(stream.try_clone().map_err(wrong)?);
        let mut qemu = Self { name: name.clone(), stream, lines, major: 0 };
        let greeting = qemu.line()?;
        let major = greeting.pointer("/QMP/version/qemu/major").and_then(Value::as_u64);
        qemu.major = major.ok_or_else(|| qemu.error("no greeting: is this a QMP socket?"))?;
        qemu.run("qmp_capabilities", &json!({}))?;
        Ok(qemu)
    }

    pub(super) fn require_movable(&mut self) -> Result<(), VmmError> {
        if self.major < MAJOR_MIN {
            let old = format!("version {}: a VM moves with its conns from {MAJOR_MIN} on", self.major);
            return Err(self.error(&old));
        }
        match self.state()? {
            VmState::Running | VmState::Paused => {}
            VmState::None | VmState::Arriving => return Err(self.error("it has no VM that could move")),
        }
        let blocked = self.run("query-migrate", &json!({}))?;
        let reasons = blocked.get("blocked-reasons").and_then(Value::as_array);
        let reasons: Vec<&str> = reasons.into_iter().flatten().filter_map(Value::as_str).collect();
        if reasons.is_empty() {
            Ok(())
        } else {
            Err(self.error(&format!("the VM cannot move: {}", reasons.join("; "))))
        }
    }

    pub(super) fn state(&mut self) -> Result<VmState, VmmError> {
        let status = self.run("query-status", &json!({}))?;
        Ok(match status.get("status").and_then(Value::as_str).unwrap_or_default() {
            "running" => VmState::Running,
            "inmigrate" => VmState::Arriving,
            "postmigrate" | "shutdown" => VmState::None,
            _ => VmState::Paused,
        })
    }

    /// With a return path the target says whether it took everything; else a VM whose state is refused runs nowhere.
    pub(super) fn send(&mut self, uri: &str) -> Result<(), VmmError> {
        let return_path = json!([{"capability": "return-path", "state": true}]);
        self.run("migrate-set-capabilities", &json!({"capabilities": return_path}))?;
        self.run("migrate", &json!({"uri": uri})).map(drop)
    }

    pub(super) fn sending(&mut self) -> Result<Sending, VmmError> {
        let said = self.run("query-migrate", &json!({}))?;
        let number = |place: &str| said.pointer(place).and_then(Value::as_u64);
        Ok(match said.get("status").and_then(Value::as_str) {
            Some("completed") => Sending::Left(number("/downtime")),
            Some(status @ ("failed" | "cancelled")) => {
                let cause = said.get("error-desc").and_then(Value::as_str).unwrap_or("no cause is told");
                Sending::Failed(format!("{status}: {cause}"))
            }
            status => {
                let (total, left) = (number("/ram/total"), number("/ram/remaining"));
                let done =
                    total.zip(left).map(|(total, left)| 100 * total.saturating_sub(left) / total.max(1));
                let done = done.map_or_else(String::new, |percent| format!(" {percent} % of memory"));
                Sending::Goes(format!("{}{done}", status.unwrap_or("begins")))
            }
        })
    }

    pub(super) fn cancel(&mut self) -> Result<(), VmmError> {
        self.run("migrate_cancel", &json!({})).map(drop)
    }

    pub(super) fn run_on(&mut self) -> Result<(), VmmError> {
        let status = self.run("query-status", &json!({}))?;
        match status.get("status").and_then(Value::as_str) {
            Some("running") => Ok(()),
            _ => self.run("cont", &json!({})).map(drop),
        }
    }

    pub(super) fn receive(&mut self, uri: &str) -> Result<(), VmmError> {
        self.run("migrate-incoming", &json!({"uri": uri})).map(drop)
    }

    pub(super) fn quit(&mut self) -> Result<(), VmmError> {
        self.run("quit", &json!({})).map(drop)
    }

    /// Runs a command; what it returns. Events in between are others' business.
    fn run(&mut self, command: &str, arguments: &Value) -> Result<Value, VmmError> {
        let order = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream, "{order}").map_err(|error| self.error(&error.to_string()))?;
        loop {
            let mut line = self.line()?;
            if let Some(error) = line.get("error") {
                let told = error.get("desc").and_then(Value::as_str).unwrap_or("no cause is told");
                return Err(self.error(&format!("{command}: {told}")));
            }
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }

    fn line(&mut self) -> Result<Value, VmmError> {
        use std::io::Read as _;
        let mut line = String::new();
        let read = (&mut self.lines).take(LINE_MAX).read_line(&mut line);
        match read {
            Ok(0) => Err(self.error("it closed its monitor")),
            Ok(_) => serde_json::from_str(&line).map_err(|error| self.error(&error.to_string())),
            Err(error) => Err(self.error(&error.to_string())),
        }
    }

    fn error(&self, cause: &str) -> VmmError {
        VmmError::new(&self.name, cause)
    }
}
