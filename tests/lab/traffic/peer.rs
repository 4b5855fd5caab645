//! The other end of the guest's conns: opens some, is opened others, and finds out which of them live.
//!
//! It may know sockets. It must never know where the guest is.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long a conn may take to be opened.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// From one look at conns that have not answered to the next.
const LOOK: Duration = Duration::from_millis(2);

/// Conns that were established and must live, each to somebody who echoes.
#[derive(Debug)]
pub(crate) struct Conns {
    streams: Vec<TcpStream>,
    round: u64,
    patience: Duration,
}

impl Conns {
    /// None yet; they will have this long to answer.
    pub(crate) fn new(patience: Duration) -> Self {
        Self { streams: Vec::new(), round: 0, patience }
    }

    /// Opens `count` conns to an echo service.
    ///
    /// # Errors
    /// One cannot be opened.
    pub(crate) fn open(&mut self, service: SocketAddr, count: usize) -> Result<()> {
        for number in 0..count {
            let stream = TcpStream::connect_timeout(&service, PATIENCE);
            self.add(stream.with_context(|| format!("conn {number} to {service}"))?)?;
        }
        Ok(())
    }

    /// Takes `count` conns that the guest opens.
    ///
    /// # Errors
    /// They do not come in time.
    pub(crate) fn accept(&mut self, listener: &TcpListener, count: usize) -> Result<()> {
        listener.set_nonblocking(true)?;
        let mut end = Instant::now() + PATIENCE;
        let wanted = self.streams.len() + count;
        while self.streams.len() < wanted {
            match listener.accept() {
                Ok((stream, _)) => {
                    self.add(stream)?;
                    end = Instant::now() + PATIENCE;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                    thread::sleep(LOOK);
                }
                Err(error) => return Err(error).with_context(|| format!("conn {} of the guest", self.len())),
            }
        }
        Ok(())
    }

    fn add(&mut self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.streams.push(stream);
        Ok(())
    }

    /// How many are alive as far as is known.
    pub(crate) fn len(&self) -> usize {
        self.streams.len()
    }

    /// All of them, leaving none.
    pub(crate) fn take(&mut self) -> Self {
        Self { streams: std::mem::take(&mut self.streams), ..*self }
    }

    /// Parts with every `stride`-th of them.
    pub(crate) fn part(&mut self, stride: usize) -> Self {
        let all = std::mem::take(&mut self.streams).into_iter().enumerate();
        let (taken, left): (Vec<_>, Vec<_>) = all.partition(|(at, _)| at % stride == 0);
        self.streams = left.into_iter().map(|(_, stream)| stream).collect();
        let streams = taken.into_iter().map(|(_, stream)| stream).collect();
        Self { streams, ..*self }
    }

    /// Sends a word of its own on every conn and waits for its echo; those that do not answer are lost, counted and let
    /// go.
    pub(crate) fn exchange(&mut self) -> usize {
        let before = self.streams.len();
        self.round += 1;
        let word = self.round.to_be_bytes();
        let asked = std::mem::take(&mut self.streams).into_iter().filter_map(|mut stream| {
            let sent = stream.write_all(&word).is_ok();
            sent.then_some(Asked { stream, back: Vec::with_capacity(word.len()) })
        });
        let mut asked: Vec<Asked> = asked.collect();
        let end = Instant::now() + self.patience;
        while !asked.is_empty() && Instant::now() < end {
            let mut waiting = Vec::new();
            for mut one in asked {
                match one.listen(&word) {
                    Some(true) => self.streams.push(one.stream),
                    Some(false) => {}
                    None => waiting.push(one),
                }
            }
            asked = waiting;
            thread::sleep(LOOK);
        }
        before - self.streams.len()
    }
}

/// A conn that has not answered yet.
#[derive(Debug)]
struct Asked {
    stream: TcpStream,
    back: Vec<u8>,
}

impl Asked {
    /// Whether it answered with this word; nothing if it still may.
    fn listen(&mut self, word: &[u8]) -> Option<bool> {
        let mut part = [0; 16];
        match self.stream.read(&mut part) {
            Ok(0) => Some(false),
            Ok(length) => {
                self.back.extend_from_slice(part.get(..length).unwrap_or_default());
                (self.back.len() >= word.len()).then(|| self.back == word)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(_) => Some(false),
        }
    }
}
