//! The vhost-user socket: one VMM at a time, one fresh daemon for each connection.
//!
//! Listens (or connects, as a client), hands each connection's rings to the data thread and takes them back. What a
//! VMM says can end its own connection and nothing else. Knows sockets and the library's daemon. Never knows frames.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use vhost::vhost_user::Error as VhostUserError;
use vhost_user_backend::{Error as DaemonError, ShutdownHandle, VhostUserDaemon};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::backend::Backend;
use crate::device::{Device, End};
use crate::keeper::line::{Line, Word};
use crate::queue::memory::{CurrentMemory, Memory};
use crate::vring::{Ring, with_rings};
use crate::worker::Rings;

mod doorway;
pub(crate) mod message;
mod socket;

pub use doorway::{Doorway, door_of};
pub use socket::Socket;
pub(crate) use socket::first_to_close;

/// How long a client waits before it tries again, in milliseconds: as Cloud Hypervisor does.
const RETRY_MS: i32 = 100;

/// Where the VMM is.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// Listen here. A second VMM waits in the backlog until the first one is gone.
    Listen(PathBuf),
    /// Connect to a VMM that listens here, again and again.
    Client(PathBuf),
}

/// Why serving ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The uplink is gone for good: the process ends with code 75.
    #[error("the uplink is gone: {0}")]
    UplinkGone(#[source] io::Error),
    /// The data thread ended without being told to.
    #[error("the data thread ended")]
    WorkerGone,
    /// Another process listens on the socket.
    #[error("{0}: another process listens here")]
    InUse(PathBuf),
    /// Something else than a socket stands there.
    #[error("{0}: exists and is no socket")]
    NoSocket(PathBuf),
    /// The socket could not be made.
    #[error("{path}: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Waiting failed, or a daemon could not be made.
    #[error("cannot serve: {0}")]
    Io(#[from] io::Error),
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woken {
    Stop,
    End,
    Other,
    Timeout,
}

/// Who does what a keeper says beside passing on VMMs.
pub(crate) trait Hear {
    /// Obeys a word.
    ///
    /// # Errors
    /// The keeper cannot be told what became of it.
    fn heard(&mut self, word: &Word, descriptors: Vec<OwnedFd>) -> io::Result<()>;
}

type Daemon = VhostUserDaemon<Arc<Backend>>;

impl Device {
    /// Serves VMMs on the calling thread until `stop` is written. The doorway stands beside the endpoint's socket.
    ///
    /// # Errors
    /// The uplink is gone, or there can be no socket. What a VMM does is no error.
    pub fn serve(&self, endpoint: &Endpoint, stop: &EventFd) -> Result<(), ServeError> {
        match endpoint {
            Endpoint::Listen(path) => self.serve_on(Socket::bind(path)?, Doorway::beside(path)?, stop),
            Endpoint::Client(path) => self.serve_at(path, Doorway::beside(path)?, stop),
        }
    }

    /// As [`Device::serve`], on a socket that was bound before the sandbox closed.
    ///
    /// # Errors
    /// As [`Device::serve`].
    pub fn serve_on(&self, mut socket: Socket, mut door: Doorway, stop: &EventFd) -> Result<(), ServeError> {
        let waiter = self.waiter(stop)?;
        waiter.add(socket.listener().as_raw_fd(), Woken::Other)?;
        loop {
            match waiter.wait(-1)? {
                Woken::Stop => return Ok(()),
                Woken::End => return Err(self.ended()),
                Woken::Timeout => {}
                Woken::Other => match socket.listener().accept() {
                    Ok(Some(vmm)) => self.attend(&vmm, &mut door, stop)?,
                    Ok(None) => {}
                    Err(error) => log::warn!("no connection came about: {error}"),
                },
            }
        }
    }

    /// As [`Device::serve`], as the client of a VMM that listens at `path`.
    ///
    /// # Errors
    /// As [`Device::serve`].
    pub fn serve_at(&self, path: &Path, mut door: Doorway, stop: &EventFd) -> Result<(), ServeError> {
        let waiter = self.waiter(stop)?;
        loop {
            match UnixStream::connect(path) {
                Ok(vmm) => self.attend(&vmm, &mut door, stop)?,
                Err(error) => log::debug!("{}: {error}; trying again", path.display()),
            }
            match waiter.wait(RETRY_MS)? {
                Woken::Stop => return Ok(()),
                Woken::End => return Err(self.ended()),
                Woken::Other | Woken::Timeout => {}
            }
        }
    }

    /// As [`Device::serve`], of the VMMs whose connections a keeper passes on, until the keeper is gone.
    pub(crate) fn serve_kept(
        &self,
        line: &Line,
        succession: &mut dyn Hear,
        mut door: Doorway,
        stop: &EventFd,
    ) -> Result<(), ServeError> {
        let waiter = self.waiter(stop)?;
        waiter.add(line.as_raw_fd(), Woken::Other)?;
        loop {
            match waiter.wait(-1)? {
                Woken::Stop => return Ok(()),
                Woken::End => return Err(self.ended()),
                Woken::Timeout => {}
                Woken::Other => match line.receive()? {
                    Some((Word::Vmm, descriptors)) => {
                        for vmm in descriptors {
                            self.attend(&UnixStream::from(vmm), &mut door, stop)?;
                        }
                    }
                    Some((word, descriptors)) => succession.heard(&word, descriptors)?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// A daemon for one connection, with memory and rings of its own.
    fn daemon(&self) -> Result<(Daemon, Vec<Ring>), ServeError> {
        let memory = CurrentMemory::new(Memory::new());
        let (daemon, rings) = with_rings(self.backend.plug(), || {
            VhostUserDaemon::new("vhost-user".to_owned(), Arc::clone(&self.backend), memory)
        });
        Ok((daemon.map_err(|error| io::Error::other(error.to_string()))?, rings))
    }

    /// Serves one connection until it ends, or `stop` or the data thread's end makes it.
    fn attend(&self, vmm: &UnixStream, door: &mut Doorway, stop: &EventFd) -> Result<(), ServeError> {
        let (mut daemon, rings) = self.daemon()?;
        let (listener, library) = door.lead_in()?;
        if let Err(error) = daemon.start(listener) {
            log::warn!("no connection came about: {error}");
            return Ok(());
        }
        log::info!("a VMM is connected");
        if let [inward, outward] = rings.as_slice() {
            let rings = Rings { inward: inward.clone(), outward: outward.clone() };
            // If the data thread has ended, the watch below finds out at once.
            let _ = self.worker.attach(rings);
        }
        let over = EventFd::new(EFD_NONBLOCK)?;
        let waiter = self.waiter(stop)?;
        waiter.add(over.as_raw_fd(), Woken::Other)?;
        let shutdown = daemon.shutdown_handle();
        let result = thread::scope(|scope| {
            if let Err(error) = doorway::carry(scope, vmm, &library) {
                log::warn!("no connection came about: {error}");
            }
            let watch = thread::Builder::new().name("watch".to_owned());
            let watching = watch.spawn_scoped(scope, || waiter.shut_down_in_time(shutdown));
            if watching.is_err() {
                daemon.request_shutdown();
            }
            let result = daemon.wait();
            // Full means that it was told already.
            let _ = over.write(1);
            result
        });
        tell_end(result);
        for ring in &rings {
            ring.retire();
        }
        // The rings' memory goes with the daemon, here and not on the data thread.
        let _ = self.worker.detach();
        self.backend.forget_connection();
        Ok(())
    }

    fn waiter(&self, stop: &EventFd) -> io::Result<Waiter> {
        let waiter = Waiter { epoll: Epoll::new()? };
        waiter.add(stop.as_raw_fd(), Woken::Stop)?;
        waiter.add(self.end.event.as_raw_fd(), Woken::End)?;
        Ok(waiter)
    }

    fn ended(&self) -> ServeError {
        End::take_error(&self.end).map_or(ServeError::WorkerGone, ServeError::UplinkGone)
    }
}

fn tell_end(result: Result<(), DaemonError>) {
    match result {
        Ok(())
        | Err(DaemonError::HandleRequest(VhostUserError::Disconnected | VhostUserError::PartialMessage)) => {
            log::info!("the VMM is gone");
        }
        Err(error) => log::warn!("the connection to the VMM is closed: {error}"),
    }
}

/// Waits for one of a few files.
struct Waiter {
    epoll: Epoll,
}

impl Waiter {
    fn add(&self, fd: i32, meaning: Woken) -> io::Result<()> {
        let token = match meaning {
            Woken::Stop => 0,
            Woken::End => 1,
            Woken::Other | Woken::Timeout => 2,
        };
        self.epoll.ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, token))
    }

    /// The most urgent of what happened.
    fn wait(&self, timeout_ms: i32) -> io::Result<Woken> {
        let mut events = [EpollEvent::default(); 3];
        let count = match self.epoll.wait(timeout_ms, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        Ok(match events.iter().take(count).map(EpollEvent::data).min() {
            Some(0) => Woken::Stop,
            Some(1) => Woken::End,
            Some(_) => Woken::Other,
            None => Woken::Timeout,
        })
    }

    /// Ends the connection when it is time to, unless it ends by itself.
    fn shut_down_in_time(&self, connection: Option<ShutdownHandle>) {
        loop {
            match self.wait(-1) {
                Ok(Woken::Timeout) => {}
                Ok(Woken::Other) => return,
                Ok(Woken::Stop | Woken::End) | Err(_) => {
                    if let Some(connection) = connection {
                        connection.shutdown();
                    }
                    return;
                }
            }
        }
    }
}
