//! The bounded table of conns: find, open, step, close, evict.
//!
//! The only place that knows how conns are stored. Knows keys, states and deadlines. Never knows the rules, nor
//! why a conn was allowed; the rule a conn remembers is a number to it.

use fw_model::{Direction, FlowKey, MacAddr, OnRevoke, Reason, Timers};

use crate::headers::{L4, Quote};
use crate::time::Tick;
use crate::verdict::RuleSlot;

/// A living conn's place in the table. It may be stale after any `&mut self` call that can close conns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnId(pub(crate) u32);

/// What a first frame that was allowed opens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) flow: FlowKey,
    pub(crate) hash: u64,
    pub(crate) opener: Direction,
    pub(crate) peer_mac: MacAddr,
    pub(crate) admitted: Admitted,
}

/// By what a conn is allowed, as of an epoch of the rules. (An epoch is the engine's own count: every install and
/// every rule that expires starts one.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) rule: Option<RuleSlot>,
    pub(crate) epoch: u32,
    pub(crate) on_revoke: OnRevoke,
    /// Admitted by `reply-from`, so judged again by that and not by the rule's remote.
    pub(crate) expected: bool,
    /// Log its frames' refusals.
    pub(crate) log: bool,
}

/// What a frame does to its conn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It passes, and the conn moved on.
    Pass,
    /// It passes, and the conn stays as it was, timer included.
    PassKeep,
    /// It is refused, and the conn stays as it was.
    Refuse(Reason),
    /// A new incarnation may start here (RFC 9293 section 3.6.1, RFC 6191): close the conn and judge the frame as
    /// a first one.
    Reopen,
}

/// A conn that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) rule: Option<RuleSlot>,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {}

impl Table {
    /// Room for `capacity` conns, `half_open` of them never answered or half open; all of it is allocated here.
    pub(crate) fn new(_capacity: u32, _half_open: u32, _hash_key: [u8; 16]) -> Self {
        todo!("H3")
    }
    pub(crate) fn hash(&self, _flow: &FlowKey) -> u64 {
        todo!("H3")
    }
    /// Loads the index line of `hash`, so that a batch waits for memory once.
    pub(crate) fn warm(&self, _hash: u64) -> u32 {
        todo!("H3")
    }
    pub(crate) fn find(&self, _flow: &FlowKey, _hash: u64) -> Option<ConnId> {
        todo!("H3")
    }
    /// By what the conn is allowed.
    pub(crate) fn admitted(&self, _id: ConnId) -> Option<Admitted> {
        todo!("H3")
    }
    pub(crate) fn flow(&self, _id: ConnId) -> Option<(FlowKey, Direction)> {
        todo!("H3")
    }
    /// Opens a conn with its first frame. `Ok` names what had to be evicted for it.
    pub(crate) fn open(
        &mut self,
        _opening: &Opening,
        _l4: &L4,
        _now: Tick,
        _timers: &Timers,
    ) -> Result<Option<Closed>, Reason> {
        todo!("H3")
    }
    /// Why this frame may not open a conn, if it may not (mid-stream TCP, unasked replies): asked before the rules.
    pub(crate) fn cannot_open(_l4: &L4) -> Option<Reason> {
        todo!("H3")
    }
    pub(crate) fn step(
        &mut self,
        _id: ConnId,
        _direction: Direction,
        _l4: &L4,
        _now: Tick,
        _timers: &Timers,
    ) -> Step {
        todo!("H3")
    }
    /// Whether an ICMP error that goes `direction` and quotes this may pass: it quotes a frame of a living conn
    /// that went the other way, and its sequence number is in window. Changes nothing.
    pub(crate) fn related(
        &self,
        _quote: &Quote,
        _direction: Direction,
        _vlan: u16,
    ) -> Result<ConnId, Reason> {
        todo!("H3")
    }
    /// Stamps a conn that was judged again and is still allowed.
    pub(crate) fn readmit(&mut self, _id: ConnId, _admitted: Admitted) {
        todo!("H3")
    }
    pub(crate) fn close(&mut self, _id: ConnId) -> Option<Closed> {
        todo!("H3")
    }
}
