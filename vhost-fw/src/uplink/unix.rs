//! Records on a socket that is listened on: an uplink without privileges.
//!
//! Knows one peer at a time; while there is none, frames find no room. Never knows what a record says. One record is
//! a 12-byte virtio-net header and a frame. An empty record means the same as a peer that left, since the kernel
//! tells both alike. The socket is 0600; a stale one is replaced, a living one is not.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::queue::memory::Slice;
use fw_engine::{GuestOffloads, Permit, VnetHeader};
use rustix::event::epoll;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use super::pair::read_record;
use super::vectored::{Spare, write_record};
use super::{MTU_DEFAULT, PEER_GONE, Sent, Uplink, UplinkError, outcome, permitted};

/// Bytes that may wait for a slow peer; the kernel may grant less. A record of 64 KiB fits many times.
const SEND_BUFFER: usize = 1 << 20;

/// Peers that may come and go within one call before the next wake-up must see to them.
const PEERS_PER_CALL: usize = 4;

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// A listening socket and its peer of the moment.
#[derive(Debug)]
pub struct Unix {
    /// Holds the peer, or the listener while there is none, so that the worker watches one descriptor for ever.
    watch: OwnedFd,
    listener: OwnedFd,
    peer: Option<OwnedFd>,
    mtu: u16,
    spare: Spare,
}

impl Unix {
    /// Listens on `path`, with this MTU, else 1500.
    ///
    /// # Errors
    /// See [`UplinkError`].
    pub fn listen(path: &Path, mtu: Option<u16>) -> Result<Self, UplinkError> {
        Self::on(Self::bind(path)?, path, mtu)
    }

    /// The listening socket at `path`.
    pub(super) fn bind(path: &Path) -> Result<OwnedFd, UplinkError> {
        let step = |step| {
            move |error: Errno| UplinkError::Socket { path: path.to_owned(), step, source: error.into() }
        };
        make_way(path)?;
        let listener = socket().map_err(step("making the socket"))?;
        let address = SocketAddrUnix::new(path).map_err(step("reading the path"))?;
        rustix::net::bind(&listener, &address).map_err(step("binding"))?;
        // Nobody connects between here and `listen`.
        rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR).map_err(step("making it private"))?;
        rustix::net::listen(&listener, 1).map_err(step("listening"))?;
        Ok(listener)
    }

    /// As [`Unix::listen`], on a socket that listens already.
    pub(super) fn on(listener: OwnedFd, path: &Path, mtu: Option<u16>) -> Result<Self, UplinkError> {
        let step = |step| {
            move |error: Errno| UplinkError::Socket { path: path.to_owned(), step, source: error.into() }
        };
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(step("making the epoll"))?;
        watch_also(&watch, &listener).map_err(step("watching it"))?;
        let mtu = mtu.unwrap_or(MTU_DEFAULT);
        Ok(Self { watch, listener, peer: None, mtu, spare: Spare::new() })
    }

    pub(super) fn write(&mut self, record: &[u8], tail: &[Slice<'_>]) -> io::Result<Sent> {
        let Some(peer) = &self.peer else { return Ok(Sent::Full) };
        match outcome(write_record(peer.as_fd(), record, tail, &mut self.spare), PEER_GONE) {
            Ok(sent) => Ok(sent),
            // Another peer may come; until then there is no room.
            Err(_) => {
                self.let_go()?;
                Ok(Sent::Full)
            }
        }
    }

    /// Takes the next peer, if one waits.
    fn welcome(&mut self) -> io::Result<bool> {
        let peer = match rustix::net::accept_with(&self.listener, FLAGS) {
            Ok(peer) => peer,
            // It gave up, or there is no descriptor to spare: the next wake-up tries again.
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR | Errno::MFILE | Errno::NFILE) => {
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        // A second peer waits in the backlog and must not wake the worker over and over.
        epoll::delete(&self.watch, &self.listener)?;
        watch_also(&self.watch, &peer)?;
        self.peer = Some(peer);
        Ok(true)
    }

    fn let_go(&mut self) -> io::Result<()> {
        if let Some(peer) = self.peer.take() {
            epoll::delete(&self.watch, &peer)?;
            watch_also(&self.watch, &self.listener)?;
        }
        Ok(())
    }
}

impl Uplink for Unix {
    fn readable_fd(&self) -> Option<RawFd> {
        Some(self.watch.as_raw_fd())
    }

    fn send(&mut self, permit: Permit, record: &mut [u8], tail: &[Slice<'_>]) -> io::Result<Sent> {
        match permitted(&permit, record, tail) {
            Some(record) => self.write(record, tail),
            None => Ok(Sent::Refused),
        }
    }

    /// A record shorter than its header is filled up with zeros: a frame of no bytes, which is judged as such.
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        for _ in 0..PEERS_PER_CALL {
            let Some(peer) = &self.peer else {
                if self.welcome()? {
                    continue;
                }
                return Ok(None);
            };
            match read_record(peer, buffer) {
                Ok(0) | Err(Errno::CONNRESET | Errno::NOTCONN) => self.let_go()?,
                Ok(length) => {
                    if let Some(missing) = buffer.get_mut(length..VnetHeader::LEN) {
                        missing.fill(0);
                    }
                    return Ok(Some(length.max(VnetHeader::LEN)));
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn set_offloads(&mut self, _offloads: GuestOffloads) -> io::Result<()> {
        Ok(())
    }
}

fn socket() -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    // Peers inherit it from the listener.
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
    Ok(socket)
}

fn watch_also(watch: &OwnedFd, fd: &OwnedFd) -> Result<(), Errno> {
    epoll::add(watch, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
}

/// Removes a socket nobody listens on any more.
fn make_way(path: &Path) -> Result<(), UplinkError> {
    let step = |step| move |source| UplinkError::Socket { path: path.to_owned(), step, source };
    let kind = match std::fs::symlink_metadata(path) {
        Ok(there) => there.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(step("looking at the path")(error)),
    };
    if !kind.is_socket() {
        return Err(UplinkError::NotASocket(path.to_owned()));
    }
    let errno = |step_name| move |error: Errno| step(step_name)(error.into());
    let probe = socket().map_err(errno("making the socket"))?;
    let address = SocketAddrUnix::new(path).map_err(errno("reading the path"))?;
    match rustix::net::connect(&probe, &address) {
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(step("removing the stale socket")),
        // Connected, full, or of another type: somebody is there.
        Ok(()) | Err(_) => Err(UplinkError::SocketInUse(path.to_owned())),
    }
}
