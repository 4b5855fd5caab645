//! A conn table handed from one NIC to another: its name, and what became of it.
//!
//! It may know names and counts. It must never know how conns travel.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Reason;
use crate::addr::serde_as_text;

/// Names one handover: 128 random bits, in hexadecimal where it is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HandoverId(pub [u8; 16]);

impl HandoverId {
    /// No handover was announced: a snapshot for later, or a VMM's own doing.
    pub const NONE: Self = Self([0; 16]);
}

impl fmt::Display for HandoverId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for HandoverId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no handover id: 32 hexadecimal digits, not all of them 0");
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|number| digits && *number != 0);
        Ok(Self(number.ok_or_else(wrong)?.to_be_bytes()))
    }
}

serde_as_text!(HandoverId);

/// What became of conns that were handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// Adopted, admitted by the rule they came with.
    pub kept: u64,
    /// Adopted, though another rule admits them now, or theirs lets them live on.
    pub judged_again: u64,
    /// Not adopted, by reason.
    pub refused: BTreeMap<Reason, u64>,
}

impl Adoption {
    /// Conns not adopted.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }
}

impl fmt::Display for Adoption {
    /// `moved 41233 · re-judged 12 · dropped 3 (2 revoked, 1 table-full)`; those judged again have moved too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moved = self.kept + self.judged_again;
        write!(f, "moved {moved} · re-judged {} · dropped {}", self.judged_again, self.refused())?;
        for (place, (reason, conns)) in self.refused.iter().enumerate() {
            write!(f, "{}{conns} {reason}", if place == 0 { " (" } else { ", " })?;
        }
        if self.refused.is_empty() { Ok(()) } else { f.write_str(")") }
    }
}

/// The last table that was handed to a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Arrived {
    /// It was taken.
    Adopted(Adoption),
    /// It was taken as it were empty: the NIC was started so.
    Emptied,
    /// It was refused as a whole, for this cause; the NIC is closed.
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handover_id_is_thirty_two_digits() {
        let id: HandoverId = "00112233445566778899aabbccddeeff".parse().unwrap();
        assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
        let wrong = ["", "0", &"0".repeat(32), "+0112233445566778899aabbccddeeff", &"f".repeat(33)];
        for wrong in wrong {
            assert!(wrong.parse::<HandoverId>().is_err(), "{wrong}");
        }
    }
}
