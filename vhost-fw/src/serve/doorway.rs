//! Where a VMM's messages pass on their way to the library.
//!
//! QEMU enables its rings before it acknowledges a feature, and the library closes the connection at that, because the
//! vhost-user document has it the other way round. So the library first hears an acknowledgement of nothing but
//! protocol features, with which rings start disabled; then every message goes on as it came, with its descriptors.
//! Knows how long a message is. Never knows what one means.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserVirtioFeatures;

use super::message::{BODY_MAX, HEAD, VERSION, body_length, read_head, send, too_long};
use super::{ServeError, Socket};

/// `VHOST_USER_SET_FEATURES`.
const SET_FEATURES: u32 = 2;

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

    /// The doorway that a keeper opened at `path`.
    pub(crate) fn inherited(listener: UnixListener, path: PathBuf) -> Self {
        Self { socket: Socket::inherited(listener, path.clone()), path }
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
            return Err(too_long(length));
        };
        from.read_exact(body)?;
        send(to, message.get(..HEAD + length).unwrap_or_default(), &descriptors)?;
    }
}

#[cfg(test)]
mod tests;
