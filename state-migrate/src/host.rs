//! The NICs of this host, by their control sockets.
//!
//! Knows where a control socket is and who answers there. Never knows what a NIC does about a request.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fw_control::{Line, Reply, Request, Terms};
use fw_model::{NicId, Stats};

/// A NIC answers at once; one that exports a million conns takes a moment.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why a NIC did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// Nobody answers, or not to us.
    #[error("{0}: {1}; is the NIC up, and are you its user or root?")]
    Unreachable(PathBuf, #[source] io::Error),
    /// It said no.
    #[error("NIC {0} refuses: {1}")]
    Refused(String, String),
    /// It answered another question.
    #[error("NIC {0} gave an answer that belongs to another question")]
    Other(String),
}

/// One NIC of this host.
#[derive(Debug, Clone)]
pub struct Nic {
    name: String,
    control: PathBuf,
}

impl Nic {
    /// The NIC `id` whose folder is in `run_dir`.
    #[must_use]
    pub fn of(run_dir: &Path, id: &NicId) -> Self {
        Self { name: id.to_string(), control: run_dir.join(id.as_str()).join("control.sock") }
    }

    /// The NIC that answers at `control`.
    #[must_use]
    pub fn at(control: PathBuf) -> Self {
        Self { name: control.display().to_string(), control }
    }

    /// Asks; a refusal is an answer.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn ask(&self, request: &Request) -> Result<Reply, NicError> {
        self.open(request).map(|(_, reply)| reply)
    }

    /// Tells it to do something.
    ///
    /// # Errors
    /// Nobody answers, or it refuses.
    pub fn tell(&self, request: &Request) -> Result<(), NicError> {
        done(&self.name, self.ask(request)?)
    }

    /// What it can hand over and take.
    ///
    /// # Errors
    /// Nobody answers, or it refuses: it has no key.
    pub fn terms(&self) -> Result<Terms, NicError> {
        terms(&self.name, self.ask(&Request::Terms)?)
    }

    /// The connection on which a handover goes on.
    ///
    /// # Errors
    /// Nobody answers, or it refuses.
    pub fn hand_over(&self, request: &Request) -> Result<UnixStream, NicError> {
        let (line, reply) = self.open(request)?;
        done(&self.name, reply)?;
        Ok(line.into_stream())
    }

    fn open(&self, request: &Request) -> Result<(Line, Reply), NicError> {
        let unreachable = |error| NicError::Unreachable(self.control.clone(), error);
        let mut line = Line::open(&self.control, PATIENCE).map_err(unreachable)?;
        let reply = line.ask(request).map_err(unreachable)?;
        Ok((line, reply))
    }
}

/// That a NIC has done it.
pub(crate) fn done(name: &str, reply: Reply) -> Result<(), NicError> {
    if matches!(reply, Reply::Done) { Ok(()) } else { Err(otherwise(name, reply)) }
}

/// A NIC's terms.
pub(crate) fn terms(name: &str, reply: Reply) -> Result<Terms, NicError> {
    if let Reply::Terms(terms) = reply { Ok(*terms) } else { Err(otherwise(name, reply)) }
}

/// What a NIC counts.
pub(crate) fn stats(name: &str, reply: Reply) -> Result<Stats, NicError> {
    if let Reply::Stats(stats) = reply { Ok(*stats) } else { Err(otherwise(name, reply)) }
}

/// An answer that was not hoped for.
fn otherwise(name: &str, reply: Reply) -> NicError {
    let name = name.to_owned();
    if let Reply::Refused(why) = reply { NicError::Refused(name, why) } else { NicError::Other(name) }
}
