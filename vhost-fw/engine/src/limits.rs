//! Token buckets: how fast something may happen.
//!
//! Knows a rate and the time. Never knows what is counted.

use crate::time::Tick;

/// A bucket that fills at `rate` per second up to one second's worth (at least `burst_min`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {}

impl Bucket {
    pub(crate) fn new(_rate_per_s: u64, _burst_min: u64) -> Self {
        todo!("H4")
    }

    /// Takes `amount` if it is there.
    pub(crate) fn take(&mut self, _amount: u64, _now: Tick) -> bool {
        todo!("H4")
    }
}
