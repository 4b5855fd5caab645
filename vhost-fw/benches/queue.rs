//! What a frame costs on the transmit ring, against the same work on memory of our own.
//!
//! `cargo bench -p vhost-fw --features measure --bench queue`: a JSON line on stdout, progress on stderr.
#![expect(clippy::print_stdout, reason = "scripts/bench reads JSON lines from stdout")]

#[path = "queue/floor.rs"]
mod floor;

#[path = "../engine/benches/judge/timing.rs"]
mod timing;

use std::hint::black_box;
use std::process::ExitCode;

use timing::{Plan, nanoseconds};
use vhost_fw::measure::Transmit;

/// The control loop takes about as long as a round.
const PLAN: Plan = Plan { counted: 2_001, at_most: 100_000, control: 4_000 };
/// Bytes of a frame.
const FRAME: u32 = 64;
const FLOOR: &str = "the same on memory of our own";

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
    let times = timing::rounds(&PLAN, |_| round(&mut ring, &mut floor))?;
    Ok(times.as_json("queue/tx-64", FLOOR, "ns/frame", 1.0))
}

fn round(ring: &mut Transmit, floor: &mut floor::Ring) -> Result<(f64, f64), String> {
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
    let frame = f64::from(frames);
    Ok((ours / frame, peer / frame))
}
