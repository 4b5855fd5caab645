//! What may be asked of a NIC, and what it answers.
//!
//! Values alone. It may know the nouns of `fw-model`. It must never know a socket.

use fw_model::{ConnFilter, ConnInfo, Explanation, HandoverId, Probe, RuleSet, Stats};
use serde::{Deserialize, Serialize};

/// Version of these messages. A peer with another one is refused with both numbers.
pub const PROTOCOL_VERSION: u16 = 1;

/// What may be asked of a NIC.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Put these rules in force.
    Install(Box<RuleSet>),
    /// Counters and generations.
    Stats,
    /// Living conns that match.
    Conns(ConnFilter),
    /// Close the living conns that match.
    Kill(ConnFilter),
    /// Judge a frame that does not exist.
    Explain(Probe),
    /// Stop reading rings and uplink; timers run on.
    Freeze,
    /// Go on after a freeze.
    Thaw,
    /// The next table that leaves this NIC belongs to this handover.
    AnnounceHandover(HandoverId),
    /// The next table that arrives here is this handover's, and no other.
    ExpectHandover(HandoverId),
}

/// The answer to a request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Rules of this generation are enforced: no frame passes that they forbid.
    Enforced(u64),
    /// Counters and generations.
    Stats(Box<Stats>),
    /// Conns.
    Conns(Vec<ConnInfo>),
    /// So many conns were closed.
    Killed(u64),
    /// What would happen.
    Explanation(Explanation),
    /// Done.
    Done,
    /// Refused, with the place and the remedy.
    Refused(String),
}
