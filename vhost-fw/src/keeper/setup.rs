//! What a VMM has set up so far: its last message of each kind, with the descriptors.
//!
//! A message that a later one makes void is let go of, so that a connection of any length holds a bounded number.
//! Knows requests by number and rings by index. Never maps a memory region and never looks into a ring.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::serve::message::Message;

pub(super) const GET_FEATURES: u32 = 1;
const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const RESET_OWNER: u32 = 4;
const SET_MEM_TABLE: u32 = 5;
const SET_LOG_BASE: u32 = 6;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const GET_VRING_BASE: u32 = 11;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_VRING_ERR: u32 = 14;
const GET_PROTOCOL_FEATURES: u32 = 15;
const SET_PROTOCOL_FEATURES: u32 = 16;
const GET_QUEUE_NUM: u32 = 17;
const SET_VRING_ENABLE: u32 = 18;
const GET_CONFIG: u32 = 24;
const GET_MAX_MEM_SLOTS: u32 = 36;
const ADD_MEM_REG: u32 = 37;
const REM_MEM_REG: u32 = 38;
const SET_DEVICE_STATE_FD: u32 = 42;
const CHECK_DEVICE_STATE: u32 = 43;

/// Answered whether or not the request says so.
const ANSWERED: &[u32] = &[
    GET_FEATURES,
    SET_LOG_BASE,
    GET_VRING_BASE,
    GET_PROTOCOL_FEATURES,
    GET_QUEUE_NUM,
    GET_CONFIG,
    GET_MAX_MEM_SLOTS,
    SET_DEVICE_STATE_FD,
    CHECK_DEVICE_STATE,
];

/// The order in which a ring is set up anew. It may be enabled at once: nothing moves before its kick is there.
const OF_A_RING: [u32; 7] = [
    SET_VRING_NUM,
    SET_VRING_ADDR,
    SET_VRING_BASE,
    SET_VRING_ERR,
    SET_VRING_CALL,
    SET_VRING_ENABLE,
    SET_VRING_KICK,
];

/// Bit of the protocol features: requests may want a reply.
const REPLY_ACK: u64 = 1 << 3;
/// Memory messages at any time; the library has far fewer regions.
const MEMORY_MAX: usize = 256;

/// What one connection has set up.
#[derive(Debug, Default)]
pub(super) struct Setup {
    owner: Option<Message>,
    protocol: Option<Message>,
    features: Option<Message>,
    /// The table, and regions that came and went since.
    memory: Vec<Message>,
    log: Option<Message>,
    /// By ring and request.
    rings: BTreeMap<(u8, u32), Message>,
}

impl Setup {
    /// Whether a worker answers `message`.
    pub(super) fn is_answered(&self, message: &Message) -> bool {
        let acks = self.protocol.as_ref().and_then(Message::value).unwrap_or(0) & REPLY_ACK != 0;
        // The acknowledgement of these features is itself under them.
        let acks = acks
            || message.request() == SET_PROTOCOL_FEATURES && message.value().unwrap_or(0) & REPLY_ACK != 0;
        ANSWERED.contains(&message.request()) || acks && message.needs_reply()
    }

    /// The features the VMM acknowledged.
    pub(super) fn acked(&self) -> u64 {
        self.features.as_ref().and_then(Message::value).unwrap_or(0)
    }

    /// Notes a message that a worker has, and what it answered, if anything.
    ///
    /// # Errors
    /// More memory regions than any VMM has.
    pub(super) fn note(&mut self, message: Message, answer: Option<&Message>) -> io::Result<()> {
        let request = message.request();
        if request == GET_VRING_BASE {
            self.ring_stopped(&message, answer);
            return Ok(());
        }
        // Nought is yes; what a worker refused is not set up.
        let refused =
            request != SET_LOG_BASE && answer.and_then(Message::value).is_some_and(|said| said != 0);
        if refused {
            return Ok(());
        }
        let message = message.quiet();
        match request {
            SET_OWNER => self.owner = Some(message),
            RESET_OWNER => (self.owner, self.protocol, self.features) = (None, None, None),
            SET_PROTOCOL_FEATURES => self.protocol = Some(message),
            SET_FEATURES => self.features = Some(message),
            SET_MEM_TABLE => self.memory = vec![message],
            ADD_MEM_REG => self.memory.push(message),
            REM_MEM_REG => self.region_gone(message),
            SET_LOG_BASE => self.log = Some(message),
            SET_VRING_NUM | SET_VRING_ADDR | SET_VRING_BASE | SET_VRING_KICK | SET_VRING_CALL
            | SET_VRING_ERR | SET_VRING_ENABLE => {
                self.rings.insert((ring_of(&message), request), message);
            }
            _ => {}
        }
        if self.memory.len() > MEMORY_MAX {
            return Err(io::Error::other("a VMM with too many memory regions"));
        }
        Ok(())
    }

    /// A stopped ring has lost its eventfds, and goes on where the answer says.
    fn ring_stopped(&mut self, message: &Message, answer: Option<&Message>) {
        let ring = ring_of(message);
        self.rings.remove(&(ring, SET_VRING_KICK));
        self.rings.remove(&(ring, SET_VRING_CALL));
        if let Some(answer) = answer {
            self.rings.insert((ring, SET_VRING_BASE), Message::new(SET_VRING_BASE, answer.body()));
        }
    }

    /// A region that was added by itself is as if it had never been.
    fn region_gone(&mut self, gone: Message) {
        let place = |message: &Message| message.body().get(8..32).map(<[u8]>::to_vec);
        let added = |message: &Message| message.request() == ADD_MEM_REG && place(message) == place(&gone);
        match self.memory.iter().rposition(added) {
            Some(at) => drop(self.memory.remove(at)),
            None => self.memory.push(gone),
        }
    }

    /// Everything, in the order in which a worker takes it. What was never set up is not sent.
    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        let once = [&self.owner, &self.protocol, &self.features].into_iter().flatten();
        let kinds = OF_A_RING.into_iter();
        let rings = kinds.flat_map(|kind| {
            self.rings.iter().filter(move |((_, request), _)| *request == kind).map(|(_, message)| message)
        });
        once.chain(&self.memory).chain(&self.log).chain(rings)
    }

    /// What the guest kicks its rings with.
    pub(super) fn kicks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let kicks = self.rings.iter().filter(|((_, request), _)| *request == SET_VRING_KICK);
        kicks.flat_map(|(_, message)| message.descriptors()).map(AsFd::as_fd)
    }

    /// Looks into every ring once, on both sides: the worker that died may have been about to say something.
    pub(super) fn wake(&self) {
        for ((_, request), message) in &self.rings {
            if matches!(*request, SET_VRING_KICK | SET_VRING_CALL) {
                for event in message.descriptors() {
                    // One that is full already wakes as well.
                    let _ = event.try_clone().map(|event| File::from(event).write(&1_u64.to_ne_bytes()));
                }
            }
        }
    }
}

fn ring_of(message: &Message) -> u8 {
    message.body().first().copied().unwrap_or_default()
}

/// Sends everything that is set up.
pub(super) fn replay(setup: &Setup, to: &UnixStream) -> io::Result<()> {
    setup.messages().try_for_each(|message| message.send(to))
}

#[cfg(test)]
mod tests;
