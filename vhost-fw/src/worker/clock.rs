//! The one clock of the data path: `CLOCK_BOOTTIME` in milliseconds; and the time of day, for saved tables.
//!
//! It goes on through suspend and never goes back. Nothing else may read a clock for frames; a device is given it, so
//! that a test can give it another.

use fw_engine::Tick;
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};

/// Milliseconds since 1970, for people to read: it may jump, and nothing is decided by it.
pub(crate) fn wall_time_ms() -> u64 {
    clock_gettime(ClockId::CLOCK_REALTIME).map_or(0, ms)
}

/// The present moment. (libc reads it without a system call, which the sandbox would not allow.)
#[must_use]
pub fn boot_time() -> Tick {
    // It exists since Linux 2.6.39; without it time would stand still, and no conn would be let in for longer.
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return Tick(0) };
    Tick(ms(time))
}

fn ms(time: TimeSpec) -> u64 {
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec()) * 1000 + part(time.tv_nsec()) / 1_000_000
}
