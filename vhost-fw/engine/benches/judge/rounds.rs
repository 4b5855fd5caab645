//! Rounds that alternate between the engine and the floor, and a control loop that says which of them count.

#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::hint::black_box;
use std::time::Instant;

use fw_model::Direction;

use crate::bed::{Bed, Expected, Wire};
use fw_engine::{HEAD_LEN, VnetHeader};

/// Frames of a round.
const FRAMES: u32 = 2_048;
/// Rounds that must count, and after how many to stop trying.
const COUNTED: usize = 401;
const ROUNDS_MAX: usize = 10_000;
/// How much slower than its best the control loop may be around a round that counts.
const STRETCH: f64 = 1.3;

/// One round, in nanoseconds.
struct Round {
    ours: f64,
    floor: f64,
    control: f64,
}

/// The counted rounds, in nanoseconds a frame.
pub(crate) struct Times {
    ours: Vec<f64>,
    floor: Vec<f64>,
}

/// Runs rounds until enough count. `fill` writes the next frames, outside of all times.
pub(crate) fn run(
    bed: &mut Bed,
    expected: Expected,
    mut fill: impl FnMut(&mut [Wire]),
) -> Result<Times, String> {
    let none = Wire { direction: Direction::Out, bytes: [0; HEAD_LEN], length: 0, vnet: VnetHeader::NONE };
    let mut wires = vec![none; FRAMES as usize];
    let mut rounds: Vec<Round> = Vec::new();
    while rounds.len() < ROUNDS_MAX {
        fill(&mut wires);
        rounds.push(round(bed, expected, &wires, rounds.len().is_multiple_of(2))?);
        bed.rest();
        if rounds.len().is_multiple_of(100) {
            let times = counted(&rounds);
            eprintln!("  {} of {} rounds count", times.ours.len(), rounds.len());
            if times.ours.len() >= COUNTED {
                return Ok(times);
            }
        }
    }
    Err(format!("the machine is too busy: after {ROUNDS_MAX} rounds fewer than {COUNTED} count"))
}

/// Judges one round after a first that leaves everything warm, and says of how many frames it was.
pub(crate) fn count(
    bed: &mut Bed,
    expected: Expected,
    mut fill: impl FnMut(&mut [Wire]),
) -> Result<u32, String> {
    let none = Wire { direction: Direction::Out, bytes: [0; HEAD_LEN], length: 0, vnet: VnetHeader::NONE };
    let mut wires = vec![none; FRAMES as usize];
    fill(&mut wires);
    bed.judge(&wires, expected)?;
    bed.rest();
    fill(&mut wires);
    counted_round(bed, expected, &wires)?;
    Ok(FRAMES)
}

/// By its name callgrind is told what to count.
#[inline(never)]
fn counted_round(bed: &mut Bed, expected: Expected, wires: &[Wire]) -> Result<(), String> {
    bed.judge(wires, expected)
}

fn round(bed: &mut Bed, expected: Expected, wires: &[Wire], ours_first: bool) -> Result<Round, String> {
    let before = nanoseconds(control);
    let (mut ours, mut verdicts) = (0.0, Ok(()));
    if ours_first {
        ours = nanoseconds(|| verdicts = bed.judge(wires, expected));
    }
    let floor = nanoseconds(|| bed.touch(wires));
    if !ours_first {
        ours = nanoseconds(|| verdicts = bed.judge(wires, expected));
    }
    verdicts?;
    Ok(Round { ours, floor, control: before.max(nanoseconds(control)) })
}

/// A fixed amount of integer work, about 0.1 ms: no longer than a round, so that whoever takes the processor away meets
/// either as likely.
fn control() {
    let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..50_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}

fn nanoseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e9
}

fn counted(rounds: &[Round]) -> Times {
    let best = rounds.iter().map(|round| round.control).fold(f64::INFINITY, f64::min);
    let quiet = || rounds.iter().filter(|round| round.control <= best * STRETCH);
    let sorted = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times
    };
    Times {
        ours: sorted(quiet().map(|round| round.ours / f64::from(FRAMES)).collect()),
        floor: sorted(quiet().map(|round| round.floor / f64::from(FRAMES)).collect()),
    }
}

impl Times {
    /// The line `scripts/bench` promises: medians, and as spread the middle half of ours over its median.
    pub(crate) fn as_json(&self, name: &str) -> String {
        let (ours, floor) = (quartile(&self.ours, 2), quartile(&self.floor, 2));
        let spread = (quartile(&self.ours, 3) - quartile(&self.ours, 1)) / ours;
        format!(
            "{{\"bench\":\"{name}\",\"ours\":{ours:.1},\"peer\":{floor:.1},\"peer_name\":\"copy, hash and two loads\",\
             \"unit\":\"ns/frame\",\"ratio\":{:.3},\"better\":\"lower\",\"n\":{},\"spread\":{spread:.3}}}",
            ours / floor,
            self.ours.len()
        )
    }
}

fn quartile(sorted: &[f64], quarters: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * quarters / 4).copied().unwrap_or(f64::NAN)
}
