//! Messages of the vhost-user protocol, whole and with their descriptors.
//!
//! Knows how long a message is and where its request stands. Never knows what one means.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Bytes of a message's head: request, flags, length of the body.
pub(super) const HEAD: usize = 12;
/// The longest body and the most descriptors of a message, as the library has them.
pub(super) const BODY_MAX: usize = 0x1000;
const DESCRIPTORS_MAX: usize = 32;
/// The flags of a request of version 1.
pub(super) const VERSION: u32 = 1;
/// The flag of a request that wants to be answered.
const NEED_REPLY: u32 = 8;

/// One message.
#[derive(Debug)]
pub(crate) struct Message {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Message {
    /// A request of ours.
    pub(crate) fn new(request: u32, body: &[u8]) -> Self {
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let head = [request, VERSION, length].into_iter().flat_map(u32::to_le_bytes);
        Self { bytes: head.chain(body.iter().copied()).collect(), descriptors: Vec::new() }
    }

    /// Reads the next one; `None` where the stream ends between messages.
    pub(crate) fn read(mut from: &UnixStream) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; HEAD];
        let Some(descriptors) = read_head(from, &mut bytes)? else { return Ok(None) };
        let length = body_length(&bytes)?;
        if length > BODY_MAX {
            return Err(too_long(length));
        }
        bytes.resize(HEAD + length, 0);
        from.read_exact(bytes.get_mut(HEAD..).unwrap_or_default())?;
        Ok(Some(Self { bytes, descriptors }))
    }

    pub(crate) fn send(&self, to: &UnixStream) -> io::Result<()> {
        send(to, &self.bytes, &self.descriptors)
    }

    pub(crate) fn request(&self) -> u32 {
        self.word(0)
    }

    pub(crate) fn needs_reply(&self) -> bool {
        self.word(4) & NEED_REPLY != 0
    }

    /// The same, but nobody answers it.
    pub(crate) fn quiet(mut self) -> Self {
        if let Some(flags) = self.bytes.get_mut(4) {
            *flags &= !8;
        }
        self
    }

    pub(crate) fn body(&self) -> &[u8] {
        self.bytes.get(HEAD..).unwrap_or_default()
    }

    /// The body's first eight bytes as a number.
    pub(crate) fn value(&self) -> Option<u64> {
        self.body().first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    pub(crate) fn descriptors(&self) -> &[OwnedFd] {
        &self.descriptors
    }

    fn word(&self, at: usize) -> u32 {
        let word = self.bytes.get(at..).and_then(<[u8]>::first_chunk);
        word.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

pub(super) fn too_long(length: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("its body has {length} bytes"))
}

pub(super) fn body_length(head: &[u8]) -> io::Result<usize> {
    let length = head.last_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    usize::try_from(length).map_err(io::Error::other)
}

/// Reads a head and the descriptors that come with it; `None` where the stream ends between messages.
pub(super) fn read_head(mut from: &UnixStream, head: &mut [u8]) -> io::Result<Option<Vec<OwnedFd>>> {
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
pub(super) fn send(mut to: &UnixStream, message: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
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
