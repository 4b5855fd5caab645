//! A YAML file that people write: every value with its line, every mistake with a remedy.
//!
//! Text becomes a tree, and the tree is read value by value. Knows YAML and how to say what was expected. Never
//! knows which keys a file has, nor what they mean.

pub(crate) mod problems;
pub(crate) mod read;
pub(crate) mod tree;

use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use problems::DocumentError;

/// The longest file, in bytes.
pub(crate) const FILE_LEN_MAX: usize = 64 << 20;

/// The text of a file that is not too long.
pub(crate) fn text_of(path: &Path, name: &str) -> Result<String, DocumentError> {
    let mut bytes = Vec::new();
    let limit = FILE_LEN_MAX as u64 + 1;
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|error| DocumentError::unreadable(name, error))?;
    within_limit(bytes.len(), name)?;
    String::from_utf8(bytes)
        .map_err(|error| DocumentError::unreadable(name, format_args!("not UTF-8: {error}")))
}

pub(crate) fn within_limit(length: usize, name: &str) -> Result<(), DocumentError> {
    if length <= FILE_LEN_MAX {
        return Ok(());
    }
    Err(DocumentError::unreadable(name, format_args!("longer than {FILE_LEN_MAX} bytes")))
}
