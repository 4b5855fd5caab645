//! A conn outside of an engine: what leaves one and may enter another.
//!
//! Instants have become lengths of time, and a rule is named apart. Knows what a conn is made of. Never knows how it is
//! stored, nor how it is written down.

use fw_model::{Direction, FlowKey, MacAddr, OnRevoke};

use crate::conn_state::ConnState;

/// A conn outside of an engine. It says nothing of what the rules of its next engine make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortableConn {
    /// Its key.
    pub flow: FlowKey,
    /// Which way its first frame went.
    pub opener: Direction,
    /// The MAC address the other end was seen with.
    pub peer_mac: MacAddr,
    /// Where it stands.
    pub state: ConnState,
    /// Milliseconds it has left without a frame.
    pub remaining_ms: u64,
    /// Milliseconds after which it ends whatever comes: it is being drained.
    pub ends_in_ms: Option<u64>,
    /// What revoking does to it, by the rule that admitted it.
    pub on_revoke: OnRevoke,
    /// Whether it was admitted by `reply-from`.
    pub expected: bool,
    /// Of a TCP conn: its windows.
    pub tcp: Option<PortableTcp>,
}

/// A TCP conn's windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortableTcp {
    /// Both ends, opener first.
    pub ends: [PortableEnd; 2],
    /// The sequence number a challenge or a remembered SYN waits for; 0 if none does.
    pub awaited: u32,
    /// The window scale of a remembered SYN.
    pub pending_scale: Option<u8>,
    /// The opener's SYN on the living conn is remembered: its answerer will say whether it rebooted.
    pub pending: bool,
    /// The opener's reset that answers a challenge is awaited.
    pub challenged: bool,
}

/// What is remembered of one end of a TCP conn (sequence numbers of RFC 9293 section 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortableEnd {
    /// Highest sequence number it has sent, plus one.
    pub end: u32,
    /// Highest sequence number it may send.
    pub max_end: u32,
    /// Largest window it has advertised, in bytes.
    pub max_window: u32,
    /// Highest acknowledgement it has sent.
    pub acked: u32,
    /// The window scale of its SYN (RFC 7323 section 2.2).
    pub scale: Option<u8>,
    /// It has sent a FIN.
    pub fin: bool,
    /// What is known of it may be a moment old: its next segment may lie ahead by a bounded step.
    pub resuming: bool,
}

/// A conn that asks to be adopted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The conn.
    pub conn: PortableConn,
    /// The rule that admitted it: its place in the list of rules given beside the arrivals.
    pub rule: Option<usize>,
}

/// How much of what arrives is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It is how the conns stand.
    Exact,
    /// It is how they stood a moment ago: each end may be one bounded step ahead.
    Resuming,
}
