//! The end of a control socket that asks.
//!
//! Knows a socket and patience. Never knows what is asked.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::message;
use crate::{Reply, Request};

/// A way to a NIC.
#[derive(Debug)]
pub struct Line {
    stream: UnixStream,
}

impl Line {
    /// Opens the way to the NIC whose control socket is at `path`. An answer is waited for as long as `patience`.
    ///
    /// # Errors
    /// Nobody listens there, or not to us.
    pub fn open(path: &Path, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self { stream })
    }

    /// Asks, and waits for the answer; a refusal is one.
    ///
    /// # Errors
    /// The NIC went away, lost patience, or speaks another version.
    pub fn ask(&mut self, request: &Request) -> io::Result<Reply> {
        message::exchange(&mut self.stream, request)
    }

    /// The socket itself, for what follows a request that hands it over.
    #[must_use]
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }
}
