//! The network's end of a `unix:` uplink, played by hand: frames in records, one after the other.
//!
//! It may know the socket and the header before a frame. It must never know which frames should pass.
#![expect(clippy::unwrap_used, reason = "a panic here is the test's report")]

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

/// The header of a frame that claims nothing.
const HEADER: [u8; 12] = [0; 12];

/// The far end; it connects when it is first used, and anew after it was let go.
pub struct FarEnd {
    path: PathBuf,
    socket: Option<OwnedFd>,
}

impl FarEnd {
    /// The far end of the uplink that listens at `path`.
    #[must_use]
    pub const fn of(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    /// Connects, unless it is connected.
    pub fn connect(&mut self) {
        let _ = self.socket();
    }

    /// Lets go: whoever had the uplink has it no more.
    pub fn let_go(&mut self) {
        self.socket = None;
    }

    /// Puts a frame on the wire.
    pub fn put(&mut self, frame: &[u8]) {
        send(self.socket(), &[&HEADER, frame].concat(), SendFlags::empty()).unwrap();
    }

    /// The next frame on the wire within `patience`.
    pub fn take(&mut self, patience: Duration) -> Option<Vec<u8>> {
        let end = Instant::now() + patience;
        let mut record = vec![0; 70_000];
        while Instant::now() < end {
            match recv(self.socket(), record.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((_, length)) if length > HEADER.len() => {
                    return record.get(HEADER.len()..length).map(<[u8]>::to_vec);
                }
                _ => thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }

    fn socket(&mut self) -> &OwnedFd {
        let path = &self.path;
        self.socket.get_or_insert_with(|| {
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
            let socket = socket.unwrap();
            connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
            socket
        })
    }
}
