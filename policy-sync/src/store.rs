//! Where the policy, its history and what is known of hosts is kept, behind one trait.
//!
//! Every implementation passes the same tests (`store/conformance.rs`). Knows documents as text. Never knows what one says.

#[cfg(test)]
mod conformance;
mod schema;
pub(crate) mod sqlite;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::roles::{Grant, Host};

/// Longest text of one document, in bytes.
pub(crate) const DOCUMENT_MAX: usize = 4 << 20;
/// Most documents in a policy.
pub(crate) const DOCUMENTS_MAX: usize = 10_000;

/// The name of a document: who owns it, and what it is called there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Key {
    /// A tenant's name, or `provider`.
    pub(crate) owner: String,
    /// Its own name.
    pub(crate) name: String,
}

/// A whole policy: the text of every document.
pub(crate) type Documents = BTreeMap<Key, String>;

/// What one version changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    /// The version this is a change to.
    pub(crate) base: u64,
    /// Who asked for it.
    pub(crate) who: String,
    /// What for, in words.
    pub(crate) note: String,
    /// All documents after it.
    pub(crate) documents: Documents,
    /// By NIC whose rules changed: a code over its new rules.
    pub(crate) nics: BTreeMap<String, [u8; 32]>,
    /// NICs that are gone.
    pub(crate) nics_gone: Vec<String>,
    /// The moment, milliseconds since 1970.
    pub(crate) at_ms: i64,
}

/// One version of the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Version {
    /// Its number; the first is 1.
    pub(crate) version: u64,
    /// When it came, milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// Who asked for it.
    pub(crate) who: String,
    /// What for.
    pub(crate) note: String,
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct AuditLine {
    /// Counted from 1, without a gap.
    pub(crate) number: u64,
    /// Milliseconds since 1970.
    pub(crate) at_ms: i64,
    /// Who.
    pub(crate) who: String,
    /// Did what.
    pub(crate) what: String,
    /// A code over this line and the one before, hexadecimal.
    pub(crate) chain: String,
}

/// What a NIC was given: since which version, and a code over its rules.
pub(crate) type Generations = BTreeMap<String, (u64, [u8; 32])>;

/// Why something was not kept or found. What was in force stays so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Somebody was faster.
    #[error("this builds on version {base}, and {found} is the newest: read it, and ask again")]
    Stale {
        /// The version that was meant.
        base: u64,
        /// The newest there is.
        found: u64,
    },
    /// No room.
    #[error("the disk is full: nothing was changed; make room and ask again")]
    Full,
    /// Somebody else holds the file.
    #[error("the database is held by another process: nothing was changed")]
    Busy,
    /// The file is not what it was.
    #[error("the database is damaged ({0}): nothing was changed; put a backup in its place")]
    Damaged(String),
    /// There is no such thing.
    #[error("there is no {0}")]
    Missing(String),
    /// Something else.
    #[error("the database: {0}")]
    Other(String),
}

/// Where things are kept. A write is whole or not at all, and is on the disk when it returns.
pub(crate) trait Store: Send {
    /// The newest version; 0 = there is none yet.
    fn head(&self) -> Result<u64, StoreError>;

    /// The documents of a version; none of version 0.
    fn documents(&self, version: u64) -> Result<Documents, StoreError>;

    /// A new version, if `change.base` is the newest.
    fn commit(&mut self, change: &Change) -> Result<u64, StoreError>;

    /// The newest versions, newest first.
    fn history(&self, count: u32) -> Result<Vec<Version>, StoreError>;

    /// What every NIC was given.
    fn generations(&self) -> Result<Generations, StoreError>;

    /// Keeps a token by a code over its secret.
    fn add_token(&mut self, code: [u8; 32], grant: &Grant) -> Result<(), StoreError>;

    /// What the token with this code grants; `None` if there is none.
    fn token(&self, code: [u8; 32]) -> Result<Option<Grant>, StoreError>;

    /// Removes a token by its name; whether there was one.
    fn remove_token(&mut self, name: &str) -> Result<bool, StoreError>;

    /// Keeps a word with which `host` may enrol once, until `expires_ms`.
    fn add_enrolment(&mut self, code: [u8; 32], host: &str, expires_ms: i64) -> Result<(), StoreError>;

    /// Uses up a word; the host it was for, if it is still good at `now_ms`.
    fn take_enrolment(&mut self, code: [u8; 32], now_ms: i64) -> Result<Option<String>, StoreError>;

    /// Keeps what is known of a host.
    fn put_host(&mut self, host: &Host) -> Result<(), StoreError>;

    /// What is known of hosts.
    fn hosts(&self) -> Result<Vec<Host>, StoreError>;

    /// Adds a line to the audit log.
    fn audit(&mut self, at_ms: i64, who: &str, what: &str) -> Result<(), StoreError>;

    /// The audit log, oldest first.
    fn audit_log(&self) -> Result<Vec<AuditLine>, StoreError>;
}

/// The code of a line that follows the line with `before`.
pub(crate) fn chained(before: &str, number: u64, at_ms: i64, who: &str, what: &str) -> String {
    let mut hash = blake3::Hasher::new();
    for part in [before, &number.to_string(), &at_ms.to_string(), who, what] {
        hash.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_hex().to_string()
}

/// The first line that does not follow from those before it; `None` if all do.
pub(crate) fn first_broken(lines: &[AuditLine]) -> Option<u64> {
    let mut before = String::new();
    for (line, number) in lines.iter().zip(1..) {
        let chain = chained(&before, line.number, line.at_ms, &line.who, &line.what);
        if line.number != number || line.chain != chain {
            return Some(number);
        }
        before = chain;
    }
    None
}
