//! The one clock of the data path: `CLOCK_BOOTTIME` in milliseconds.
//!
//! It goes on through suspend and never goes back. Nothing else may read a clock for frames.

use fw_engine::Tick;
use rustix::time::{ClockId, clock_gettime};

/// The present moment.
pub(super) fn now() -> Tick {
    let time = clock_gettime(ClockId::Boottime);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Tick(part(time.tv_sec) * 1000 + part(time.tv_nsec) / 1_000_000)
}
