//! A YAML file that people write: every value with its line, every mistake with a remedy.
//!
//! Text becomes a tree, the tree is read value by value, and the model's nouns have one written form in every file. Knows
//! YAML and how to say what was expected. Never opens a file, nor knows which keys one has.
#![forbid(unsafe_code)]

pub mod matching;
pub mod nic;
pub mod problems;
pub mod read;
pub mod tree;

use std::io::{self, Read};

pub use problems::DocumentError;

/// The longest file, in bytes.
pub const FILE_LEN_MAX: usize = 64 << 20;

/// The text of a file that was opened and is not too long; `name` stands for it in errors.
///
/// # Errors
/// It cannot be opened or read, is longer than [`FILE_LEN_MAX`] or is not UTF-8.
pub fn text_of(opened: io::Result<impl Read>, name: &str) -> Result<String, DocumentError> {
    let mut bytes = Vec::new();
    let limit = FILE_LEN_MAX as u64 + 1;
    let read = opened.and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|error| DocumentError::unreadable(name, error))?;
    within_limit(bytes.len(), name)?;
    String::from_utf8(bytes)
        .map_err(|error| DocumentError::unreadable(name, format_args!("not UTF-8: {error}")))
}

/// Refuses a text that is too long before it is read.
///
/// # Errors
/// It is longer than [`FILE_LEN_MAX`].
pub fn within_limit(length: usize, name: &str) -> Result<(), DocumentError> {
    if length <= FILE_LEN_MAX {
        return Ok(());
    }
    Err(DocumentError::unreadable(name, format_args!("longer than {FILE_LEN_MAX} bytes")))
}
