//! A pulse: a question every millisecond, and the longest silence between two answers on our own clock.
//!
//! It may know sockets and echo requests. It must never know what happens to the guest.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Type};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

/// From one question to the next.
const BEAT: Duration = Duration::from_millis(1);
/// How long a listener sleeps at most before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(50);

/// What a question is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// An ICMP echo request with this identifier.
    Echo(u16),
    /// A datagram.
    Datagram,
}

/// Questions under way.
#[derive(Debug)]
pub(crate) struct Pulse {
    stop: Arc<AtomicBool>,
    asking: JoinHandle<u64>,
    hearing: JoinHandle<Vec<Instant>>,
}

/// What was heard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard {
    /// Questions asked.
    pub(crate) asked: u64,
    /// Answers to them.
    pub(crate) answered: usize,
    /// The longest silence between two answers.
    pub(crate) silence: Duration,
    /// How long there was none at the end.
    pub(crate) since_last: Duration,
}

impl Heard {
    /// Whether answers came up to the end.
    pub(crate) fn is_alive(&self) -> bool {
        self.answered > 0 && self.since_last < Duration::from_secs(1)
    }
}

impl Pulse {
    /// Asks by ICMP echo.
    ///
    /// # Errors
    /// No raw socket.
    pub(crate) fn ping(guest: Ipv4Addr, identifier: u16) -> Result<Self> {
        let kind = (SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::ICMP));
        let socket = net::socket_with(AddressFamily::INET, kind.0, kind.1, kind.2).context("a raw socket")?;
        net::connect(&socket, &SocketAddrV4::new(guest, 0))?;
        Self::start(socket, Question::Echo(identifier))
    }

    /// Asks on a conn of datagrams that the guest opened.
    ///
    /// # Errors
    /// The socket is not usable.
    pub(crate) fn datagrams(conn: &UdpSocket) -> Result<Self> {
        Self::start(conn.try_clone()?.into(), Question::Datagram)
    }

    fn start(socket: OwnedFd, question: Question) -> Result<Self> {
        set_socket_timeout(&socket, Timeout::Recv, Some(NAP))?;
        let socket = Arc::new(socket);
        let stop = Arc::new(AtomicBool::new(false));
        let (ask_on, ask_until) = (Arc::clone(&socket), Arc::clone(&stop));
        let hear_until = Arc::clone(&stop);
        Ok(Self {
            stop,
            asking: thread::spawn(move || ask(&ask_on, question, &ask_until)),
            hearing: thread::spawn(move || hear(&socket, question, &hear_until)),
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// A thread died.
    pub(crate) fn end(self) -> Result<Heard> {
        self.stop.store(true, Ordering::Relaxed);
        let end = Instant::now();
        let asked = self.asking.join().or_else(|_| bail!("the asking thread died"))?;
        let answers = self.hearing.join().or_else(|_| bail!("the hearing thread died"))?;
        let silences = answers.windows(2).filter_map(|pair| match pair {
            [before, after] => Some(after.duration_since(*before)),
            _ => None,
        });
        Ok(Heard {
            asked,
            answered: answers.len(),
            silence: silences.max().unwrap_or_default(),
            since_last: answers.last().map_or(Duration::MAX, |last| end.saturating_duration_since(*last)),
        })
    }
}

/// Asks until told to stop; how often.
fn ask(socket: &OwnedFd, question: Question, stop: &AtomicBool) -> u64 {
    let mut asked = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        // An unreachable guest is a silence, not an error.
        let _ = net::send(socket, &words(question, asked), SendFlags::empty());
        asked += 1;
        thread::sleep(BEAT);
    }
    asked
}

fn words(question: Question, number: u64) -> Vec<u8> {
    let text = number.to_be_bytes();
    let Question::Echo(id) = question else { return text.to_vec() };
    let [.., high, low] = text;
    let echo = IcmpEchoHeader { id, seq: u16::from_be_bytes([high, low]) };
    let header = Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &text);
    [header.to_bytes().as_slice(), text.as_slice()].concat()
}

/// Listens until told to stop; when answers came.
fn hear(socket: &OwnedFd, question: Question, stop: &AtomicBool) -> Vec<Instant> {
    let mut answers = Vec::new();
    let mut packet = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        let Ok((length, _)) = net::recv(socket, &mut packet[..], RecvFlags::empty()).map_err(io::Error::from)
        else {
            continue;
        };
        if is_answer(question, packet.get(..length).unwrap_or_default()) {
            answers.push(Instant::now());
        }
    }
    answers
}

fn is_answer(question: Question, packet: &[u8]) -> bool {
    let Question::Echo(id) = question else { return packet.len() == 8 };
    // A raw socket hears whole packets, and of all echoes.
    let header = packet.first().map_or(0, |first| usize::from(first & 15) * 4);
    let Some(Ok((read, _))) = packet.get(header..).map(Icmpv4Header::from_slice) else { return false };
    matches!(read.icmp_type, Icmpv4Type::EchoReply(echo) if echo.id == id)
}
