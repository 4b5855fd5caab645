//! How fast this NIC may go: frames and bits each way, new conns, and replies of our own.
//!
//! Knows the NIC's rates. Never knows what a frame says.

use fw_model::{Direction, Limits, Rate};

use crate::limits::Bucket;
use crate::time::Tick;

/// Replies of our own per second: resets and ICMP errors (CONTRACT 4; RFC 4443 section 2.4 f).
const REPLIES_PER_S: u64 = 1000;

/// A second's worth of bits must hold one super-segment, or a slow NIC could never send one.
const BURST_BITS_MIN: u64 = 8 * crate::frame::FRAME_LEN_MAX as u64;

/// The buckets of one NIC.
#[derive(Debug)]
pub(crate) struct Meters {
    out: Meter,
    in_: Meter,
    conns: Option<Bucket>,
    replies: Bucket,
}

#[derive(Debug)]
struct Meter {
    bits: Option<Bucket>,
    frames: Option<Bucket>,
}

impl Meter {
    fn new(rate: Option<Rate>) -> Self {
        Self {
            bits: rate.and_then(|rate| rate.bits_per_s).map(|bits| Bucket::new(bits, BURST_BITS_MIN)),
            frames: rate.and_then(|rate| rate.frames_per_s).map(|frames| Bucket::new(frames, 1)),
        }
    }

    fn take(&mut self, length: usize, now: Tick) -> bool {
        let frames = self.frames.as_mut().is_none_or(|frames| frames.take(1, now));
        frames && self.bits.as_mut().is_none_or(|bits| bits.take(8 * length as u64, now))
    }
}

impl Meters {
    pub(crate) fn new(limits: Option<&Limits>) -> Self {
        let rates = limits.and_then(|limits| limits.rates);
        let conns = limits.and_then(|limits| limits.new_conns_per_s);
        Self {
            out: Meter::new(rates.map(|rates| rates.out)),
            in_: Meter::new(rates.map(|rates| rates.in_)),
            conns: conns.map(|conns| Bucket::new(conns.into(), 1)),
            replies: Bucket::new(REPLIES_PER_S, 1),
        }
    }

    /// Whether a frame may go on.
    pub(crate) fn take(&mut self, direction: Direction, length: usize, now: Tick) -> bool {
        match direction {
            Direction::Out => self.out.take(length, now),
            Direction::In => self.in_.take(length, now),
        }
    }

    /// Whether a conn may be opened.
    pub(crate) fn take_conn(&mut self, now: Tick) -> bool {
        self.conns.as_mut().is_none_or(|conns| conns.take(1, now))
    }

    /// Whether a reply of our own may be sent.
    pub(crate) fn take_reply(&mut self, now: Tick) -> bool {
        self.replies.take(1, now)
    }
}
