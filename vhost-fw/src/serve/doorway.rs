//! Where a VMM's messages pass on their way to the library.
//!
//! QEMU enables its rings before it acknowledges a feature, and the library closes the connection at that, because the
//! vhost-user document has it the other way round. So the library first hears an acknowledgement of nothing but
//! protocol features, with which rings start disabled; then every message goes on as it came, with its descriptors.
//! Knows how long a message is. Never knows what one means.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserVirtioFeatures;

use super::{ServeError, Socket};

/// Bytes of a message's head: request, flags, length of the body.
const HEAD: usize = 12;
/// The longest body and the most descriptors of a message, as the library has them.
const BODY_MAX: usize = 0x1000;
const DESCRIPTORS_MAX: usize = 32;
/// `VHOST_USER_SET_FEATURES`, and the flags of a request of version 1.
const SET_FEATURES: u32 = 2;
const VERSION: u32 = 1;

/// The library accepts connections and cannot be handed one: here it accepts ours.
pub struct Doorway {
    socket: Socket,
    path: PathBuf,
}

impl Doorway {
    /// Opens at `path`, for this user alone.
    ///
    /// # Errors
    /// As [`Socket::bind`].
    pub fn open(path: &Path) -> Result<Self, ServeError> {
        Ok(Self { socket: Socket::bind(path)?, path: path.to_owned() })
    }

    /// Opens beside the socket at `path`: its name and `.door`.
    ///
    /// # Errors
    /// As [`Socket::bind`].
    pub fn beside(path: &Path) -> Result<Self, ServeError> {
        Self::open(&door_of(path))
    }

    /// The library's side, on which one connection waits whose other end is returned. The acknowledgement is in it.
    pub(super) fn lead_in(&mut self) -> io::Result<(&mut Listener, UnixStream)> {
        let mut inner = UnixStream::connect(&self.path)?;
        inner.write_all(&acknowledgement())?;
        Ok((self.socket.listener(), inner))
    }
}

/// The doorway's place beside a socket.
#[must_use]
pub fn door_of(socket: &Path) -> PathBuf {
    let mut door = socket.as_os_str().to_owned();
    door.push(".door");
    door.into()
}

fn acknowledgement() -> [u8; HEAD + 8] {
    let features = VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits().to_le_bytes();
    let mut message = [0; HEAD + 8];
    let fields = [SET_FEATURES, VERSION, 8].into_iter().flat_map(u32::to_le_bytes).chain(features);
    for (to, from) in message.iter_mut().zip(fields) {
        *to = from;
    }
    message
}

/// Carries messages between the VMM and the library until either is gone; then both are.
pub(super) fn carry<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    vmm: &'scope UnixStream,
    library: &'scope UnixStream,
) -> io::Result<()> {
    for (name, from, to) in [("from-vmm", vmm, library), ("to-vmm", library, vmm)] {
        let spawned = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, move || {
            if let Err(error) = carry_one_way(from, to) {
                log::warn!("a message was not carried on: {error}");
            }
            shut(from);
            shut(to);
        });
        if let Err(error) = spawned {
            shut(vmm);
            shut(library);
            return Err(error);
        }
    }
    Ok(())
}

fn shut(stream: &UnixStream) {
    // One that is closed already needs no closing.
    let _ = stream.shutdown(Shutdown::Both);
}

fn carry_one_way(mut from: &UnixStream, to: &UnixStream) -> io::Result<()> {
    let mut message = [0; HEAD + BODY_MAX];
    loop {
        let Some((head, body)) = message.split_at_mut_checked(HEAD) else { return Ok(()) };
        let Some(descriptors) = read_head(from, head)? else { return Ok(()) };
        let length = body_length(head)?;
        let Some(body) = body.get_mut(..length) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("its body has {length} bytes")));
        };
        from.read_exact(body)?;
        send(to, message.get(..HEAD + length).unwrap_or_default(), &descriptors)?;
    }
}

fn body_length(head: &[u8]) -> io::Result<usize> {
    let length = head.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    usize::try_from(length).map_err(io::Error::other)
}

/// Reads a head and the descriptors that come with it; `None` where the stream ends between messages.
fn read_head(mut from: &UnixStream, head: &mut [u8]) -> io::Result<Option<Vec<OwnedFd>>> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let received = loop {
        match recvmsg(from, &mut [IoSliceMut::new(head)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has too many descriptors"));
    }
    let mut descriptors = Vec::new();
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(sent) = part {
            descriptors.extend(sent);
        }
    }
    from.read_exact(head.get_mut(received.bytes..).unwrap_or_default())?;
    Ok(Some(descriptors))
}

/// Sends a message with its descriptors on its first byte.
fn send(mut to: &UnixStream, message: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
    let borrowed: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it has too many descriptors"));
    }
    let sent = loop {
        match sendmsg(to, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            // The other side is gone, which its own direction tells.
            Err(rustix::io::Errno::PIPE) => return Ok(()),
            other => break other?,
        }
    };
    to.write_all(message.get(sent..).unwrap_or_default())
}

#[cfg(test)]
mod tests;
