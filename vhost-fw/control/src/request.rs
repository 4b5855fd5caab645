//! What may be asked of a NIC, and what it answers.
//!
//! Values alone. It may know the nouns of `fw-model`. It must never know a socket.

use fw_model::{ConnFilter, ConnInfo, Explanation, HandoverId, NicId, Probe, RuleSet, Stats};
use serde::{Deserialize, Serialize};

use crate::Advance;

/// Version of these messages. A peer with another one is refused with both numbers.
pub const PROTOCOL_VERSION: u16 = 1;

/// What may be asked of a NIC.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Put these rules in force.
    Install(Box<RuleSet>),
    /// Put the control plane's rules in force: of a higher generation than those in force, whole or as a change to these.
    Advance(Advance),
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
    /// Let the program that stands now where this NIC's was started from take over. After [`Reply::Done`] a second reply says
    /// how that went.
    Upgrade,
    /// Nothing is announced or expected any more, and what was sent ahead is forgotten.
    CancelHandover,
    /// What this NIC can hand over and take.
    Terms,
    /// Announce this handover and send its table ahead while the VM runs. After [`Reply::Done`] snapshots go out on this
    /// connection, each answered before the next (`conn_snapshot::Answer`).
    SendAhead(HandoverId),
    /// Expect this handover and take its table ahead. After [`Reply::Done`] snapshots are awaited on this connection.
    ReceiveAhead(HandoverId),
    /// The table as it stands. After [`Reply::Done`] a snapshot goes out on this connection.
    Export,
    /// Take a table in place of this one, while the rings rest. After [`Reply::Done`] a snapshot is awaited.
    Import,
}

impl Request {
    /// Whether the connection becomes a handover's after [`Reply::Done`].
    #[must_use]
    pub const fn takes_connection(&self) -> bool {
        matches!(
            self,
            Self::SendAhead(_) | Self::ReceiveAhead(_) | Self::Export | Self::Import | Self::Upgrade
        )
    }
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
    /// What the NIC can hand over and take.
    Terms(Box<Terms>),
    /// Done.
    Done,
    /// Refused, with the place and the remedy.
    Refused(String),
}

/// What a NIC can hand over and take: two ends compare theirs before a VM moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// The NIC.
    pub nic: NicId,
    /// Generation of the rules in force; absent without rules.
    pub generation: Option<u64>,
    /// Living conns.
    pub conns: u64,
    /// Conns there is room for.
    pub room: u64,
    /// The oldest and the newest version of a snapshot that is read here.
    pub versions: (u16, u16),
    /// Equal where `--state-key` is the same; hexadecimal.
    pub key: String,
    /// Whether a VM is being served.
    pub rings_run: bool,
    /// The handover to which the next table that leaves belongs; absent if none was announced.
    pub announced: Option<HandoverId>,
    /// The last handover whose table was taken here; absent if none was, or one without a name.
    pub taken: Option<HandoverId>,
}
