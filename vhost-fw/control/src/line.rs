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

    /// Waits for one more answer, where a request has two.
    ///
    /// # Errors
    /// As [`Line::ask`].
    pub fn hear(&mut self) -> io::Result<Reply> {
        match message::receive(&mut self.stream, message::LEN_MAX)? {
            Some(reply) => reply.map_err(io::Error::other),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The socket itself, for what follows a request that hands it over.
    #[must_use]
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }
}
