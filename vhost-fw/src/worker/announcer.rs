//! When a guest that has moved is announced.
//!
//! A frame to everybody may be lost while a bridge still learns, so it is said again a few times. Knows moments. Never
//! knows what is said.

use fw_engine::Tick;

/// Milliseconds from one announcement to the next: as many and as far apart as QEMU's own.
const PAUSES_MS: [u64; 4] = [50, 150, 250, 350];

/// The announcements that are due.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    /// Due from then on.
    next: Option<Tick>,
    /// Said so often.
    said: usize,
}

impl Announcer {
    pub(super) const fn begin(&mut self) {
        *self = Self { next: Some(Tick(0)), said: 0 };
    }

    pub(super) fn is_due(&self, now: Tick) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// The next moment, once the first announcement was made.
    pub(super) fn next(&self) -> Option<Tick> {
        self.next.filter(|_| self.said > 0)
    }

    /// One was made.
    pub(super) fn done(&mut self, now: Tick) {
        self.next = PAUSES_MS.get(self.said).map(|pause| now.after_ms(*pause));
        self.said += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_announced_five_times() {
        let mut announcer = Announcer::default();
        assert!(!announcer.is_due(Tick(u64::MAX)));
        announcer.begin();
        let mut said = Vec::new();
        for ms in 7_000..9_000 {
            if announcer.is_due(Tick(ms)) {
                said.push(ms);
                announcer.done(Tick(ms));
            }
        }
        assert_eq!(said, [7_000, 7_050, 7_200, 7_450, 7_800]);
        assert_eq!(announcer.next(), None);
    }
}
