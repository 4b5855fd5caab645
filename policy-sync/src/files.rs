//! Policies in files and folders.
//!
//! Knows paths. Never knows what a document says.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use fw_document::text_of;
use policy_compiler::{Author, Compiled, Source, compile, read};

use crate::clock::now_ms;

/// Most files of one policy.
const FILES_MAX: usize = 10_000;
/// Most bytes of one policy.
const BYTES_MAX: usize = 256 << 20;

/// Why a policy cannot be had: one line per problem.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file or folder cannot be read.
    #[error("{path}: {why}")]
    Unreadable {
        /// The path.
        path: String,
        /// Why not.
        why: io::Error,
    },
    /// It is not text, or too long.
    #[error("{0}")]
    NotText(#[from] fw_document::DocumentError),
    /// There is nothing to read.
    #[error("{0}: no *.yaml, *.yml or *.json file in this folder")]
    Empty(String),
    /// There is too much.
    #[error("the policy has more than {0}")]
    TooMuch(String),
    /// It is wrong; nothing of it is taken.
    #[error("{0}")]
    Refused(#[from] policy_compiler::Refusal),
    /// The result cannot be written.
    #[error("cannot write the result: {0}")]
    Unwritten(io::Error),
    /// Something was asked for that is not there.
    #[error("{0}")]
    Unknown(String),
}

/// Reads and compiles the policy in `paths`, on the provider's behalf.
///
/// # Errors
/// It cannot be read, or is wrong.
pub fn load(paths: &[PathBuf], generation: u64) -> Result<Compiled, PolicyError> {
    let mut texts = Vec::new();
    let mut bytes = 0;
    for path in files_of(paths)? {
        let name = path.display().to_string();
        let text = text_of(File::open(&path), &name)?;
        bytes += text.len();
        if bytes > BYTES_MAX {
            return Err(PolicyError::TooMuch(format!("{BYTES_MAX} bytes")));
        }
        texts.push((name, text));
    }
    let sources: Vec<Source<'_>> =
        texts.iter().map(|(name, text)| Source { name, text, author: Author::Provider }).collect();
    Ok(compile(read(&sources)?, now_ms(), generation))
}

/// The files that `paths` mean: folders stand for the documents in them, by name, folders inside included.
fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>, PolicyError> {
    let mut files = Vec::new();
    for path in paths {
        let before = files.len();
        let mut folders = Vec::new();
        if path.is_dir() {
            folders.push(path.clone())
        } else {
            files.push(path.clone())
        }
        while let Some(folder) = folders.pop() {
            for entry in entries(&folder)? {
                if entry.is_dir() {
                    folders.push(entry);
                } else if is_document(&entry) {
                    files.push(entry);
                }
                if files.len() > FILES_MAX {
                    return Err(PolicyError::TooMuch(format!("{FILES_MAX} files")));
                }
            }
        }
        if files.len() == before {
            return Err(PolicyError::Empty(path.display().to_string()));
        }
        if let Some(found) = files.get_mut(before..) {
            found.sort();
        }
    }
    Ok(files)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, PolicyError> {
    let unreadable = |why| PolicyError::Unreadable { path: folder.display().to_string(), why };
    let entries = fs::read_dir(folder).map_err(unreadable)?;
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(unreadable)).collect()
}

fn is_document(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let known = path
        .extension()
        .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
    known && !hidden
}
