//! Which handover may come, and how much of it is believed.
//!
//! An announced handover comes once and is believed; anything else is as `--restore` says. Knows ids. Never knows a conn.

use std::collections::VecDeque;
use std::str::FromStr;

use fw_engine::Trust;
use fw_model::HandoverId;

use super::HandoverError;
use crate::crash_copy::TAKEN_MAX;

/// What becomes of a table that nobody announced: a VMM moved or restored its VM by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restore {
    /// Its conns are judged again and resume: what is known of their windows may be old.
    Revalidate,
    /// It is refused and the NIC closed.
    Refuse,
    /// It is accepted and none of it taken: the VM starts with an empty table.
    Empty,
}

impl FromStr for Restore {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "revalidate" => Ok(Self::Revalidate),
            "refuse" => Ok(Self::Refuse),
            "empty" => Ok(Self::Empty),
            _ => Err(format!("`{text}`: expected revalidate, refuse or empty")),
        }
    }
}

/// The handovers of one NIC.
#[derive(Debug)]
pub(super) struct Expected {
    restore: Restore,
    /// The next table that leaves belongs to it.
    announced: HandoverId,
    /// The next table that arrives must be its.
    expected: HandoverId,
    taken: VecDeque<HandoverId>,
}

impl Expected {
    pub(super) const fn new(restore: Restore) -> Self {
        Self { restore, announced: HandoverId::NONE, expected: HandoverId::NONE, taken: VecDeque::new() }
    }

    pub(super) const fn announce(&mut self, id: HandoverId) {
        self.announced = id;
    }

    /// These were taken before, oldest first, by a process before this one.
    pub(super) fn know(&mut self, taken: &[HandoverId]) {
        taken.iter().for_each(|id| self.remember(*id));
    }

    /// Under which name a table leaves that does so now. The name stays until [`Expected::left`]: a try that fails is
    /// followed by another.
    pub(super) const fn announced(&self) -> HandoverId {
        self.announced
    }

    /// A table left under this name, whole.
    pub(super) fn left(&mut self, id: HandoverId) {
        if self.announced == id {
            self.announced = HandoverId::NONE;
        }
    }

    pub(super) const fn expect(&mut self, id: HandoverId) {
        self.expected = id;
    }

    /// What the next table that leaves belongs to, and the last one that was taken.
    pub(super) fn named(&self) -> (Option<HandoverId>, Option<HandoverId>) {
        let announced = Some(self.announced).filter(|id| *id != HandoverId::NONE);
        (announced, self.taken.back().copied())
    }

    /// Refuses what is not expected by name.
    pub(super) fn require(&self, found: HandoverId) -> Result<(), HandoverError> {
        let expected = self.expected;
        if expected == found && found != HandoverId::NONE {
            Ok(())
        } else {
            Err(HandoverError::Unexpected { expected, found })
        }
    }

    pub(super) fn is_any(&self) -> bool {
        self.announced != HandoverId::NONE || self.expected != HandoverId::NONE
    }

    pub(super) const fn cancel(&mut self) {
        self.announced = HandoverId::NONE;
        self.expected = HandoverId::NONE;
    }

    /// Whether the table of this handover may come: how much of it is believed, `None` if it is to be forgotten.
    pub(super) fn admit(&mut self, found: HandoverId) -> Result<Option<Trust>, HandoverError> {
        if found != HandoverId::NONE && self.taken.contains(&found) {
            return Err(HandoverError::Replayed(found));
        }
        if self.expected != HandoverId::NONE {
            let expected = self.expected;
            if expected != found {
                return Err(HandoverError::Unexpected { expected, found });
            }
            self.expected = HandoverId::NONE;
            self.remember(found);
            return Ok(Some(Trust::Exact));
        }
        match self.restore {
            Restore::Refuse => Err(HandoverError::Unannounced),
            Restore::Empty => Ok(None),
            Restore::Revalidate => {
                self.remember(found);
                Ok(Some(Trust::Resuming))
            }
        }
    }

    fn remember(&mut self, taken: HandoverId) {
        if taken == HandoverId::NONE {
            return;
        }
        if self.taken.len() >= TAKEN_MAX {
            self.taken.pop_front();
        }
        self.taken.push_back(taken);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: HandoverId = HandoverId([1; 16]);
    const TWO: HandoverId = HandoverId([2; 16]);

    #[test]
    fn an_expected_handover_is_believed_once() {
        let mut expected = Expected::new(Restore::Revalidate);
        expected.expect(ONE);
        assert!(matches!(expected.admit(TWO), Err(HandoverError::Unexpected { .. })));
        assert!(matches!(expected.admit(HandoverId::NONE), Err(HandoverError::Unexpected { .. })));
        assert_eq!(expected.admit(ONE).unwrap(), Some(Trust::Exact));
        assert!(matches!(expected.admit(ONE), Err(HandoverError::Replayed(_))));
        expected.expect(ONE);
        assert!(matches!(expected.admit(ONE), Err(HandoverError::Replayed(_))));
    }

    #[test]
    fn what_nobody_announced_is_as_the_operator_said() {
        let admit = |restore, id| Expected::new(restore).admit(id);
        for id in [HandoverId::NONE, ONE] {
            assert_eq!(admit(Restore::Revalidate, id).unwrap(), Some(Trust::Resuming));
            assert_eq!(admit(Restore::Empty, id).unwrap(), None);
            assert!(matches!(admit(Restore::Refuse, id), Err(HandoverError::Unannounced)));
        }
    }

    /// Its copy would put the VM in two places, whether it was expected here or not.
    #[test]
    fn what_leaves_under_a_name_is_taken_once() {
        let mut unexpected = Expected::new(Restore::Revalidate);
        assert_eq!(unexpected.admit(ONE).unwrap(), Some(Trust::Resuming));
        assert!(matches!(unexpected.admit(ONE), Err(HandoverError::Replayed(_))));
        // A table without a name is a VM's own snapshot, which may be restored again.
        for _ in 0..2 {
            assert_eq!(unexpected.admit(HandoverId::NONE).unwrap(), Some(Trust::Resuming));
        }
    }

    #[test]
    fn an_announced_id_leaves_with_one_table_however_many_tries_that_takes() {
        let mut expected = Expected::new(Restore::Refuse);
        assert_eq!(expected.announced(), HandoverId::NONE);
        expected.announce(ONE);
        assert_eq!((expected.announced(), expected.announced()), (ONE, ONE));
        // What left was not this one: another was announced meanwhile.
        expected.left(TWO);
        assert_eq!(expected.announced(), ONE);
        expected.left(ONE);
        assert_eq!(expected.announced(), HandoverId::NONE);
    }
}
