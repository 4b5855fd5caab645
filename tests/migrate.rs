//! A real guest moves between two hosts and back with its conns; without its table they die.
//!
//! It brings its own harness, because it needs namespaces: the laboratory's own program runs in them. What this machine
//! cannot run is ignored with the reason.

use std::env;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use fw_tests::program;
use fw_tests::report::Report;
use fw_tests::suite::{SIZE, Size};
use serde_json::Value;

const WITH: &str = "a_guest_moves_and_keeps_every_conn";
const WITHOUT: &str = "without_its_table_a_moved_guest_loses_its_conns";

fn main() -> ExitCode {
    let mut report = Report::new(env::args().skip(1).collect());
    if env::args().any(|word| word == "--list") {
        report.list([WITH, WITHOUT].map(str::to_owned));
        return ExitCode::SUCCESS;
    }
    let counts: &[&str] = match Size::asked() {
        Size::Fast => &["--count", "1", "--conns", "100"],
        Size::Whole => &["--count", "2", "--conns", "400"],
        Size::Long => &["--count", "20", "--conns", "1000"],
    };
    report.run(WITH, || moves(counts));
    if Size::asked() != Size::Fast {
        report.run(WITHOUT, || moves(&["--count", "1", "--conns", "40", "--without-state"]));
    }
    report.close()
}

/// Runs the laboratory's migration; `Some` says why this machine cannot.
fn moves(words: &[&str]) -> Result<Option<String>> {
    program::build()?;
    let mut lab = Command::new(program::ours("lab")?);
    let output = lab.arg("migrate").args(words).env(SIZE, Size::asked().word()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(4) {
        return Ok(Some(said.trim().trim_start_matches("not run: ").to_owned()));
    }
    if !output.status.success() {
        bail!("{}\n{said}", String::from_utf8_lossy(&output.stdout));
    }
    let line: Value = serde_json::from_slice(&output.stdout).context("its last line")?;
    for key in ["migrations", "conns", "lost", "denied_passed", "downtime_ms"] {
        line.get(key).with_context(|| format!("no {key} in {line}"))?;
    }
    Ok(None)
}
