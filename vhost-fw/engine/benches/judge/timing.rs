//! Ours and a floor, taking turns, and a control loop that says which rounds count.
//!
//! What every bench of the inside shares (`#[path]` brings it into those of other crates). It may know time. It must never
//! know what is measured.

use std::hint::black_box;
use std::time::Instant;

/// How much slower than its best the control loop may be around a round that counts.
const STRETCH: f64 = 1.3;

/// How rounds are taken.
pub(crate) struct Plan {
    /// Rounds that must count.
    pub(crate) counted: usize,
    /// After how many to stop trying.
    pub(crate) at_most: usize,
    /// Steps of the control loop, which should take no longer than a round: then whoever takes the processor away meets
    /// either as likely.
    pub(crate) control: u32,
}

/// One round, in nanoseconds.
struct Round {
    ours: f64,
    floor: f64,
    control: f64,
}

/// The rounds that counted, in nanoseconds, sorted.
pub(crate) struct Times {
    ours: Vec<f64>,
    floor: Vec<f64>,
}

/// Takes rounds until enough count. `round` gets each one's number and answers with our time and the floor's.
pub(crate) fn rounds(
    plan: &Plan,
    mut round: impl FnMut(usize) -> Result<(f64, f64), String>,
) -> Result<Times, String> {
    let mut rounds: Vec<Round> = Vec::new();
    while rounds.len() < plan.at_most {
        let before = nanoseconds(|| control(plan.control));
        let (ours, floor) = round(rounds.len())?;
        let control = before.max(nanoseconds(|| control(plan.control)));
        rounds.push(Round { ours, floor, control });
        if rounds.len().is_multiple_of(plan.counted.min(100)) {
            let times = counted(&rounds);
            eprintln!("  {} of {} rounds count", times.ours.len(), rounds.len());
            if times.ours.len() >= plan.counted {
                return Ok(times);
            }
        }
    }
    let Plan { counted, at_most, .. } = plan;
    Err(format!("the machine is too busy: after {at_most} rounds fewer than {counted} count"))
}

/// How long `work` took.
pub(crate) fn nanoseconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64() * 1e9
}

/// A fixed amount of integer work.
fn control(steps: u32) {
    let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..steps {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    black_box(state);
}

fn counted(rounds: &[Round]) -> Times {
    let best = rounds.iter().map(|round| round.control).fold(f64::INFINITY, f64::min);
    let quiet = || rounds.iter().filter(|round| round.control <= best * STRETCH);
    let sorted = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times
    };
    Times {
        ours: sorted(quiet().map(|round| round.ours).collect()),
        floor: sorted(quiet().map(|round| round.floor).collect()),
    }
}

impl Times {
    /// The line `scripts/bench` promises: medians, and as spread the middle half of ours over its median. `nanoseconds`
    /// make one of `unit`.
    pub(crate) fn as_json(&self, name: &str, peer_name: &str, unit: &str, nanoseconds: f64) -> String {
        let (ours, floor) = (quartile(&self.ours, 2), quartile(&self.floor, 2));
        let spread = (quartile(&self.ours, 3) - quartile(&self.ours, 1)) / ours;
        format!(
            "{{\"bench\":\"{name}\",\"ours\":{:.1},\"peer\":{:.1},\"peer_name\":\"{peer_name}\",\"unit\":\"{unit}\",\
             \"ratio\":{:.3},\"better\":\"lower\",\"n\":{},\"spread\":{spread:.3}}}",
            ours / nanoseconds,
            floor / nanoseconds,
            ours / floor,
            self.ours.len()
        )
    }
}

fn quartile(sorted: &[f64], quarters: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * quarters / 4).copied().unwrap_or(f64::NAN)
}
