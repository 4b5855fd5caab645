//! Fragments: held with hard caps, reassembled, judged as one frame, released as they came.
//!
//! Knows datagrams that are not whole yet. Never knows conns, rules or who the NIC is.

use fw_model::{Direction, Reason};

use crate::headers::Headers;
use crate::time::Tick;

/// What became of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// Kept.
    Held,
    /// Its datagram is whole: read it with [`Fragments::datagram`], then release or discard it.
    Whole(DatagramId),
    /// Refused, and its datagram with it where the reason says so.
    Refused(Reason),
}

/// A datagram that is being put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatagramId(u32);

/// The datagrams of one NIC that are not whole yet.
#[derive(Debug)]
pub(crate) struct Fragments {}

impl Fragments {
    /// Room for `bytes` of held frames; everything is allocated here.
    pub(crate) fn new(_bytes: usize) -> Self {
        todo!("H2")
    }

    /// Takes a whole frame that is a fragment (`headers.net` is IP with `fragment` set). It is kept for
    /// `lifetime_s` seconds from the first of its datagram at most.
    pub(crate) fn add(
        &mut self,
        _direction: Direction,
        _frame: &[u8],
        _headers: &Headers,
        _now: Tick,
        _lifetime_s: u32,
    ) -> Added {
        todo!("H2")
    }

    /// The whole datagram as one unfragmented frame (Ethernet header of the first fragment, IP header without
    /// fragmentation, lengths and IPv4 header checksum right), to be parsed and judged like any other.
    pub(crate) fn datagram(&mut self, _id: DatagramId) -> &[u8] {
        todo!("H2")
    }

    /// Hands out the frames of a datagram in the order they came, and forgets it.
    pub(crate) fn release(&mut self, _id: DatagramId, _emit: impl FnMut(&[u8])) {
        todo!("H2")
    }

    /// Forgets a datagram that was refused.
    pub(crate) fn discard(&mut self, _id: DatagramId) {
        todo!("H2")
    }

    /// Forgets every datagram whose time is over; says how many fragments that dropped.
    pub(crate) fn expire(&mut self, _now: Tick) -> u64 {
        todo!("H2")
    }

    pub(crate) fn next_due(&self) -> Option<Tick> {
        todo!("H2")
    }
}
