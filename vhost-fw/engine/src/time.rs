//! Time as a value.
//!
//! Milliseconds since the machine booted, as `CLOCK_BOOTTIME` counts them; who reads that clock is the shell.
//! It must never know a clock.

/// A moment: milliseconds of `CLOCK_BOOTTIME` (simulations start at 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// The moment `ms` milliseconds later; the end of time if there is none.
    #[must_use]
    pub const fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// The moment `s` seconds later.
    #[must_use]
    pub const fn after_s(self, s: u32) -> Self {
        self.after_ms((s as u64).saturating_mul(1000))
    }

    /// Milliseconds since `earlier`; 0 if that is later.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
