//! What a move came to, in a line for people and in JSON for programs.
//!
//! Knows counts. Never knows how they came about.

use std::fmt;

use fw_model::{Adoption, NicId};
use serde::Serialize;

use crate::ahead::AheadCounts;

/// What a move came to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Each NIC's table.
    pub nics: Vec<NicReport>,
    /// Milliseconds for which the VM stood, where the VMM counts them.
    pub downtime_ms: Option<u64>,
    /// Seconds from the first question to the last answer.
    pub seconds: f64,
    /// What should be looked at although the move succeeded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What became of one NIC's table.
#[derive(Debug, Clone, Serialize)]
pub struct NicReport {
    /// The NIC.
    pub nic: NicId,
    /// Its conns.
    pub conns: Adoption,
    /// What went ahead of the VM; absent if nothing did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ahead: Option<AheadCounts>,
}

impl fmt::Display for Report {
    /// `moved 41233 · re-judged 12 · dropped 3 (3 revoked)`, the NICs' names before it if there are several.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, nic) in self.nics.iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            if self.nics.len() > 1 {
                write!(f, "{}: ", nic.nic)?;
            }
            write!(f, "{}", nic.conns)?;
        }
        self.warnings.iter().try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}
