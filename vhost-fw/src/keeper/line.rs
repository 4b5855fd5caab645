//! The line between a keeper and its worker: few words, with descriptors.
//!
//! It is the worker's standard input, a socket of records, and its end is the other's end. Knows the words. Never
//! knows what is done about one.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use conn_snapshot::KEY_LEN;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

/// What keeper and worker say to each other may be of two programs' versions: they must agree on this number.
pub(crate) const LINE_VERSION: u16 = 3;
/// Longer than any word.
const WORD_MAX: usize = 4096;
/// Most descriptors with one word.
const DESCRIPTORS_MAX: usize = 8;

/// What is said on the line.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// The keeper's first, with what the worker may not open itself, in the order of [`Start`].
    Start(Start),
    /// The keeper's, with the connection of a VMM.
    Vmm,
    /// The worker's: rules are in force and it serves.
    Ready,
    /// The worker's, with the rules that are in force from now on.
    Rules,
    /// The worker's, with a control connection: whoever is there wants a new worker.
    Upgrade,
    /// The keeper's, with a file: write the table there, and change nothing any more.
    Leave,
    /// The worker's: it is there.
    Left {
        /// Whether the NIC is frozen.
        frozen: bool,
    },
    /// The keeper's, to a worker that left: go on as if nothing had been.
    GoOn,
    /// The keeper's, with that file, and rules if some are in force: take over.
    Take {
        /// Whether the NIC is frozen.
        frozen: bool,
    },
    /// The worker's: it has taken over, so many conns.
    Taken(u64),
    /// The worker's: it has not, for this cause.
    Cannot(String),
}

/// What a worker starts with. Its descriptors: its pulse, control listener, doorway's listener, then those
/// named here.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// [`LINE_VERSION`] of the keeper.
    pub(crate) version: u16,
    /// What a table is sealed with between two workers of one keeper.
    pub(crate) seal: [u8; KEY_LEN],
    /// Whether another worker serves, whose table this one will take.
    pub(crate) successor: bool,
    /// The cluster's key.
    pub(crate) key: Option<[u8; KEY_LEN]>,
    /// The uplink's MTU, in bytes.
    pub(crate) mtu: u16,
    /// Whether there is an uplink's descriptor.
    pub(crate) uplink: bool,
    /// Whether there are rules.
    pub(crate) rules: bool,
}

/// One end of the line.
#[derive(Debug)]
pub(crate) struct Line(OwnedFd);

impl Line {
    /// A new line: this process's end, and the one that becomes a worker's standard input.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(near), far))
    }

    /// The worker's end.
    pub(crate) fn inherited() -> io::Result<Self> {
        Ok(Self(io::stdin().as_fd().try_clone_to_owned()?))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    pub(crate) fn say(&self, word: &Word, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(word)?;
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many descriptors with one word"));
        }
        rustix::io::retry_on_intr(|| {
            sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
        })?;
        Ok(())
    }

    /// The next word; `None` if the other end is gone.
    pub(crate) fn receive(&self) -> io::Result<Option<(Word, Vec<OwnedFd>)>> {
        let mut bytes = [0; WORD_MAX];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
            {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let mut descriptors = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = part {
                descriptors.extend(sent);
            }
        }
        let word = serde_json::from_slice(bytes.get(..received.bytes).unwrap_or_default())?;
        Ok(Some((word, descriptors)))
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Line {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
