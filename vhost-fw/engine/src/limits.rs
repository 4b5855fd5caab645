//! Token buckets: how fast something may happen.
//!
//! Knows a rate and the time. Never knows what is counted.

use crate::time::Tick;

/// A bucket that fills at `rate` per second up to one second's worth (at least `burst_min`).
///
/// It counts thousandths: a rate per second is that many thousandths per millisecond, so filling is exact and a
/// slow rate that is asked often loses nothing to rounding.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    rate: u64,
    capacity: u64,
    level: u64,
    filled: Tick,
}

/// The fastest rate told apart from none, so that a full bucket's thousandths fit 64 bits.
const RATE_MAX: u64 = u64::MAX / 2000;

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(rate_per_s: u64, burst_min: u64) -> Self {
        let rate = rate_per_s.min(RATE_MAX);
        let capacity = rate.max(burst_min.min(RATE_MAX)).saturating_mul(1000);
        Self { rate, capacity, level: capacity, filled: Tick(0) }
    }

    /// Goes on at another rate with what it holds, so that new rules do not fill it.
    pub(crate) fn set_rate(&mut self, rate_per_s: u64, burst_min: u64, now: Tick) {
        self.fill(now);
        *self = Self { level: self.level, filled: self.filled, ..Self::new(rate_per_s, burst_min) };
        self.level = self.level.min(self.capacity);
    }

    /// Takes `amount` if it is there. More than the bucket holds is never there.
    pub(crate) fn take(&mut self, amount: u64, now: Tick) -> bool {
        self.fill(now);
        let Some(left) = amount.checked_mul(1000).and_then(|amount| self.level.checked_sub(amount)) else {
            return false;
        };
        self.level = left;
        true
    }

    fn fill(&mut self, now: Tick) {
        let gained = now.since_ms(self.filled).saturating_mul(self.rate);
        self.level = self.level.saturating_add(gained).min(self.capacity);
        self.filled = self.filled.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(bucket: &mut Bucket, now: u64) -> u64 {
        let mut count = 0;
        while count < 10_000 && bucket.take(1, Tick(now)) {
            count += 1;
        }
        count
    }

    #[test]
    fn a_new_bucket_holds_one_second() {
        assert_eq!(taken(&mut Bucket::new(100, 1), 5_000), 100);
        assert_eq!(taken(&mut Bucket::new(3, 10), 5_000), 10);
    }

    #[test]
    fn it_fills_by_time_and_not_beyond_its_brim() {
        let mut bucket = Bucket::new(100, 1);
        taken(&mut bucket, 0);
        assert_eq!(taken(&mut bucket, 250), 25);
        assert_eq!(taken(&mut bucket, 1_000_000), 100);
    }

    #[test]
    fn a_slow_rate_asked_often_loses_nothing() {
        let mut bucket = Bucket::new(3, 1);
        taken(&mut bucket, 0);
        let granted: u64 = (1..=100_000).map(|now| u64::from(bucket.take(1, Tick(now)))).sum();
        assert_eq!(granted, 300);
    }

    #[test]
    fn a_refused_amount_takes_nothing() {
        let mut bucket = Bucket::new(1_000, 1);
        assert!(!bucket.take(1_001, Tick(0)));
        assert!(bucket.take(1_000, Tick(0)));
        assert!(!bucket.take(1, Tick(0)));
    }

    #[test]
    fn time_that_runs_backwards_fills_nothing_twice() {
        let mut bucket = Bucket::new(1_000, 1);
        taken(&mut bucket, 1_000);
        assert_eq!(taken(&mut bucket, 400), 0);
        assert_eq!(taken(&mut bucket, 1_001), 1);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut bucket = Bucket::new(u64::MAX, u64::MAX);
        assert!(bucket.take(RATE_MAX, Tick(1)));
        assert!(!bucket.take(RATE_MAX, Tick(1)));
        assert!(!bucket.take(u64::MAX, Tick(u64::MAX)));
        assert!(bucket.take(RATE_MAX, Tick(u64::MAX)));
    }

    #[test]
    fn another_rate_fills_nothing_and_spills_what_no_longer_fits() {
        let mut bucket = Bucket::new(100, 1);
        taken(&mut bucket, 0);
        bucket.set_rate(100, 1, Tick(0));
        assert_eq!(taken(&mut bucket, 0), 0);
        bucket.set_rate(1_000, 1, Tick(100));
        assert_eq!(taken(&mut bucket, 100), 10);
        bucket.set_rate(5, 1, Tick(60_000));
        assert_eq!(taken(&mut bucket, 60_000), 5);
    }

    #[test]
    fn nothing_per_second_grants_its_burst_once() {
        let mut bucket = Bucket::new(0, 2);
        assert_eq!(taken(&mut bucket, 0), 2);
        assert_eq!(taken(&mut bucket, u64::MAX), 0);
        assert_eq!(taken(&mut Bucket::new(0, 0), 9), 0);
    }
}
