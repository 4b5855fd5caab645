//! Frames that must never come through, sent without rest, and a door at which the guest must never appear.
//!
//! It may know raw sockets and which of the guest's ports are open. It must never judge whether a frame came through:
//! the guest counts what its kernel got.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, TcpListener};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{self, AddressFamily, SendFlags, SocketFlags, SocketType, ipproto};

use crate::wire::{self, End, Segment};

/// Source ports of frames that must never arrive.
pub(crate) const MARKED: RangeInclusive<u16> = 600..=699;
/// The source port of one frame that must: it shows that the guest counts.
pub(crate) const WITNESS: u16 = 700;
/// A port of the guest with a service behind it that no rule allows.
pub(crate) const CLOSED: u16 = 22;
/// A port of ours that no rule allows the guest to open.
pub(crate) const FORBIDDEN: u16 = 9999;

/// Bytes of a frame that a raw IPv4 socket does not take.
const ETHERNET: usize = 14;
/// From one frame to the next.
const PACE: Duration = Duration::from_millis(3);

/// What is on its way all the time.
#[derive(Debug)]
pub(crate) struct Denied {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    doorman: JoinHandle<Result<u64>>,
}

/// What became of it, as far as this end can tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tried {
    /// Frames sent to the guest.
    pub(crate) sent: u64,
    /// Conns that the guest opened although it must not.
    pub(crate) opened: u64,
}

impl Denied {
    /// Starts; `open` is a TCP port of the guest that the rules allow.
    ///
    /// # Errors
    /// No raw socket, or the door is taken.
    pub(crate) fn start(us: Ipv4Addr, guest: Ipv4Addr, open: u16) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let socket = raw().context("a raw socket")?;
        let door = TcpListener::bind((us, FORBIDDEN)).context("the forbidden door")?;
        door.set_nonblocking(true)?;
        let (send, watch) = (Arc::clone(&stop), Arc::clone(&stop));
        Ok(Self {
            stop,
            sender: thread::spawn(move || send_all(&socket, us, guest, open, &send)),
            doorman: thread::spawn(move || count_guests(&door, &watch)),
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// It could not send or listen.
    pub(crate) fn end(self) -> Result<Tried> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap_or_else(|_| bail!("the denied frames' thread died"))?;
        let opened = self.doorman.join().unwrap_or_else(|_| bail!("the forbidden door's thread died"))?;
        Ok(Tried { sent, opened })
    }
}

/// A socket that takes whole IPv4 packets.
fn raw() -> Result<OwnedFd> {
    Ok(net::socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW))?)
}

fn send_all(socket: &OwnedFd, us: Ipv4Addr, guest: Ipv4Addr, open: u16, stop: &AtomicBool) -> Result<u64> {
    let to = SocketAddrV4::new(guest, 0);
    let mut sent = 0;
    let rounds = MARKED.cycle().flat_map(|port| packets(us, port, guest, open));
    for packet in rounds.take_while(|_| !stop.load(Ordering::Relaxed)) {
        // Sending fails while nobody answers for the guest's address: then nothing came through either.
        sent += u64::from(net::sendto(socket, &packet, SendFlags::empty(), &to).is_ok());
        thread::sleep(PACE);
    }
    Ok(sent)
}

/// A first frame and a datagram for a closed port, and what would belong to a conn that nobody opened: data, the answer
/// to a first frame, an end, a reset.
fn packets(us: Ipv4Addr, port: u16, guest: Ipv4Addr, open: u16) -> Vec<Vec<u8>> {
    let from = End { mac: [0; 6], ip: IpAddr::V4(us), port };
    let to = |port| End { mac: [0; 6], ip: IpAddr::V4(guest), port };
    let (sequence, acknowledged) = (u32::from(port) << 16, 0x1234_5678);
    let late = Segment::ack(sequence, acknowledged);
    let strangers = [
        Segment { payload: 32, ..late },
        Segment { syn: true, ..late },
        Segment { fin: true, ..late },
        Segment { rst: true, ..late },
    ];
    let mut frames = vec![
        wire::tcp(&from, &to(CLOSED), &Segment::syn(sequence)),
        wire::udp(&from, &to(CLOSED), b"nobody may hear this"),
    ];
    frames.extend(strangers.iter().map(|segment| wire::tcp(&from, &to(open), segment)));
    frames.into_iter().map(|frame| frame.get(ETHERNET..).unwrap_or_default().to_vec()).collect()
}

fn count_guests(door: &TcpListener, stop: &AtomicBool) -> Result<u64> {
    let mut opened = 0;
    while !stop.load(Ordering::Relaxed) {
        match door.accept() {
            Ok(_) => opened += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PACE),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(opened)
}
