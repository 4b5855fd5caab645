//! One connection to the control socket: a message in, a message out, never a wait.
//!
//! Knows how much of a message is there. Never knows what it asks.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use event_manager::EventSet;
use fw_control::message::{self, LEN_MAX, PREFIX};
use fw_control::{Reply, Request};

/// Longer than any request but rules.
const SHORT_MAX: usize = 64 << 10;
/// Bytes taken per turn, so that the others get theirs.
const TURN: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    sent: usize,
    age_s: u32,
    /// What the connection is handed to once its answer is out.
    successor: Option<Request>,
}

#[derive(Debug)]
pub(super) enum Progress {
    Goes,
    Over,
    /// The request was answered, and the connection is its now.
    HandedOver(Request),
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, inbox: Vec::new(), outbox: Vec::new(), sent: 0, age_s: 0, successor: None }
    }

    /// Says why, as far as that is possible at once.
    pub(super) fn turn_away(mut stream: &UnixStream, why: &str) {
        if let Ok(bytes) = message::encode(&Reply::Refused(why.to_owned())) {
            let _ = stream.write(&bytes);
        }
    }

    pub(super) const fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// A connection reads or writes, never both.
    pub(super) const fn interest(&self) -> EventSet {
        if self.outbox.is_empty() { EventSet::IN } else { EventSet::OUT }
    }

    /// Whether a long message is coming in.
    pub(super) fn is_long(&self) -> bool {
        message::announced(&self.inbox).is_some_and(|length| length > SHORT_MAX)
    }

    /// One second older; says how many since the last whole message.
    pub(super) const fn grow_older(&mut self) -> u32 {
        self.age_s = self.age_s.saturating_add(1);
        self.age_s
    }

    /// Takes one turn of reading or writing. While another connection brings a long message, this one may not.
    pub(super) fn advance(&mut self, others_long: bool, answer: impl FnOnce(Request) -> Reply) -> Progress {
        let went = if self.outbox.is_empty() { self.read(others_long, answer) } else { self.write() };
        match went {
            Ok(progress) => progress,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Progress::Goes
            }
            Err(_) => Progress::Over,
        }
    }

    fn read(&mut self, others_long: bool, answer: impl FnOnce(Request) -> Reply) -> io::Result<Progress> {
        let wanted = match message::announced(&self.inbox) {
            None => PREFIX - self.inbox.len(),
            Some(length) => (PREFIX + length).saturating_sub(self.inbox.len()).min(TURN),
        };
        let taken = (&self.stream).take(wanted as u64).read_to_end(&mut self.inbox);
        match taken {
            Ok(count) if count < wanted => return Ok(Progress::Over),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let Some(length) = message::announced(&self.inbox) else { return Ok(Progress::Goes) };
        if length > LEN_MAX {
            return self.refuse(&format!("a message may have {LEN_MAX} bytes"));
        }
        if length > SHORT_MAX && others_long {
            return self.refuse("other rules are being installed just now; try again");
        }
        if self.inbox.len() < PREFIX + length {
            return Ok(Progress::Goes);
        }
        let request: Result<Request, String> = message::decode(self.inbox.get(PREFIX..).unwrap_or_default());
        self.inbox = Vec::new();
        let successor = request.as_ref().ok().filter(|request| request.takes_connection()).cloned();
        let reply = request.map_or_else(Reply::Refused, answer);
        self.successor = successor.filter(|_| matches!(reply, Reply::Done));
        self.outbox = message::encode(&reply)?;
        self.age_s = 0;
        self.write()
    }

    fn refuse(&self, why: &str) -> io::Result<Progress> {
        Self::turn_away(&self.stream, why);
        Ok(Progress::Over)
    }

    fn write(&mut self) -> io::Result<Progress> {
        let rest = self.outbox.get(self.sent..).unwrap_or_default();
        self.sent += (&self.stream).write(rest.get(..TURN).unwrap_or(rest))?;
        if self.sent >= self.outbox.len() {
            self.outbox = Vec::new();
            self.sent = 0;
            self.age_s = 0;
            if let Some(successor) = self.successor.take() {
                return Ok(Progress::HandedOver(successor));
            }
        }
        Ok(Progress::Goes)
    }
}
