//! What a frame costs on the transmit ring, against the same work on memory of our own.
//!
//! `cargo bench -p vhost-fw --features measure --bench queue`: a JSON line on stdout, progress on stderr.
#![expect(clippy::print_stdout, reason = "scripts/bench reads JSON lines from stdout")]

#[path = "queue/floor.rs"]
mod floor;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Instant;

use vhost_fw::measure::Transmit;

/// Rounds of a ring that must count, and after how many to stop trying.
const COUNTED: usize = 2_001;
const ROUNDS_MAX: usize = 100_000;
/// How much slower than its best the control loop may be around a round that counts.
const STRETCH: f64 = 1.3;
/// Bytes of a frame.
const FRAME: u32 = 64;

/// One round, in nanoseconds.
struct Round {
    ours: f64,
    floor: f64,
    control: f64,
}

fn main() -> ExitCode {
    if !std::env::args().any(|argument| argument == "--bench") {
        eprintln!("a bench: run it with cargo bench");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("queue/tx-64: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String, String> {
    let (mut ring, mut floor) = (Transmit::new(FRAME)?, floor::Ring::new(FRAME));
    let mut rounds = Vec::new();
    while rounds.len() < ROUNDS_MAX {
        rounds.push(round(&mut ring, &mut floor)?);
        if rounds.len().is_multiple_of(COUNTED) {
            let (ours, peer) = counted(&rounds);
            eprintln!("  {} of {} rounds count", ours.len(), rounds.len());
            if ours.len() >= COUNTED {
                return Ok(as_json(&ours, &peer));
            }
        }
    }
    Err(format!("the machine is too busy: after {ROUNDS_MAX} rounds fewer than {COUNTED} count"))
}

fn round(ring: &mut Transmit, floor: &mut floor::Ring) -> Result<Round, String> {
    let before = nanoseconds(control);
    let frames = ring.post()?;
    let mut taken = 0;
    let ours = nanoseconds(|| {
        loop {
            let (count, seen) = ring.take();
            black_box(seen);
            taken += count;
            if count == 0 {
                break;
            }
        }
    });
    if taken != usize::from(frames) {
        return Err(format!("{taken} of {frames} frames were taken"));
    }
    let peer = nanoseconds(|| {
        black_box(floor.take_all());
    });
    let after = nanoseconds(control);
    let frame = f64::from(frames);
    Ok(Round { ours: ours / frame, floor: peer / frame, control: before.max(after) })
}

/// A fixed amount of integer work, about as long as a round.
fn control() {
    let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..4_000 {
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

/// Ours and the floor's times of the rounds that count, sorted.
fn counted(rounds: &[Round]) -> (Vec<f64>, Vec<f64>) {
    let best = rounds.iter().map(|round| round.control).fold(f64::INFINITY, f64::min);
    let quiet = || rounds.iter().filter(|round| round.control <= best * STRETCH);
    let sorted = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times
    };
    (sorted(quiet().map(|round| round.ours).collect()), sorted(quiet().map(|round| round.floor).collect()))
}

fn as_json(ours: &[f64], peer: &[f64]) -> String {
    let (time, floor) = (quartile(ours, 2), quartile(peer, 2));
    let spread = (quartile(ours, 3) - quartile(ours, 1)) / time;
    format!(
        "{{\"bench\":\"queue/tx-64\",\"ours\":{time:.1},\"peer\":{floor:.1},\
         \"peer_name\":\"the same on memory of our own\",\"unit\":\"ns/frame\",\"ratio\":{:.3},\
         \"better\":\"lower\",\"n\":{},\"spread\":{spread:.3}}}",
        time / floor,
        ours.len()
    )
}

fn quartile(sorted: &[f64], quarters: usize) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * quarters / 4).copied().unwrap_or(f64::NAN)
}
