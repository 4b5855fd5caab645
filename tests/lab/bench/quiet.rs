//! Whether the machine was quiet enough for a figure to count.
//!
//! A loop of known work is timed before and after; beyond 1.3 times its best time the figure is taken again. It may
//! know time. It must never know what is measured.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::{ROUNDS, Rounds, note};

/// Times a figure may be taken again in one bench.
const PATIENCE: usize = 9;
const TOLERATED: f64 = 1.3;

/// Takes turns: ours, the peer's, [`ROUNDS`] times.
pub(super) fn take_turns(
    ours: impl FnMut() -> Result<f64>,
    peer: impl FnMut() -> Result<f64>,
) -> Result<Rounds> {
    take_turns_beside(control, ours, peer)
}

fn take_turns_beside(
    control: fn() -> f64,
    mut ours: impl FnMut() -> Result<f64>,
    mut peer: impl FnMut() -> Result<f64>,
) -> Result<Rounds> {
    let mut watch = Watch { control, best: control(), left: PATIENCE };
    let mut rounds = Rounds::default();
    for _ in 0..ROUNDS {
        rounds.ours.push(watch.figure(&mut ours)?);
        rounds.peer.push(watch.figure(&mut peer)?);
    }
    Ok(rounds)
}

struct Watch {
    control: fn() -> f64,
    best: f64,
    left: usize,
}

impl Watch {
    fn figure(&mut self, take: &mut impl FnMut() -> Result<f64>) -> Result<f64> {
        loop {
            let before = (self.control)();
            let figure = take()?;
            let after = (self.control)();
            self.best = self.best.min(before).min(after);
            if before.max(after) <= self.best * TOLERATED {
                return Ok(figure);
            }
            note(&format!(
                "  not quiet (control loop at {:.2} of its best), again",
                before.max(after) / self.best
            ));
            self.left = self.left.saturating_sub(1);
            if self.left == 0 {
                bail!("the machine is too busy to measure on");
            }
            thread::sleep(Duration::from_secs(2));
        }
    }
}

/// Seconds for a fixed piece of work, the best of five: one preemption is no busy machine.
fn control() -> f64 {
    let piece = || {
        let start = Instant::now();
        let mut value = 1_u64;
        for step in 0..5_000_000_u64 {
            value = black_box(value.rotate_left(5) ^ step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        black_box(value);
        start.elapsed().as_secs_f64()
    };
    (0..5).map(|_| piece()).fold(f64::INFINITY, f64::min)
}

/// The middle value; `None` of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// How far apart the values lie, as a part of the middle one.
pub(super) fn spread(values: &[f64]) -> f64 {
    let (Some(middle), Some(low), Some(high)) =
        (median(values), values.iter().copied().reduce(f64::min), values.iter().copied().reduce(f64::max))
    else {
        return 0.0;
    };
    if middle == 0.0 { 0.0 } else { (high - low) / middle }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_spread() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
        assert!((spread(&[2.0, 1.0, 3.0]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn turns_alternate() {
        let said = std::cell::RefCell::new(String::new());
        let say = |who: &str| {
            said.borrow_mut().push_str(who);
            Ok(1.0)
        };
        let rounds = take_turns_beside(|| 1.0, || say("o"), || say("p")).unwrap();
        assert!(rounds.ours.len() == ROUNDS && rounds.peer.len() == ROUNDS);
        let said = said.borrow();
        assert!(said.starts_with('o') && said.ends_with('p') && said.contains("op"), "{said}");
    }
}
