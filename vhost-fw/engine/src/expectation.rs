//! Answers a guest expects to a broadcast or multicast question (`reply-from`).
//!
//! Knows which port asked, by which rule, and until when. Never knows who may answer: the rules say that.

use fw_model::{Addr, Direction, FlowKey, Protocol};

use crate::in_force::InForce;
use crate::time::Tick;

/// A UDP port of the guest that asked a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) local: Addr,
    pub(crate) port: u16,
    pub(crate) vlan: u16,
    /// The rule that let it ask, in the epoch of the rules it asked in.
    pub(crate) place: usize,
    pub(crate) epoch: u32,
    pub(crate) lives_until: Tick,
}

/// The expectations of one NIC; when there is no room the oldest goes.
#[derive(Debug)]
pub(crate) struct Expectations {
    list: Vec<Expected>,
    limit: usize,
}

/// Room without a limit of the rules' own. Looked through one by one, so it stays small.
pub(crate) const EXPECTATIONS_MAX: usize = 64;

impl Expectations {
    pub(crate) fn new() -> Self {
        Self { list: Vec::with_capacity(EXPECTATIONS_MAX), limit: EXPECTATIONS_MAX }
    }

    /// The place of the rule whose question to a group this frame answers, if it does and may.
    pub(crate) fn expecting(
        &self,
        rules: &InForce,
        flow: &FlowKey,
        direction: Direction,
        now: Tick,
    ) -> Option<usize> {
        let expected = self.find(flow, now).filter(|_| direction == Direction::In)?;
        let may = expected.epoch == rules.epoch() && rules.may_answer(expected.place, flow.remote);
        may.then_some(expected.place)
    }

    /// Lowers the room; [`EXPECTATIONS_MAX`] at most. The oldest go.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(EXPECTATIONS_MAX);
        self.list.drain(..self.list.len().saturating_sub(self.limit));
    }

    pub(crate) fn add(&mut self, expected: Expected, now: Tick) {
        let same = |held: &Expected| {
            (held.local, held.port, held.vlan) == (expected.local, expected.port, expected.vlan)
        };
        self.list.retain(|held| held.lives_until > now && !same(held));
        if self.list.len() >= self.limit && !self.list.is_empty() {
            self.list.remove(0);
        }
        if self.list.len() < self.limit {
            self.list.push(expected);
        }
    }

    /// The expectation a frame to the guest's end of `flow` would meet.
    pub(crate) fn find(&self, flow: &FlowKey, now: Tick) -> Option<Expected> {
        let meets = |held: &&Expected| {
            (held.local, held.port, held.vlan) == (flow.local, flow.local_port, flow.vlan)
                && held.lives_until > now
        };
        self.list.iter().find(meets).copied().filter(|_| flow.protocol == Protocol::UDP)
    }
}
