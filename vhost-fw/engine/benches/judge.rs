//! How long a frame takes to be judged, against a floor that does only what nobody can leave out.
//!
//! `cargo bench -p fw-engine --bench judge -- [NAME…]`: JSON lines on stdout, one for each bench whose name holds a
//! NAME; progress on stderr. `--count NAME` judges one round without looking at the clock and says of how many frames: run
//! under callgrind it counts instructions, which no neighbour disturbs.
#![expect(clippy::print_stdout, reason = "scripts/bench reads JSON lines from stdout")]

#[path = "judge/bed.rs"]
mod bed;
#[path = "judge/floor.rs"]
mod floor;
#[path = "judge/rounds.rs"]
mod rounds;
#[path = "judge/rules.rs"]
mod rules;
#[expect(clippy::disallowed_methods, reason = "a bench reads the clock")]
#[path = "judge/timing.rs"]
mod timing;
#[path = "judge/traffic.rs"]
mod traffic;

use std::process::ExitCode;

use bed::{Bed, Expected, Wire};
use traffic::{Established, Strangers};

type Fill = Box<dyn FnMut(&mut [Wire])>;

/// An engine made ready, the verdict its frames must get, and where they come from.
struct Scene {
    bed: Bed,
    expected: Expected,
    fill: Fill,
}

const FLOOR: &str = "copy, hash and two loads";

type Bench = fn() -> Result<Scene, String>;

const BENCHES: [(&str, Bench); 3] = [
    ("engine/hit-1k", || hits(1_000, 10_000)),
    ("engine/hit-1m", || hits(1_000_000, 1_000_000)),
    ("engine/miss-10k", misses),
];

/// Established TCP flows, each frame of another one, 1,000 rules.
fn hits(conns: u32, prefixes: u32) -> Result<Scene, String> {
    let mut bed = Bed::new(rules::rules(1_000, prefixes)?, conns + conns / 10 + 1_000)?;
    let mut flows = Established::new(conns);
    flows.open(&mut bed)?;
    Ok(Scene { bed, expected: Expected::Pass, fill: Box::new(move |wires| flows.fill(wires)) })
}

/// First frames that no rule matches: 10,000 rules over 100 sets of 1,000,000 prefixes.
fn misses() -> Result<Scene, String> {
    let bed = Bed::new(rules::rules(10_000, 1_000_000)?, 100_000)?;
    let mut strangers = Strangers::new(10_000, 1_000_000);
    Ok(Scene { bed, expected: Expected::Drop, fill: Box::new(move |wires| strangers.fill(wires)) })
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let count = arguments.iter().any(|argument| argument == "--count");
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if wanted.is_empty() && !count && !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("a bench: run it with cargo bench, or name what to run");
        return ExitCode::SUCCESS;
    }
    for (name, bench) in BENCHES {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        eprintln!("{name}: building");
        let line = bench().and_then(|mut scene| {
            let Scene { bed, expected, fill } = &mut scene;
            if count {
                return rounds::count(bed, *expected, fill).map(|frames| frames.to_string());
            }
            rounds::run(bed, *expected, fill).map(|times| times.as_json(name, FLOOR, "ns/frame", 1.0))
        });
        match line {
            Ok(line) => println!("{line}"),
            Err(why) => {
                eprintln!("{name}: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
