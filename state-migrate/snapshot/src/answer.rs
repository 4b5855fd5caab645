//! What the taker of a snapshot answers its giver.
//!
//! A byte that says yes or no, a length, and the snapshot's code or the cause. Knows these bytes. Never knows how they
//! travel.

use crate::SnapshotError;

/// Bytes before an answer's rest.
pub const ANSWER_HEAD_LEN: usize = 3;
/// The longest cause that is told, in bytes.
const CAUSE_MAX: usize = 1024;
const CODE_LEN: u16 = 32;
const WHAT: &str = "answer";

/// What became of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was taken: the code of its header, by which the next one names it.
    Taken([u8; 32]),
    /// It was not, for this cause.
    Refused(String),
}

impl Answer {
    /// The answer's bytes.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (kind, rest) = match self {
            Self::Taken(code) => (1, code.as_slice()),
            Self::Refused(cause) => {
                let end = (0..=CAUSE_MAX.min(cause.len())).rev().find(|end| cause.is_char_boundary(*end));
                (0, cause.as_bytes().get(..end.unwrap_or(0)).unwrap_or_default())
            }
        };
        let length = u16::try_from(rest.len()).unwrap_or(0).to_le_bytes();
        [&[kind], length.as_slice(), rest].concat()
    }

    /// How many bytes follow a head.
    ///
    /// # Errors
    /// It is none.
    pub fn rest_len(head: [u8; ANSWER_HEAD_LEN]) -> Result<usize, SnapshotError> {
        let [kind, low, high] = head;
        let length = u16::from_le_bytes([low, high]);
        let right = match kind {
            1 => length == CODE_LEN,
            0 => usize::from(length) <= CAUSE_MAX,
            _ => false,
        };
        if right {
            Ok(length.into())
        } else {
            Err(SnapshotError::Malformed("this is no answer to a snapshot"))
        }
    }

    /// Reads an answer whose head and rest are here.
    ///
    /// # Errors
    /// They are none.
    pub fn read(head: [u8; ANSWER_HEAD_LEN], rest: &[u8]) -> Result<Self, SnapshotError> {
        let [kind, ..] = head;
        if Self::rest_len(head)? != rest.len() {
            return Err(SnapshotError::CutShort(WHAT));
        }
        if kind == 1 {
            return rest.try_into().map(Self::Taken).map_err(|_| SnapshotError::CutShort(WHAT));
        }
        let cause = String::from_utf8_lossy(rest);
        // What a terminal would obey is nothing to print.
        Ok(Self::Refused(cause.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Answer, SnapshotError> {
        let (head, rest) = bytes.split_first_chunk().ok_or(SnapshotError::CutShort(WHAT))?;
        Answer::read(*head, rest)
    }

    #[test]
    fn an_answer_is_read_as_it_was_written() {
        for answer in [Answer::Taken([7; 32]), Answer::Refused("another key".to_owned())] {
            assert_eq!(read(&answer.bytes()), Ok(answer));
        }
        let long = "ä".repeat(CAUSE_MAX);
        let Ok(Answer::Refused(told)) = read(&Answer::Refused(long).bytes()) else { panic!() };
        assert_eq!(told, "ä".repeat(CAUSE_MAX / 2));
    }

    #[test]
    fn other_bytes_are_no_answer() {
        for wrong in [&[2, 0, 0][..], &[1, 31, 0], &[0, 1, 4], &[1, 32, 0, 1], &[0, 1, 0]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        let told = read(&Answer::Refused("a\x1b[2Jb".to_owned()).bytes());
        assert_eq!(told, Ok(Answer::Refused("a [2Jb".to_owned())));
    }
}
