//! How long a table takes from one engine into another, and what a crash copy costs.
//!
//! `cargo bench -p vhost-fw --features measure --bench handover -- [NAME…]`: JSON lines on stdout, one for each bench whose
//! name starts with a NAME; progress on stderr.
#![expect(clippy::print_stdout, reason = "scripts/bench reads JSON lines from stdout")]

#[path = "handover/conns.rs"]
mod conns;
#[path = "handover/copy.rs"]
mod copy;
#[path = "handover/floor.rs"]
mod floor;
#[path = "handover/nic.rs"]
mod nic;
#[path = "../engine/benches/judge/rules.rs"]
mod rules;
#[path = "../engine/benches/judge/timing.rs"]
mod timing;

use std::process::ExitCode;
use std::sync::Arc;

use conn_snapshot::Key;
use fw_engine::{PreparedRules, Tick};
use fw_model::Arrived;
use timing::{Plan, nanoseconds};
use vhost_fw::handover::{HandoverOptions, Restore};
use vhost_fw::measure;

type Bench = fn(&str) -> Result<String, String>;

const BENCHES: [(&str, Bench); 4] = [
    ("handover/adopt-100k", |name| adopt(name, 100_000, 21)),
    ("handover/adopt-1m", |name| adopt(name, 1_000_000, 7)),
    ("handover/crash-copy-open-100k", |name| copy::open(name, 100_000)),
    ("handover/crash-copy-frames", copy::follow),
];

/// What both data threads take for the time.
const NOW: Tick = Tick(1_000_000);
const FLOOR: &str = "structs copied, BLAKE3 twice, a line of index and table each";
const MILLISECOND: f64 = 1e6;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    if wanted.is_empty() && !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("a bench: run it with cargo bench, or name what to run");
        return ExitCode::SUCCESS;
    }
    for (name, bench) in BENCHES {
        if !wanted.is_empty() && !wanted.iter().any(|start| name.starts_with(start.as_str())) {
            continue;
        }
        eprintln!("{name}: building");
        match bench(name) {
            Ok(line) => println!("{line}"),
            Err(why) => {
                eprintln!("{name}: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// `count` conns leave a NIC and are taken in by another, which has none.
fn adopt(name: &str, count: u32, counted: usize) -> Result<String, String> {
    let set = conns::rules()?;
    let names: Vec<_> = set.rules.iter().map(|rule| rule.id.clone()).collect();
    let nic = set.nic.id.clone();
    let rules = Arc::new(PreparedRules::new(set).map_err(|error| error.to_string())?);
    let room = count + count / 10 + 1_000;
    let options = HandoverOptions { nic, key: Key::new(&[7; 32]), restore: Restore::Revalidate, conns: room };
    let mut engine = conns::empty(&rules, room, *b"the source's key");
    conns::fill(&mut engine, &names, count, NOW)?;
    let source = nic::start(engine, options.clone())?;
    let floor = floor::Floor::new(count);
    let plan = Plan { counted, at_most: counted * 8, control: 500_000 };
    let times = timing::rounds(&plan, |_| {
        let target = nic::start(conns::empty(&rules, room, *b"the target's key"), options.clone())?;
        let (mut bytes, mut arrived) = (Ok(Vec::new()), None);
        let out = nanoseconds(|| bytes = measure::save(&source));
        let bytes = bytes.map_err(|error| error.to_string())?;
        let taken = nanoseconds(|| arrived = measure::load(&target, &bytes).ok());
        match arrived {
            Some(Arrived::Adopted(adoption)) if adoption.kept == u64::from(count) => {}
            other => return Err(format!("conns were lost on the way: {other:?}")),
        }
        eprintln!(
            "  {} bytes: out {:.1} ms, in {:.1} ms",
            bytes.len(),
            out / MILLISECOND,
            taken / MILLISECOND
        );
        let mut placed = 0;
        let floor = nanoseconds(|| placed = floor.hand_over(room));
        if placed == count as usize {
            Ok((out + taken, floor))
        } else {
            Err("the floor lost conns".to_owned())
        }
    })?;
    Ok(times.as_json(name, FLOOR, "ms", MILLISECOND))
}
