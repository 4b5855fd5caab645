//! The other end of the guest's conns: opens some, is opened others, and finds out which of them live.
//!
//! It may know sockets. It must never know where the guest is.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a conn may take to answer after a move: retransmissions back off.
const PATIENCE: Duration = Duration::from_secs(20);
/// From one stamp to the next.
const STAMP: Duration = Duration::from_millis(2);

/// Conns that were established and must live.
#[derive(Debug, Default)]
pub(super) struct Conns(Vec<TcpStream>);

impl Conns {
    /// Opens `count` conns to an echo service.
    ///
    /// # Errors
    /// One cannot be opened.
    pub(super) fn open(&mut self, service: SocketAddr, count: usize) -> Result<()> {
        for number in 0..count {
            let stream = TcpStream::connect_timeout(&service, PATIENCE);
            let stream = stream.with_context(|| format!("conn {number} to {service}"))?;
            self.add(stream)?;
        }
        Ok(())
    }

    /// Takes `count` conns that the guest opens.
    ///
    /// # Errors
    /// They do not come.
    pub(super) fn accept(&mut self, listener: &TcpListener, count: usize) -> Result<()> {
        for _ in 0..count {
            let (stream, _) = listener.accept()?;
            self.add(stream)?;
        }
        Ok(())
    }

    fn add(&mut self, stream: TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        self.0.push(stream);
        Ok(())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Exchanges a word on every `stride`-th conn; how many of those do not answer in time.
    pub(super) fn silent(&mut self, stride: usize) -> usize {
        let end = Instant::now() + PATIENCE;
        let mut asked: Vec<(&mut TcpStream, bool)> = self
            .0
            .iter_mut()
            .step_by(stride)
            .map(|stream| {
                let sent = stream.write_all(b"still here\n").is_ok();
                (stream, sent)
            })
            .collect();
        asked.iter_mut().filter_map(|(stream, sent)| (!*sent || !answers(stream, end)).then_some(())).count()
    }
}

fn answers(stream: &mut TcpStream, end: Instant) -> bool {
    let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let mut back = [0; 11];
    stream.set_read_timeout(Some(left)).is_ok()
        && stream.read_exact(&mut back).is_ok()
        && &back == b"still here\n"
}

/// Traffic that never rests while the guest moves.
#[derive(Debug)]
pub(super) struct Busy {
    stop: Arc<AtomicBool>,
    denied_passed: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
    stamps: Option<JoinHandle<Result<Vec<u64>>>>,
}

/// What busy traffic met.
#[derive(Debug, Clone)]
pub(super) struct Met {
    /// What should have been refused and was not.
    pub(super) denied_passed: u64,
    /// The longest silence of the guest between two answers, in microseconds.
    pub(super) blackout_us: u64,
}

impl Busy {
    /// Starts a bulk transfer and stamps to services that are allowed, and tries at services that are not.
    ///
    /// # Errors
    /// The allowed ones cannot be reached.
    pub(super) fn start(bulk: SocketAddr, stamps: SocketAddr, denied: SocketAddr) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let denied_passed = Arc::new(AtomicU64::new(0));
        let stream = TcpStream::connect_timeout(&bulk, PATIENCE).context("the bulk transfer")?;
        let mut threads = Vec::new();
        {
            let stop = Arc::clone(&stop);
            threads.push(thread::spawn(move || transfer(stream, &stop)));
        }
        {
            let (stop, passed) = (Arc::clone(&stop), Arc::clone(&denied_passed));
            threads.push(thread::spawn(move || try_tcp(denied, &stop, &passed)));
        }
        {
            let (stop, passed) = (Arc::clone(&stop), Arc::clone(&denied_passed));
            threads.push(thread::spawn(move || try_udp(denied, &stop, &passed)));
        }
        let stamping = {
            let stop = Arc::clone(&stop);
            thread::spawn(move || stamp(stamps, &stop))
        };
        Ok(Self { stop, denied_passed, threads, stamps: Some(stamping) })
    }

    /// Ends it; what it met.
    ///
    /// # Errors
    /// The bulk transfer broke, or no stamp came back.
    pub(super) fn end(mut self) -> Result<Met> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap_or_else(|_| bail!("a peer's thread died"))?;
        }
        let stamps = self.stamps.take().context("no stamps")?;
        let mut gaps = stamps.join().unwrap_or_else(|_| bail!("the stamps' thread died"))?;
        gaps.sort_unstable();
        let blackout_us = gaps.last().copied().context("no stamp came back")?;
        Ok(Met { denied_passed: self.denied_passed.load(Ordering::Relaxed), blackout_us })
    }
}

/// Sends bytes through an echo and compares what comes back.
fn transfer(mut stream: TcpStream, stop: &AtomicBool) -> Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let sent: Vec<u8> = (0..16 * 1024_u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let mut back = vec![0; sent.len()];
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&sent).context("the bulk transfer stands")?;
        stream.read_exact(&mut back).context("the bulk transfer stands")?;
        if back != sent {
            bail!("the bulk transfer brought back other bytes");
        }
    }
    Ok(())
}

fn try_tcp(denied: SocketAddr, stop: &AtomicBool, passed: &AtomicU64) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        // A reset too would mean that the guest was reached: the rules drop.
        match TcpStream::connect_timeout(&denied, Duration::from_millis(50)) {
            Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {}
            Err(error) if matches!(error.kind(), ErrorKind::HostUnreachable) => {}
            Ok(_) | Err(_) => {
                passed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

fn try_udp(denied: SocketAddr, stop: &AtomicBool, passed: &AtomicU64) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(denied)?;
    socket.set_read_timeout(Some(Duration::from_millis(10)))?;
    while !stop.load(Ordering::Relaxed) {
        let _ = socket.send(b"nobody may hear this");
        if socket.recv(&mut [0; 64]).is_ok() {
            passed.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Sends a datagram every few milliseconds; the times between answers, in microseconds.
fn stamp(service: SocketAddr, stop: &Arc<AtomicBool>) -> Result<Vec<u64>> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(service)?;
    let sender = {
        let (socket, stop) = (socket.try_clone()?, Arc::clone(stop));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = socket.send(b"tick");
                thread::sleep(STAMP);
            }
        })
    };
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut gaps = Vec::new();
    let mut last: Option<Instant> = None;
    while !stop.load(Ordering::Relaxed) {
        if socket.recv(&mut [0; 64]).is_ok() {
            let now = Instant::now();
            if let Some(last) = last.replace(now) {
                gaps.push(u64::try_from((now - last).as_micros()).unwrap_or(u64::MAX));
            }
        }
    }
    let _ = sender.join();
    Ok(gaps)
}
