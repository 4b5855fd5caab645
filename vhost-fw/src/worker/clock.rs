//! The one clock of the data path: `CLOCK_BOOTTIME` in milliseconds.
//!
//! It goes on through suspend and never goes back. Nothing else may read a clock for frames; a device is given it, so
//! that a test can give it another.

use fw_engine::Tick;
use nix::time::{ClockId, clock_gettime};

/// The present moment. (libc reads it without a system call, which the sandbox would not allow.)
#[must_use]
pub fn boot_time() -> Tick {
    // It exists since Linux 2.6.39; without it time would stand still, and no conn would be let in for longer.
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else { return Tick(0) };
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Tick(part(time.tv_sec()) * 1000 + part(time.tv_nsec()) / 1_000_000)
}
