//! `scripts/test`: every test this machine can run, and at the end what was left out and why.
//!
//! It may know how cargo reports. It must never call a run green that ran nothing.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::program;

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Under five minutes.
    Fast,
    /// Everything within forty minutes on two cores.
    Whole,
    /// The big counts too.
    Long,
}

/// Tells tests how much is asked of them: `fast`, `whole` or `long`.
pub const SIZE: &str = "PORTCULLIS_TEST_SIZE";

impl Size {
    /// The size asked of this process by [`SIZE`]; whole if nothing was.
    #[must_use]
    pub fn asked() -> Self {
        match std::env::var(SIZE).as_deref() {
            Ok("fast") => Self::Fast,
            Ok("long") => Self::Long,
            Ok(_) | Err(_) => Self::Whole,
        }
    }

    /// Its word in [`SIZE`].
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Whole => "whole",
            Self::Long => "long",
        }
    }
}

/// What the runs came to so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skips: Vec<String>,
    failures: Vec<String>,
}

impl Tally {
    /// Takes one line of a run into account.
    fn read(&mut self, line: &str) {
        if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count_before(counts, "passed");
            self.failed += count_before(counts, "failed");
        } else if let Some((name, verdict)) =
            line.strip_prefix("test ").and_then(|test| test.split_once(" ... "))
        {
            if verdict.starts_with("ignored") {
                let why = verdict.trim_start_matches("ignored").trim_start_matches(", ");
                let why = if why.is_empty() { "marked as ignored" } else { why };
                self.skips.push(format!("{name}: {why}"));
            } else if verdict.starts_with("FAILED") {
                self.failures.push(name.to_owned());
            }
        }
    }
}

/// The number before `word` in `4 passed; 0 failed; …`.
fn count_before(counts: &str, word: &str) -> u64 {
    let words: Vec<&str> = counts.split([' ', ';', '.']).filter(|part| !part.is_empty()).collect();
    words
        .windows(2)
        .find_map(|pair| match pair {
            [number, name] if *name == word => number.parse().ok(),
            _ => None,
        })
        .unwrap_or(0)
}

/// Runs the tests of the whole workspace, those with real VMs among them; whether none failed.
///
/// # Errors
/// Cargo cannot be run.
pub fn run(size: Size) -> Result<bool> {
    let start = Instant::now();
    let mut tally = Tally::default();
    program::build()?;
    let mut words = vec!["test", "--workspace", "--no-fail-fast"];
    if size == Size::Long {
        words.extend(["--", "--include-ignored"]);
    }
    let ended_well = cargo(&words, size, &mut tally)?;
    if !ended_well && tally.failed == 0 {
        tally.failed = 1;
        tally.failures.push("a test program did not build, or died".to_owned());
    }
    close(&tally, start)?;
    Ok(tally.failed == 0 && tally.passed > 0)
}

fn cargo(words: &[&str], size: Size, tally: &mut Tally) -> Result<bool> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(program::repository())
        .args(words)
        .env(SIZE, size.word())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let said = BufReader::new(cargo.stdout.take().context("cargo without an output")?);
    let mut out = io::stdout().lock();
    for line in said.lines() {
        let line = line?;
        writeln!(out, "{line}")?;
        tally.read(&line);
    }
    Ok(cargo.wait()?.success())
}

fn close(tally: &Tally, start: Instant) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\nall of it took {} s", start.elapsed().as_secs())?;
    for failure in &tally.failures {
        writeln!(out, "FAILED: {failure}")?;
    }
    for skip in &tally.skips {
        writeln!(out, "skipped: {skip}")?;
    }
    writeln!(out, "{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skips.len())?;
    Ok(out.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_counted_and_every_skip_has_its_reason() {
        let mut tally = Tally::default();
        for line in [
            "test a::runt_is_dropped ... ok",
            "test slow ... ignored, needs an hour",
            "test odd ... ignored",
            "test wrong ... FAILED",
            "test result: FAILED. 12 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: ok. 3 passed; 0 failed; 0 ignored",
        ] {
            tally.read(line);
        }
        assert_eq!(
            tally,
            Tally {
                passed: 15,
                failed: 1,
                skips: vec!["slow: needs an hour".into(), "odd: marked as ignored".into()],
                failures: vec!["wrong".into()],
            }
        );
    }
}
