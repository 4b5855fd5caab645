//! The pure heart of vhost-fw: frames in, verdicts out.
//!
//! No I/O, no clock, no threads, no allocation per frame; time is an argument. Never knows guest memory,
//! descriptors, groups or labels.
#![forbid(unsafe_code)]

mod conntrack;
mod fragment;
mod frame;
mod guard;
mod headers;
mod limits;
mod matcher;
mod reply;
mod time;
mod verdict;
mod vnet;

use fw_model::{ConnFilter, ConnInfo, Explanation, Probe, RuleId, Stats};

pub use frame::{FRAME_LEN_MAX, Frame, HEAD_LEN};
pub use matcher::{Matcher, RuleSetError};
pub use time::Tick;
pub use verdict::{Answer, Answers, Permit, RuleSlot, Verdict};
pub use vnet::{GuestOffloads, VnetHeader, driver_claim};

use std::sync::Arc;

/// What an engine is made with; it cannot change later.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Most conns at any time; rules may lower it.
    pub conns: u32,
    /// The key of the conn table's hash: 128 random bits, one key per process.
    pub hash_key: [u8; 16],
    /// The uplink's MTU in bytes, used where the rules name none.
    pub mtu: u16,
}

/// One shard of one NIC's firewall.
#[derive(Debug)]
pub struct Engine {}

impl Engine {
    /// An engine without rules: it drops every frame ([`fw_model::Reason::NoRules`]).
    #[must_use]
    pub fn new(_config: Config) -> Self {
        todo!()
    }
    /// Tells the engine what the guest's driver acknowledged.
    pub fn set_guest_offloads(&mut self, _offloads: GuestOffloads) {
        todo!()
    }
    /// Judges a batch (any number of frames; 32 is a good one), in order. `answers` is emptied first; its outbox
    /// must have been emptied before.
    pub fn judge(&mut self, _batch: &[Frame<'_>], _now: Tick, _answers: &mut Answers) {
        todo!()
    }
    /// Puts rules in force. From the return on no frame passes that they forbid. Living conns are judged again
    /// before their next frame, and by the sweep that [`Engine::expire`] runs.
    pub fn install(&mut self, _rules: Arc<Matcher>, _now: Tick) {
        todo!()
    }
    /// When [`Engine::expire`] has something to do next; `None` if never, as things are.
    #[must_use]
    pub fn next_due(&self) -> Option<Tick> {
        todo!()
    }
    /// Lets time pass: closes conns and datagrams whose time is over, ends expired rules, and sweeps conns after an
    /// install. One call takes a bounded time; call again while `next_due` is not in the future.
    pub fn expire(&mut self, _now: Tick, _answers: &mut Answers) {
        todo!()
    }
    /// The living conns that match, `limit` at most.
    #[must_use]
    pub fn conns(&self, _filter: &ConnFilter, _limit: usize, _now: Tick) -> Vec<ConnInfo> {
        todo!()
    }
    /// Closes the living conns that match and says how many; TCP is told at both ends, through the outbox.
    pub fn kill(&mut self, _filter: &ConnFilter, _now: Tick, _answers: &mut Answers) -> u64 {
        todo!()
    }
    /// What would happen to a first frame, and why: the path of `judge` without its effects.
    #[must_use]
    pub fn explain(&self, _probe: &Probe, _now: Tick) -> Explanation {
        todo!()
    }
    /// Counters and generations. `log_lost` and `frozen` are the shell's to fill in.
    #[must_use]
    pub fn stats(&self, _now: Tick) -> Stats {
        todo!()
    }
    /// Counts a frame the shell had to drop for a reason of the device.
    pub fn count_drop(&mut self, _reason: fw_model::Reason) {
        todo!()
    }
    /// The id of a rule an answer names.
    #[must_use]
    pub fn rule_id(&self, _slot: RuleSlot) -> Option<&RuleId> {
        todo!()
    }
}
