//! What the steps came to, in the words of cargo's own harness.
//!
//! It may know names and outcomes. It must never run anything but the step it is given.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use fw_tests::site::Site;

use crate::steps::{self, Step};

/// The outcomes so far.
pub(crate) struct Report {
    wanted: Vec<String>,
    passed: u32,
    failed: u32,
    ignored: u32,
    start: Instant,
}

impl Report {
    /// A report on the tests whose names hold one of the words in `arguments`; on all if there is none.
    pub(crate) fn new(arguments: Vec<String>) -> Self {
        let wanted = arguments.into_iter().filter(|word| !word.starts_with('-')).collect();
        Self { wanted, passed: 0, failed: 0, ignored: 0, start: Instant::now() }
    }

    /// Prints the names of all tests.
    pub(crate) fn list(&self) {
        for (wing, steps) in [("bridge", steps::BRIDGE), ("switch", steps::SWITCH)] {
            for step in steps {
                self.say(&format!("{wing}::{}: test", step.name));
            }
        }
    }

    /// Whether the test of this name was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|word| name.contains(word.as_str()))
    }

    /// Whether any of the steps was asked for.
    pub(crate) fn wants_any(&self, wing: &str, steps: &[Step]) -> bool {
        steps.iter().any(|step| self.wants(&format!("{wing}::{}", step.name)))
    }

    /// Runs a step and notes what it came to.
    pub(crate) fn step(&mut self, wing: &str, step: &Step, site: &mut Site) {
        let name = format!("{wing}::{}", step.name);
        if self.wants(&name) {
            let outcome = (step.run)(site);
            self.note(&name, &outcome);
            if outcome.is_err() {
                for place in [&site.web, &site.client] {
                    let log = place.firewall.log_tail().replace('\n', "\n    ");
                    self.say(&format!("    the firewall of {} said last:\n    {log}", place.end.name));
                }
            }
        }
    }

    /// Notes an outcome: done, ignored for a reason, or failed.
    pub(crate) fn note(&mut self, name: &str, outcome: &Result<Option<String>>) {
        match outcome {
            Ok(None) => {
                self.passed += 1;
                self.say(&format!("test {name} ... ok"));
            }
            Ok(Some(why)) => self.ignore(name, why),
            Err(error) => {
                self.failed += 1;
                self.say(&format!("test {name} ... FAILED\n    {error:#}"));
            }
        }
    }

    /// Notes a test that this machine cannot run.
    pub(crate) fn ignore(&mut self, name: &str, why: &str) {
        self.ignored += 1;
        self.say(&format!("test {name} ... ignored, {}", why.replace('\n', " ")));
    }

    /// Failures so far.
    pub(crate) fn failed(&self) -> u32 {
        self.failed
    }

    /// Takes over a line that another report printed.
    pub(crate) fn adopt(&mut self, wing: &str, line: &str) {
        let Some((name, verdict)) = line.strip_prefix("test ").and_then(|test| test.split_once(" ... "))
        else {
            return;
        };
        match verdict.split_once(", ").unwrap_or((verdict, "")) {
            ("ok", _) => self.passed += 1,
            ("ignored", _) => self.ignored += 1,
            _ => self.failed += 1,
        }
        self.say(&format!("test {wing}::{name} ... {verdict}"));
    }

    /// Prints a line.
    pub(crate) fn say(&self, line: &str) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Prints the last line and gives the exit code.
    pub(crate) fn close(self) -> ExitCode {
        let word = if self.failed == 0 { "ok" } else { "FAILED" };
        self.say(&format!(
            "\ntest result: {word}. {} passed; {} failed; {} ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
            self.passed,
            self.failed,
            self.ignored,
            self.start.elapsed().as_secs_f32()
        ));
        if self.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
