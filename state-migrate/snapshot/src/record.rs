//! What is saved of one conn.
//!
//! Types of their own: an engine's may change, these only with a new version. Lengths of time, never instants. Knows the
//! nouns of the model. Never knows its bytes.

use fw_model::{Direction, FlowKey, MacAddr, OnRevoke};

/// A saved conn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Its key, VLAN included.
    pub flow: FlowKey,
    /// Which way its first frame went.
    pub opener: Direction,
    /// The MAC address the other end was seen with.
    pub peer_mac: MacAddr,
    /// Where it stands.
    pub state: SavedState,
    /// Milliseconds it has left without a frame.
    pub remaining_ms: u64,
    /// Milliseconds after which it ends whatever comes.
    pub ends_in_ms: Option<u64>,
    /// What revoking does to it.
    pub on_revoke: OnRevoke,
    /// Whether it was admitted by `reply-from`.
    pub expected: bool,
    /// The rule that admitted it: its place in the list of names beside the records; absent for the default.
    pub rule: Option<u32>,
    /// Of a TCP conn: its windows.
    pub tcp: Option<SavedTcp>,
}

/// Where a saved conn stands. The numbers are those of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum SavedState {
    /// TCP: the opener's SYN was seen.
    SynSent = 0,
    /// TCP: the SYN/ACK was seen.
    SynReceived = 1,
    /// TCP: the handshake is complete.
    Established = 2,
    /// TCP: a FIN was seen.
    FinWait = 3,
    /// TCP: both FINs are acknowledged.
    TimeWait = 4,
    /// TCP: a reset ended it.
    Close = 5,
    /// Others: nobody has answered yet.
    Asked = 6,
    /// Others: both ends have spoken.
    Answered = 7,
}

impl SavedState {
    /// Every state, in the order of their numbers.
    pub(crate) const ALL: [Self; 8] = [
        Self::SynSent,
        Self::SynReceived,
        Self::Established,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::Asked,
        Self::Answered,
    ];
}

/// A saved TCP conn's windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedTcp {
    /// Both ends, opener first.
    pub ends: [SavedEnd; 2],
    /// What a remembered SYN or a challenge waits for; 0 if neither does.
    pub awaited: u32,
    /// The window scale of a remembered SYN, 0 to 14.
    pub pending_scale: Option<u8>,
    /// The opener's SYN on the living conn is remembered.
    pub pending: bool,
    /// The opener's reset that answers a challenge is awaited.
    pub challenged: bool,
}

/// What is saved of one end (sequence numbers of RFC 9293 section 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedEnd {
    /// Highest sequence number it has sent, plus one.
    pub end: u32,
    /// Highest sequence number it may send.
    pub max_end: u32,
    /// Largest window it has advertised, in bytes.
    pub max_window: u32,
    /// Highest acknowledgement it has sent.
    pub acked: u32,
    /// The window scale of its SYN, 0 to 14 (RFC 7323 section 2.3: more counts as 14).
    pub scale: Option<u8>,
    /// It has sent a FIN.
    pub fin: bool,
    /// What is known of it may be a moment old.
    pub resuming: bool,
}
