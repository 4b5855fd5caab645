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
    const FREE: Self = Self { bits: None, frames: None };

    fn set(&mut self, rate: Option<Rate>, now: Tick) {
        set(&mut self.bits, rate.and_then(|rate| rate.bits_per_s), BURST_BITS_MIN, now);
        set(&mut self.frames, rate.and_then(|rate| rate.frames_per_s), 1, now);
    }

    fn take(&mut self, length: usize, now: Tick) -> bool {
        let frames = self.frames.as_mut().is_none_or(|frames| frames.take(1, now));
        frames && self.bits.as_mut().is_none_or(|bits| bits.take(8 * length as u64, now))
    }
}

impl Meters {
    /// Without limits but the one on replies.
    pub(crate) fn new() -> Self {
        Self { out: Meter::FREE, in_: Meter::FREE, conns: None, replies: Bucket::new(REPLIES_PER_S, 1) }
    }

    /// Puts limits in force. What was taken stays taken: however often rules come, they fill no bucket.
    pub(crate) fn set_limits(&mut self, limits: &Limits, now: Tick) {
        self.out.set(limits.rates.map(|rates| rates.out), now);
        self.in_.set(limits.rates.map(|rates| rates.in_), now);
        set(&mut self.conns, limits.new_conns_per_s.map(u64::from), 1, now);
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

fn set(bucket: &mut Option<Bucket>, rate: Option<u64>, burst_min: u64, now: Tick) {
    match (bucket.as_mut(), rate) {
        (Some(held), Some(rate)) => held.set_rate(rate, burst_min, now),
        (None, Some(rate)) => *bucket = Some(Bucket::new(rate, burst_min)),
        (_, None) => *bucket = None,
    }
}
