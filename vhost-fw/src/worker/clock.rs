//! The one clock of the data path: `CLOCK_BOOTTIME` in milliseconds.
//!
//! It goes on through suspend and never goes back. Nothing else may read a clock for frames; a device is given it,
//! so that a test can give it another.

use fw_engine::Tick;

/// Now, in milliseconds since the machine booted.
#[must_use]
#[expect(unsafe_code, reason = "no kept crate of ours wraps clock_gettime")]
pub fn boot_time() -> Tick {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid `timespec` for the call to write, and the call keeps no pointer to it.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    debug_assert_eq!(result, 0, "CLOCK_BOOTTIME exists since Linux 2.6.39");
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let milliseconds = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    Tick(seconds.saturating_mul(1000).saturating_add(milliseconds))
}
