//! A guest played by hand whose kernel is a namespace's: frames go between its rings and a tap there.
//!
//! Its VMM connects again as Cloud Hypervisor does, every 100 ms. It may know rings and a tap. It must never know what
//! the frames say.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::device::PLAIN;
use crate::guest::{Descriptor, FRAMES, Guest, RX, TX, Vmm};
use crate::tap::Tap;

/// Frames under way to the device at most.
const SLOTS: u16 = 256;
/// Room of each, and of each receive buffer: nothing is segmented for this guest.
const ROOM: u32 = 2048;
/// Checksums, segmentation and ECN towards the guest: a tap takes finished frames.
const WITHOUT: &[u32] = &[1, 7, 8, 9];
/// From one try to connect to the next.
const RETRY: Duration = Duration::from_millis(100);
/// After so long Cloud Hypervisor gives a NIC up.
const GIVE_UP: Duration = Duration::from_secs(60);
/// The longest sleep: somebody may have said stop.
const NAP_MS: i32 = 50;

/// The running guest.
#[derive(Debug)]
pub(super) struct Pump {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Pump {
    /// Boots it behind the backend that listens at `socket`.
    pub(super) fn start(socket: PathBuf, tap: Tap) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let mut guest = Guest::boot(&socket, Vmm::CloudHypervisor, WITHOUT).map_err(told)?;
        guest.post_buffers(SLOTS, ROOM).map_err(told)?;
        let thread = thread::spawn(move || {
            let mut moving = Moving::new(guest, tap)?;
            while !stopped.load(Ordering::Relaxed) {
                moving.round(&socket, &stopped)?;
            }
            Ok(())
        });
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether it still runs; why not.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.thread.take_if(|thread| thread.is_finished()) {
            Some(thread) => thread.join().unwrap_or_else(|_| bail!("the guest's thread died")),
            None if self.thread.is_none() => bail!("the guest has ended"),
            None => Ok(()),
        }
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Moving {
    guest: Guest,
    tap: Tap,
    /// Descriptors of the transmit ring that nobody has.
    free: Vec<u16>,
    ears: Ears,
}

/// What it sleeps on: with a free descriptor also the tap.
struct Ears {
    with_tap: Epoll,
    without: Epoll,
}

/// Marks the connection to the backend; everything else is found by looking around.
const BACKEND: u64 = 1;

impl Ears {
    fn new(guest: &Guest, tap: &Tap) -> io::Result<Self> {
        let ears = Self { with_tap: Epoll::new()?, without: Epoll::new()? };
        for epoll in [&ears.with_tap, &ears.without] {
            let gone = EpollEvent::new(EventSet::HANG_UP | EventSet::READ_HANG_UP, BACKEND);
            epoll.ctl(ControlOperation::Add, guest.frontend.as_raw_fd(), gone)?;
            for index in [RX, TX] {
                let called = guest.ring(index).call.as_raw_fd();
                epoll.ctl(ControlOperation::Add, called, EpollEvent::new(EventSet::IN, 0))?;
            }
        }
        let readable = EpollEvent::new(EventSet::IN, 0);
        ears.with_tap.ctl(ControlOperation::Add, tap.as_fd().as_raw_fd(), readable)?;
        Ok(ears)
    }
}

impl Moving {
    fn new(guest: Guest, tap: Tap) -> Result<Self> {
        let ears = Ears::new(&guest, &tap)?;
        Ok(Self { guest, tap, free: (0..SLOTS).collect(), ears })
    }

    fn round(&mut self, socket: &Path, stop: &AtomicBool) -> Result<()> {
        let epoll = if self.free.is_empty() { &self.ears.without } else { &self.ears.with_tap };
        let mut events = [EpollEvent::default(); 4];
        let count = epoll.wait(NAP_MS, &mut events)?;
        if events.iter().take(count).any(|event| event.data() == BACKEND) {
            return self.connect(socket, stop);
        }
        for index in [RX, TX] {
            // Empty is what it should be.
            let _ = self.guest.ring(index).call.read();
        }
        for (id, _) in self.guest.take_used(TX).map_err(told)? {
            self.free.push(u16::try_from(id)?);
        }
        self.send()?;
        for (_, frame) in self.guest.received(ROOM).map_err(told)? {
            // What its kernel has no room for is lost, as anywhere.
            let _ = self.tap.send(&frame);
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        let mut sent = false;
        while let Some(id) = self.free.last().copied() {
            let Some(frame) = self.tap.receive()? else { break };
            let bytes = [&PLAIN[..], &frame].concat();
            let address = FRAMES + u64::from(ROOM) * u64::from(id);
            self.guest.memory.write_slice(&bytes, GuestAddress(address))?;
            let length = u32::try_from(bytes.len())?;
            self.guest.describe(id, Descriptor { address, length, flags: 0, next: 0 }).map_err(told)?;
            self.guest.post(TX, id).map_err(told)?;
            self.free.pop();
            sent = true;
        }
        if sent { self.guest.kick(TX).map_err(told) } else { Ok(()) }
    }

    /// As Cloud Hypervisor does when its backend is gone.
    fn connect(&mut self, socket: &Path, stop: &AtomicBool) -> Result<()> {
        let end = Instant::now() + GIVE_UP;
        while let Err(why) = self.guest.try_reconnect(socket) {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("the backend does not come back: {why}");
            }
            thread::sleep(RETRY);
        }
        self.ears = Ears::new(&self.guest, &self.tap)?;
        Ok(())
    }
}

fn told(why: Box<dyn std::error::Error>) -> anyhow::Error {
    anyhow!("{why}")
}
