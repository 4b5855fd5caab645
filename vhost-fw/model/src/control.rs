//! What a running NIC is asked about, and what it tells of itself.
//!
//! The nouns in requests and replies (crate `fw-control`). It may know the nouns of this crate. It must never know a socket.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Addr, Arrived, Cidr, Direction, FlowKey, NicId, Protocol, Reason, RuleId};

/// Which conns are meant: those that match everything written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnFilter {
    /// Protocol.
    pub protocol: Option<Protocol>,
    /// The guest's address.
    pub local: Option<Cidr>,
    /// The other end's address.
    pub remote: Option<Cidr>,
    /// Either end's port.
    pub port: Option<u16>,
    /// The rule that admitted it.
    pub rule: Option<RuleId>,
}

impl ConnFilter {
    /// Whether a conn of `flow` admitted by `rule` is meant.
    #[must_use]
    pub fn matches(&self, flow: &FlowKey, rule: Option<&RuleId>) -> bool {
        self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self.local.is_none_or(|prefix| prefix.contains(flow.local))
            && self.remote.is_none_or(|prefix| prefix.contains(flow.remote))
            && self.port.is_none_or(|port| port == flow.local_port || port == flow.remote_port)
            && self.rule.as_ref().is_none_or(|wanted| rule == Some(wanted))
    }
}

/// A living conn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnInfo {
    /// Its key.
    pub flow: FlowKey,
    /// Which way its first frame went.
    pub opener: Direction,
    /// The name of its state.
    pub state: String,
    /// The rule that admitted it; absent for the default.
    pub rule: Option<RuleId>,
    /// Whether it was judged by the rules in force; if not, it will be before its next frame.
    pub current: bool,
    /// Milliseconds it has left without a frame.
    pub remaining_ms: u64,
}

/// A first frame that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Which way it goes.
    pub direction: Direction,
    /// IP protocol; 1 and 58 mean an echo request.
    pub protocol: Protocol,
    /// Its source.
    pub source: Addr,
    /// Its source port (or echo identifier); 0 = an ephemeral one.
    pub source_port: u16,
    /// Its destination.
    pub destination: Addr,
    /// Its destination port.
    pub destination_port: u16,
}

/// The name of a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictName {
    /// Forwarded.
    Pass,
    /// Refused silently.
    Drop,
    /// Kept until more comes.
    Hold,
    /// Refused, and the sender is told.
    Reject,
}

/// Who decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// A rule.
    Rule,
    /// A living conn; the rule is the one that admitted it.
    Conn,
    /// Built-in: well-formedness, identity and what every NIC needs.
    Guard,
    /// The default of the direction.
    Default,
}

/// What would happen to a frame, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The verdict.
    pub verdict: VerdictName,
    /// Why.
    pub reason: Reason,
    /// Who decided.
    pub by: By,
    /// The rule that admitted or refused it.
    pub rule: Option<RuleId>,
}

/// Frames per direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// From the guest.
    pub out: u64,
    /// To the guest.
    #[serde(rename = "in")]
    pub in_: u64,
}

/// What one rule did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounts {
    /// Frames it admitted or refused, those of its conns included.
    pub frames: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Conns it admitted.
    pub conns: u64,
    /// Seconds since the last of them; absent if never.
    pub last_hit_s: Option<u64>,
}

/// Counters and generations of one NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// The NIC, once rules say who it is.
    pub nic: Option<NicId>,
    /// Generation of the rules installed last.
    pub generation: Option<u64>,
    /// Generation enforced: no frame passes that it forbids.
    pub enforced: Option<u64>,
    /// Generation swept: no conn lives that it forbids.
    pub swept: Option<u64>,
    /// Living conns.
    pub conns: u64,
    /// Frames forwarded.
    pub frames: FrameCounts,
    /// Frames refused, by reason; only reasons that occurred.
    pub drops: BTreeMap<Reason, u64>,
    /// Rules that were hit, and those in force.
    pub rules: BTreeMap<RuleId, RuleCounts>,
    /// Decision log lines that were not written because they came too fast.
    pub log_lost: u64,
    /// Whether the NIC is frozen.
    pub frozen: bool,
    /// The last conn table that was handed to this NIC, if any was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrived: Option<Arrived>,
    /// What became of the crash copy that the process before this one left, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed: Option<Arrived>,
}
