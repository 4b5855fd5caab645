//! The one clock of the data path: `CLOCK_BOOTTIME` in milliseconds.
//!
//! It goes on through suspend and never goes back. Nothing else may read a clock for frames.

use fw_engine::Tick;
use rustix::time::{ClockId, clock_gettime};

/// Now.
pub(super) fn now() -> Tick {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let milliseconds = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    Tick(seconds.saturating_mul(1000).saturating_add(milliseconds))
}
