//! What the steps came to, in the words of cargo's own harness.
//!
//! For tests that bring their own harness, because they need namespaces or share guests. It may know names and
//! outcomes. It must never run anything but what it is given.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
/// The outcomes so far.
#[derive(Debug)]
pub struct Report {
    wanted: Vec<String>,
    passed: u32,
    failed: u32,
    ignored: u32,
    start: Instant,
}

impl Report {
    /// A report on what the command line asks for: the tests whose names hold one of its words, all if there is none. With
    /// `--list` only `names` are printed, and there is nothing to report.
    #[must_use]
    pub fn asked<'n>(names: impl IntoIterator<Item = &'n str>) -> Option<Self> {
        let words: Vec<String> = env::args().skip(1).collect();
        let lists = words.iter().any(|word| word == "--list");
        let wanted = words.into_iter().filter(|word| !word.starts_with('-')).collect();
        let report = Self { wanted, passed: 0, failed: 0, ignored: 0, start: Instant::now() };
        if lists {
            names.into_iter().for_each(|name| report.say(&format!("{name}: test")));
        }
        (!lists).then_some(report)
    }

    /// Whether the test of this name was asked for.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|word| name.contains(word.as_str()))
    }

    /// Runs the test of this name if it was asked for, and notes what it came to.
    pub fn run(&mut self, name: &str, test: impl FnOnce() -> Result<Option<String>>) {
        if self.wants(name) {
            let outcome = test();
            self.note(name, &outcome);
        }
    }

    /// Notes an outcome: done, ignored for a reason, or failed.
    pub fn note(&mut self, name: &str, outcome: &Result<Option<String>>) {
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
    pub fn ignore(&mut self, name: &str, why: &str) {
        self.ignored += 1;
        self.say(&format!("test {name} ... ignored, {}", why.replace('\n', " ")));
    }

    /// Failures so far.
    #[must_use]
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Takes over a line that another report printed.
    pub fn adopt(&mut self, wing: &str, line: &str) {
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
    pub fn say(&self, line: &str) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }

    /// Prints the last line and gives the exit code.
    #[must_use]
    pub fn close(self) -> ExitCode {
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
