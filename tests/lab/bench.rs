//! `scripts/bench`: ours beside a peer or a floor, in the same call and taking turns.
//!
//! Results are JSON lines on stdout, progress goes to stderr. It may know what is measured and against whom. It must
//! never quote a number that was taken while the machine was busy with something else.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::host::{self, Stay};
use crate::program;

mod ahead;
mod backlog;
mod datapath;
pub mod dpdk;
mod floor;
mod generator;
mod guests;
mod propagation;
mod quiet;
mod super_segment;

/// Which way is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Better {
    Higher,
    Lower,
}

/// One line of results.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Line {
    bench: &'static str,
    ours: f64,
    peer: Option<f64>,
    peer_name: Option<&'static str>,
    unit: &'static str,
    ratio: Option<f64>,
    better: Better,
    n: usize,
    spread: f64,
}

/// What rounds came to: our figures and the peer's, one of each per round.
#[derive(Debug, Default)]
struct Rounds {
    ours: Vec<f64>,
    peer: Vec<f64>,
}

/// A bench of the datapath.
struct Bench {
    name: &'static str,
    unit: &'static str,
    peer_name: &'static str,
    better: Better,
    /// Whether it needs a network of its own.
    own_network: bool,
    run: fn() -> Result<Rounds>,
}

const BENCHES: &[Bench] = &[
    Bench {
        name: "datapath/null-1k",
        unit: "Mpps",
        peer_name: "DPDK net_vhost, receive only",
        better: Better::Higher,
        own_network: false,
        run: datapath::null_1k,
    },
    Bench {
        name: "datapath/null-100k",
        unit: "Mpps",
        peer_name: "DPDK net_vhost, receive only",
        better: Better::Higher,
        own_network: false,
        run: datapath::null_100k,
    },
    Bench {
        name: "datapath/tap-64",
        unit: "Mpps",
        peer_name: "write() to a tap",
        better: Better::Higher,
        own_network: true,
        run: datapath::tap_64,
    },
    Bench {
        name: "datapath/price-64",
        unit: "Mpps",
        peer_name: "ours without rules: everything passes",
        better: Better::Higher,
        own_network: false,
        run: datapath::price_64,
    },
    Bench {
        name: "datapath/tap-64k-tso",
        unit: "kpps",
        peer_name: "writev() of the same parts to a tap",
        better: Better::Higher,
        own_network: true,
        run: datapath::tap_64k_tso,
    },
    Bench {
        name: "datapath/tap-rx",
        unit: "Mpps",
        peer_name: "read() from a tap",
        better: Better::Higher,
        own_network: true,
        run: datapath::tap_rx,
    },
    Bench {
        name: "handover/stop-1m",
        unit: "ms",
        peer_name: "the same with an empty table",
        better: Better::Lower,
        own_network: false,
        run: ahead::stop_1m,
    },
    Bench {
        name: "handover/blob-1m",
        unit: "KiB",
        peer_name: "the whole table",
        better: Better::Lower,
        own_network: false,
        run: ahead::blob_1m,
    },
    Bench {
        name: "guests/tcp-tso",
        unit: "Mbit/s",
        peer_name: "the same guests on taps that QEMU serves itself",
        better: Better::Higher,
        own_network: true,
        run: guests::tcp_tso,
    },
    Bench {
        name: "propagation/p50",
        unit: "ms",
        peer_name: "an aim: none of its own",
        better: Better::Lower,
        own_network: false,
        run: propagation::p50,
    },
    Bench {
        name: "propagation/p99",
        unit: "ms",
        peer_name: "an aim: 1,000 ms",
        better: Better::Lower,
        own_network: false,
        run: propagation::p99,
    },
    Bench {
        name: "propagation/attach-p99",
        unit: "ms",
        peer_name: "an aim: 200 ms",
        better: Better::Lower,
        own_network: false,
        run: propagation::attach_p99,
    },
    Bench {
        name: "propagation/member-bytes",
        unit: "B",
        peer_name: "an aim: 1,024 B",
        better: Better::Lower,
        own_network: false,
        run: propagation::member_bytes,
    },
    Bench {
        name: "propagation/member-compile",
        unit: "ms",
        peer_name: "an aim: 5 ms",
        better: Better::Lower,
        own_network: false,
        run: propagation::member_compile,
    },
    Bench {
        name: "propagation/member-enforced",
        unit: "ms",
        peer_name: "an aim: none of its own",
        better: Better::Lower,
        own_network: false,
        run: propagation::member_enforced,
    },
];

/// Rounds of each bench.
const ROUNDS: usize = 3;

/// Runs the benches whose names start with one of `names`; all if none is given.
///
/// # Errors
/// A program cannot be run or does not do its part.
pub fn run(names: &[&str]) -> Result<bool> {
    let wanted = |name: &str| names.is_empty() || names.iter().any(|start| name.starts_with(start));
    let chosen: Vec<&Bench> = BENCHES.iter().filter(|bench| wanted(bench.name)).collect();
    let of = |family: &str| -> Vec<&str> {
        names.iter().copied().filter(|name| name.starts_with(family)).collect()
    };
    let families = CARGO_BENCHES.iter().map(|bench| bench.family);
    let known = |name: &&&str| {
        !families.clone().any(|family| name.starts_with(family))
            && !BENCHES.iter().any(|bench| bench.name.starts_with(**name))
    };
    if let Some(unknown) = names.iter().find(known) {
        let all: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
        anyhow::bail!(
            "no bench is named `{unknown}`; there are engine/…, compiler/…, handover/…, queue/… and {}",
            all.join(", ")
        );
    }
    if chosen.iter().any(|bench| bench.name.starts_with("guests")) {
        // The image needs the network that the namespaces will not have.
        crate::image::Image::ensure()?;
    }
    // Entering the namespaces starts this program anew, so it comes before anything that would then run twice.
    let network = if chosen.iter().any(|bench| bench.own_network) { host::enter(Stay::Ends) } else { Ok(()) };
    let mut all_ran = true;
    for bench in CARGO_BENCHES {
        let chosen = of(bench.family);
        if names.is_empty() || !chosen.is_empty() {
            all_ran &= bench.run(&chosen)?;
        }
    }
    for bench in chosen {
        if let Some(why) = network.as_ref().err().filter(|_| bench.own_network) {
            note(&format!("{}: not run: {why:#}", bench.name));
            continue;
        }
        note(&format!("{}: against {}", bench.name, bench.peer_name));
        match (bench.run)() {
            Ok(rounds) => print(&line(bench, &rounds)?)?,
            Err(error) => {
                note(&format!("{}: not run: {error:#}", bench.name));
                all_ran = false;
            }
        }
    }
    Ok(all_ran)
}

/// Benches of one crate's inside, which print their own lines.
struct CargoBench {
    /// How their names start.
    family: &'static str,
    words: &'static [&'static str],
}

const CARGO_BENCHES: &[CargoBench] = &[
    CargoBench { family: "engine", words: &["-p", "fw-engine", "--bench", "judge"] },
    CargoBench {
        family: "handover",
        words: &["-p", "vhost-fw", "--features", "measure", "--bench", "handover"],
    },
    CargoBench { family: "compiler", words: &["-p", "policy-compiler", "--bench", "compile"] },
    CargoBench { family: "queue", words: &["-p", "vhost-fw", "--features", "measure", "--bench", "queue"] },
];

impl CargoBench {
    fn run(&self, names: &[&str]) -> Result<bool> {
        note(&format!("{}: cargo bench {}", self.family, self.words.join(" ")));
        let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(program::repository())
            .args(["bench", "--quiet"])
            .args(self.words)
            .arg("--")
            .args(names)
            .stdin(Stdio::null())
            .status()
            .context("cannot run cargo")?;
        Ok(status.success())
    }
}

fn line(bench: &Bench, rounds: &Rounds) -> Result<Line> {
    let ours = quiet::median(&rounds.ours).context("no round of ours counted")?;
    let peer = quiet::median(&rounds.peer);
    Ok(Line {
        bench: bench.name,
        ours: rounded(ours),
        peer: peer.map(rounded),
        peer_name: peer.map(|_| bench.peer_name),
        unit: bench.unit,
        ratio: peer.filter(|peer| *peer > 0.0).map(|peer| rounded(ours / peer)),
        better: bench.better,
        n: rounds.ours.len(),
        spread: rounded(quiet::spread(&rounds.ours)),
    })
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn print(line: &Line) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(line)?)?;
    Ok(out.flush()?)
}

fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}
