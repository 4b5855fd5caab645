//! How long a frame takes to be judged, against a floor that does only what nobody can leave out.
//!
//! `cargo bench -p fw-engine --bench judge -- [NAME…]`: JSON lines on stdout, one for each bench whose name holds a
//! NAME; progress on stderr.
#![expect(clippy::print_stdout, reason = "scripts/bench reads JSON lines from stdout")]

#[path = "judge/bed.rs"]
mod bed;
#[path = "judge/floor.rs"]
mod floor;
#[path = "judge/rounds.rs"]
mod rounds;
#[path = "judge/traffic.rs"]
mod traffic;

use std::process::ExitCode;

use bed::{Bed, Expected};
use traffic::{Established, Strangers};

/// A bench's times, or why it could not be run.
type Outcome = Result<rounds::Times, String>;
type Bench = fn() -> Outcome;

const BENCHES: [(&str, Bench); 3] = [
    ("engine/hit-1k", || hits(1_000, 10_000)),
    ("engine/hit-1m", || hits(1_000_000, 1_000_000)),
    ("engine/miss-10k", misses),
];

/// Established TCP flows, each frame of another one, 1,000 rules.
fn hits(conns: u32, prefixes: u32) -> Outcome {
    let mut bed = Bed::new(traffic::rules(1_000, prefixes)?, conns + conns / 10 + 1_000)?;
    let mut flows = Established::new(conns);
    flows.open(&mut bed)?;
    rounds::run(&mut bed, Expected::Pass, |wires| flows.fill(wires))
}

/// First frames that no rule matches: 10,000 rules over 100 sets of 1,000,000 prefixes.
fn misses() -> Outcome {
    let mut bed = Bed::new(traffic::rules(10_000, 1_000_000)?, 100_000)?;
    let mut strangers = Strangers::new(10_000, 1_000_000);
    rounds::run(&mut bed, Expected::Drop, |wires| strangers.fill(wires))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if wanted.is_empty() && !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("a bench: run it with cargo bench, or name what to run");
        return ExitCode::SUCCESS;
    }
    for (name, bench) in BENCHES {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        eprintln!("{name}: building");
        match bench() {
            Ok(times) => println!("{}", times.as_json(name)),
            Err(why) => {
                eprintln!("{name}: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
