//! What is wrong with a file: all of it at once, each with its line.
//!
//! Knows a file's name and line numbers. Never knows what a right file looks like.

use std::fmt;

/// Most problems that are told; the rest is counted.
const TOLD_MAX: usize = 50;

/// Problems as they are found.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<(usize, String)>,
    more: usize,
}

impl Problems {
    /// Adds one, unless there are so many already that nobody reads it.
    pub fn add(&mut self, line: usize, message: impl Into<String>) {
        if self.list.len() < TOLD_MAX { self.list.push((line, message.into())) } else { self.more += 1 }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The problems by line with what is wrong, and how many more there are.
    #[must_use]
    pub fn into_list(mut self) -> (Vec<(usize, String)>, usize) {
        self.list.sort_by_key(|(line, _)| *line);
        (self.list, self.more)
    }

    /// All of them as one error about `file`.
    #[must_use]
    pub fn into_error(mut self, file: &str) -> DocumentError {
        self.list.sort_by_key(|(line, _)| *line);
        let mut lines: Vec<_> =
            self.list.iter().map(|(line, message)| format!("{file}:{line}: {message}")).collect();
        if self.more > 0 {
            lines.push(format!("{file}: and {} more", self.more));
        }
        DocumentError { lines }
    }
}

/// Why a file is refused as a whole: one line per problem, each with file and line number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentError {
    lines: Vec<String>,
}

impl DocumentError {
    /// The file cannot be read at all.
    pub fn unreadable(file: &str, why: impl fmt::Display) -> Self {
        Self { lines: vec![format!("{file}: {why}")] }
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

impl std::error::Error for DocumentError {}
