//! Why bytes are no snapshot.
//!
//! One variant per thing that can be wrong, so that a refusal names it. Knows nothing but words.

use crate::negotiate::Versions;

/// Why bytes are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// It does not begin as a snapshot does.
    #[error("this is no snapshot: it does not begin with the right eight bytes")]
    Magic,
    /// Written in a version this program cannot read.
    #[error("version {written}, readable from version {readable_from} on, and this program reads {ours}")]
    Version {
        /// The version it is written in.
        written: u16,
        /// The oldest version that can read it.
        readable_from: u16,
        /// What can be read here.
        ours: Versions,
    },
    /// Nobody with the key wrote it, or it was changed.
    #[error("the {0} is not authentic: another key, or altered bytes")]
    NotAuthentic(&'static str),
    /// It ends early.
    #[error("it ends within the {0}")]
    CutShort(&'static str),
    /// More follows than it says.
    #[error("{0} bytes follow its end")]
    Trailing(u64),
    /// A field holds what it cannot.
    #[error("{0}")]
    Malformed(&'static str),
    /// It has more than may be read.
    #[error("{what}: {found}, and at most {limit} are accepted")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// So many.
        found: u64,
        /// At most.
        limit: u64,
    },
}
