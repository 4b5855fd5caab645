//! What is wrong with a policy, or likely not meant: all of it at once, each with its file and line.
//!
//! Knows places and words. Never knows what a right policy looks like.

use std::fmt;
use std::sync::Arc;

/// Most findings that are told; the rest is counted.
const TOLD_MAX: usize = 200;

/// Where something is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Which of the files, counted from 0.
    pub file: usize,
    /// The line, counted from 1.
    pub line: usize,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The whole policy is refused.
    Error,
    /// Accepted; somebody should look.
    Warning,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Diagnostic {
    /// The file's name.
    pub file: Arc<str>,
    /// The line, counted from 1.
    pub line: usize,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, what was expected, and the remedy.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, severity, message } = self;
        match severity {
            Severity::Error => write!(f, "{file}:{line}: {message}"),
            Severity::Warning => write!(f, "{file}:{line}: warning: {message}"),
        }
    }
}

/// Why a policy is refused: one line per finding, by file and line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The findings that are told.
    pub diagnostics: Vec<Diagnostic>,
    /// How many more there are.
    pub more: usize,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, diagnostic) in self.diagnostics.iter().enumerate() {
            write!(f, "{}{diagnostic}", if place == 0 { "" } else { "\n" })?;
        }
        if self.more > 0 { write!(f, "\nand {} more", self.more) } else { Ok(()) }
    }
}

impl std::error::Error for Refusal {}

/// Findings as they come up.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    list: Vec<(Place, Severity, String)>,
    more: usize,
    errors: usize,
}

impl Findings {
    pub(crate) fn error(&mut self, place: Place, message: impl Into<String>) {
        self.errors += 1;
        self.add(place, Severity::Error, message);
    }

    pub(crate) fn warn(&mut self, place: Place, message: impl Into<String>) {
        self.add(place, Severity::Warning, message);
    }

    fn add(&mut self, place: Place, severity: Severity, message: impl Into<String>) {
        if self.list.len() < TOLD_MAX {
            self.list.push((place, severity, message.into()))
        } else {
            self.more += 1
        }
    }

    /// Whether no further message will be told: making one would be for nothing.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= TOLD_MAX
    }

    /// Counts findings that nobody will read.
    pub(crate) fn add_untold(&mut self, more: usize) {
        self.more += more;
    }

    /// The findings with their files' names; refused if one of them is an error.
    pub(crate) fn told(self, files: &[Arc<str>]) -> Result<Vec<Diagnostic>, Refusal> {
        let unnamed: Arc<str> = "?".into();
        let named = |(place, severity, message): (Place, Severity, String)| Diagnostic {
            file: Arc::clone(files.get(place.file).unwrap_or(&unnamed)),
            line: place.line,
            severity,
            message,
        };
        let mut list = self.list;
        list.sort();
        list.dedup();
        let diagnostics: Vec<_> = list.into_iter().map(named).collect();
        if self.errors == 0 { Ok(diagnostics) } else { Err(Refusal { diagnostics, more: self.more }) }
    }
}
