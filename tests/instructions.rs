//! The hot paths may not grow unseen: instructions a frame, which no neighbour disturbs, against a budget.
//!
//! Callgrind counts one round of the engine's benches. Time is for `scripts/bench` to say; this says only whether a
//! change made a frame's path longer.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use fw_tests::program;
use fw_tests::report::Report;
use fw_tests::suite::Size;
use serde_json::Value;

/// Instructions a frame, with a few in a hundred to spare for another compiler. Whoever needs more says in the commit
/// what for.
const BUDGETS: &[(&str, u64)] = &[("engine/hit-1k", 1_400), ("engine/miss-10k", 2_650)];

fn main() -> ExitCode {
    let names: Vec<String> = BUDGETS.iter().map(|(bench, _)| name(bench)).collect();
    let Some(mut report) = Report::asked(names.iter().map(String::as_str)) else { return ExitCode::SUCCESS };
    let why_not = match program::on_path("valgrind") {
        _ if Size::asked() == Size::Fast => Some("an optimised build takes too long for --fast"),
        None => Some("there is no valgrind on this machine"),
        Some(_) => None,
    };
    if let Some(why) = why_not {
        names.iter().for_each(|name| report.ignore(name, why));
        return report.close();
    }
    let built = build();
    for (bench, budget) in BUDGETS {
        report.run(&name(bench), || {
            let counted = count(built.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?, bench)?;
            ensure!(
                counted <= *budget,
                "{counted} instructions a frame, {budget} are its budget: the frame's path got longer"
            );
            Ok(None)
        });
    }
    report.close()
}

fn name(bench: &str) -> String {
    format!("{}_stays_within_its_instructions", bench.replace(['/', '-'], "_"))
}

/// Builds the engine's bench; where it is.
fn build() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .current_dir(program::repository())
        .args(["bench", "--no-run", "--quiet", "--message-format=json"])
        .args(["-p", "fw-engine", "--bench", "judge"])
        .output()
        .context("cannot run cargo")?;
    ensure!(output.status.success(), "the bench does not build: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let executable = |message: Value| message.get("executable")?.as_str().map(PathBuf::from);
    messages.filter_map(executable).next_back().context("cargo named no executable")
}

/// Instructions a frame of one round.
fn count(executable: &PathBuf, bench: &str) -> Result<u64> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let output = Command::new(program::need("valgrind")?)
        .args(["--tool=callgrind", "--toggle-collect=*counted_round*"])
        .arg(format!("--callgrind-out-file={}", folder.path().join("out").display()))
        .arg(executable)
        .args(["--count", bench])
        .output()
        .context("cannot run valgrind")?;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{told}");
    let frames: u64 = said.trim().parse().with_context(|| format!("the bench said `{said}`"))?;
    let collected = told.lines().find_map(|line| line.split_once("Collected :"));
    let collected: u64 = collected.context("valgrind counted nothing")?.1.trim().parse()?;
    ensure!(frames > 0 && collected > 100 * frames, "{collected} instructions for {frames} frames");
    Ok(collected / frames)
}
