//! Cloud Hypervisor's API: HTTP/1.1 on a Unix socket.
//!
//! A call that moves a VM lasts as long as the move, so it has a thread of its own. Knows the calls (Cloud Hypervisor's
//! docs/api.md and docs/live_migration.md). Never knows why a VM moves.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Sending, VmState, VmmError};

/// How long a question may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first version that moves a VM with its backends' state and stays usable.
const MAJOR_MIN: u64 = 53;
/// The longest answer that is read, in bytes.
const ANSWER_MAX: u64 = 16 << 20;
/// How long a VMM that waits for a VM takes to listen: it does not say when it does.
const LISTENS: Duration = Duration::from_millis(700);

type Call = Receiver<Result<(), String>>;

/// A Cloud Hypervisor that takes orders.
#[derive(Debug)]
pub struct CloudHypervisor {
    name: String,
    socket: PathBuf,
    major: u64,
    /// The call that sends the VM, until it has ended.
    sends: Option<Call>,
    /// The call that waits for a VM.
    waits: Option<Call>,
}

impl CloudHypervisor {
    pub(super) fn open(path: &Path) -> Result<Self, VmmError> {
        let name = format!("Cloud Hypervisor at {}", path.display());
        let mut api = Self { name, socket: path.to_owned(), major: 0, sends: None, waits: None };
        let ping = api.get("vmm.ping")?;
        let version = ping.get("version").and_then(Value::as_str).unwrap_or_default();
        let major = version.trim_start_matches('v').split('.').next().and_then(|major| major.parse().ok());
        api.major = major.ok_or_else(|| api.error(&format!("`{version}` is no version")))?;
        Ok(api)
    }

    pub(super) fn require_movable(&self) -> Result<(), VmmError> {
        if self.major < MAJOR_MIN {
            let old = format!("version {}: a VM moves with its conns from {MAJOR_MIN} on", self.major);
            return Err(self.error(&old));
        }
        match self.state()? {
            VmState::Running | VmState::Paused => Ok(()),
            VmState::None | VmState::Arriving => Err(self.error("it has no VM that could move")),
        }
    }

    pub(super) fn state(&self) -> Result<VmState, VmmError> {
        let info = self.get("vm.info");
        let waits = self.waits.is_some();
        match info {
            Ok(info) => Ok(match info.get("state").and_then(Value::as_str) {
                Some("Running") => VmState::Running,
                _ => VmState::Paused,
            }),
            // It answers, and has no VM.
            Err(_) if self.get("vmm.ping").is_ok() => {
                Ok(if waits { VmState::Arriving } else { VmState::None })
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn send(&mut self, uri: &str) -> Result<(), VmmError> {
        self.sends = Some(self.begin("vm.send-migration", json!({"destination_url": uri}))?);
        Ok(())
    }

    pub(super) fn sending(&mut self) -> Result<Sending, VmmError> {
        let ended = self.sends.as_ref().map(Receiver::try_recv);
        Ok(match ended {
            Some(Err(TryRecvError::Empty)) => Sending::Goes("memory is sent".to_owned()),
            Some(Ok(Ok(()))) => Sending::Left(None),
            Some(Ok(Err(cause))) => Sending::Failed(cause),
            Some(Err(TryRecvError::Disconnected)) | None => {
                Sending::Failed("nothing is being sent".to_owned())
            }
        })
    }

    pub(super) fn run_on(&self) -> Result<(), VmmError> {
        match self.state()? {
            VmState::Running => Ok(()),
            VmState::Paused => self.put("vm.resume", None).map_err(|cause| self.error(&cause)),
            VmState::None | VmState::Arriving => Err(self.error("its VM is gone")),
        }
    }

    pub(super) fn receive(&mut self, uri: &str) -> Result<(), VmmError> {
        let waits = self.begin("vm.receive-migration", json!({"receiver_url": uri}))?;
        match waits.recv_timeout(LISTENS) {
            Ok(Err(cause)) => Err(self.error(&cause)),
            Ok(Ok(())) | Err(_) => {
                self.waits = Some(waits);
                Ok(())
            }
        }
    }

    fn begin(&self, call: &'static str, body: Value) -> Result<Call, VmmError> {
        let (ended, end) = channel();
        let socket = self.socket.clone();
        let work = move || {
            // Nobody may wait any more.
            let _ = ended.send(ask(&socket, "PUT", call, Some(&body), None).map(drop));
        };
        let spawned = thread::Builder::new().name(call.to_owned()).spawn(work);
        spawned.map_err(|error| self.error(&error.to_string()))?;
        Ok(end)
    }

    fn get(&self, call: &str) -> Result<Value, VmmError> {
        let body =
            ask(&self.socket, "GET", call, None, Some(PATIENCE)).map_err(|cause| self.error(&cause))?;
        serde_json::from_slice(&body).map_err(|error| self.error(&format!("{call}: {error}")))
    }

    fn put(&self, call: &str, body: Option<&Value>) -> Result<(), String> {
        ask(&self.socket, "PUT", call, body, Some(PATIENCE)).map(drop)
    }

    fn error(&self, cause: &str) -> VmmError {
        VmmError::new(&self.name, cause)
    }
}

/// One call: its answer's body, or what went wrong in words.
fn ask(
    socket: &Path,
    method: &str,
    call: &str,
    body: Option<&Value>,
    patience: Option<Duration>,
) -> Result<Vec<u8>, String> {
    let wrong = |error: std::io::Error| format!("{call}: {error}");
    let mut stream = UnixStream::connect(socket).map_err(wrong)?;
    stream.set_read_timeout(patience).map_err(wrong)?;
    let body = body.map(Value::to_string).unwrap_or_default();
    let length = body.len();
    write!(
        stream,
        "{method} /api/v1/{call} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .map_err(wrong)?;
    let (status, body) = answer(&mut stream).map_err(wrong)?;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    let told = String::from_utf8_lossy(&body);
    Err(format!("{call}: status {status}: {}", told.trim()))
}

/// An answer's status and body.
fn answer(stream: &mut impl Read) -> std::io::Result<(u16, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut input = stream.take(ANSWER_MAX);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut headers);
        let parsed = response.parse(&bytes).map_err(std::io::Error::other)?;
        if let httparse::Status::Complete(start) = parsed {
            let status = response.code.unwrap_or(0);
            let length =
                response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
            let length =
                length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
            let mut body = bytes.split_off(start);
            let length = length.unwrap_or(0_usize);
            body.truncate(length);
            let missing = u64::try_from(length - body.len()).unwrap_or(u64::MAX);
            (&mut input).take(missing).read_to_end(&mut body)?;
            return Ok((status, body));
        }
        let mut part = [0; 4096];
        match input.read(&mut part)? {
            0 => return Err(std::io::Error::other("the answer ends within its headers")),
            length => bytes.extend_from_slice(part.get(..length).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_to_its_length_and_no_further() {
        let mut bytes: &[u8] = b"HTTP/1.1 200 OK\r\nContent-length: 3\r\nServer: x\r\n\r\n{ }and more";
        assert_eq!(answer(&mut bytes).unwrap(), (200, b"{ }".to_vec()));
        let mut bytes: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
        assert_eq!(answer(&mut bytes).unwrap(), (204, Vec::new()));
        let mut bytes: &[u8] = b"HTTP/1.1 200 OK\r\nContent-len";
        assert!(answer(&mut bytes).is_err());
    }
}
