//! Which version two programs share.
//!
//! Knows ranges of versions. Never knows what a version looks like.

use std::fmt;

/// The versions a program reads and writes, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Versions {
    /// This program's.
    pub const OURS: Self = Self { oldest: 1, newest: 1 };

    /// Whether a snapshot written in `version` and readable from `readable_from` on can be read.
    #[must_use]
    pub const fn read(self, version: u16, readable_from: u16) -> bool {
        readable_from <= version
            && version >= self.oldest
            && readable_from <= self.newest
            && readable_from >= 1
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.oldest == self.newest {
            write!(f, "version {}", self.newest)
        } else {
            write!(f, "versions {} to {}", self.oldest, self.newest)
        }
    }
}

/// The newest version both know; `None` if there is none.
#[must_use]
pub fn common_version(ours: Versions, theirs: Versions) -> Option<u16> {
    let newest = ours.newest.min(theirs.newest);
    (newest >= ours.oldest.max(theirs.oldest)).then_some(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn versions(oldest: u16, newest: u16) -> Versions {
        Versions { oldest, newest }
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        let table = [
            ((1, 1), (1, 1), Some(1)),
            ((1, 3), (2, 5), Some(3)),
            ((2, 5), (1, 3), Some(3)),
            ((1, 2), (3, 4), None),
            ((3, 4), (1, 2), None),
            ((1, 9), (4, 4), Some(4)),
        ];
        for ((a, b), (c, d), common) in table {
            assert_eq!(common_version(versions(a, b), versions(c, d)), common, "{a}-{b} and {c}-{d}");
        }
    }

    #[test]
    fn a_newer_snapshot_is_read_if_it_says_that_it_can_be() {
        assert!(versions(1, 2).read(3, 2));
        assert!(!versions(1, 2).read(3, 3));
        assert!(!versions(2, 3).read(1, 1));
        assert!(!versions(1, 2).read(1, 2), "nothing is readable only by what is newer than itself");
        assert!(!versions(0, 2).read(1, 0));
    }
}
