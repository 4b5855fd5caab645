//! The rules in force: a prepared rule set, the ledger slots of its rules, and which of them have expired.
//!
//! Knows one generation. Never knows a frame or a conn.

use std::sync::Arc;

use fw_model::{Action, Addr, OnRevoke, RuleLimits, Timers};

use crate::conntrack::Admitted;
use crate::guard::Guard;
use crate::matcher::{Match, Question};
use crate::prepared::PreparedRules;
use crate::time::Tick;
use crate::verdict::RuleSlot;

/// One generation of rules, in force.
#[derive(Debug)]
pub(crate) struct InForce {
    rules: Arc<PreparedRules>,
    slots: Vec<RuleSlot>,
    /// Counts installs and expiries; conns judged in an older epoch are judged again.
    epoch: u32,
    /// The epoch in which the NIC got the MAC address it has.
    nic_since: u32,
    /// A bit per rule that has expired.
    expired: Vec<u64>,
    /// Rules that will expire, the next one last.
    expiring: Vec<(Tick, usize)>,
}

impl InForce {
    pub(crate) fn new(rules: Arc<PreparedRules>, slots: Vec<RuleSlot>, epoch: u32, now: Tick) -> Self {
        let places = rules.rules().rules.iter().enumerate();
        let mut expiring: Vec<_> =
            places.filter_map(|(place, rule)| Some((now.after_ms(rule.expires_in_ms?), place))).collect();
        expiring.sort_unstable_by(|a, b| b.cmp(a));
        let expired = if expiring.is_empty() { Vec::new() } else { vec![0; slots.len().div_ceil(64)] };
        Self { rules, slots, epoch, nic_since: epoch, expired, expiring }
    }

    /// These rules, put in force after `before`.
    pub(crate) fn after(self, before: &Self) -> Self {
        let same = self.rules.rules().nic.mac == before.rules.rules().nic.mac;
        Self { nic_since: if same { before.nic_since } else { self.epoch }, ..self }
    }

    /// Whether the NIC had the MAC address it has now already in this epoch, which is not in the future.
    pub(crate) const fn is_same_nic_as_in(&self, epoch: u32) -> bool {
        self.epoch.wrapping_sub(epoch) <= self.epoch.wrapping_sub(self.nic_since)
    }

    pub(crate) fn rules(&self) -> &PreparedRules {
        &self.rules
    }

    pub(crate) fn generation(&self) -> u64 {
        self.rules.rules().generation
    }

    pub(crate) const fn epoch(&self) -> u32 {
        self.epoch
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.rules.guard
    }

    pub(crate) fn timers(&self) -> &Timers {
        &self.rules.rules().timers
    }

    pub(crate) fn first_match(&self, question: &Question) -> Match {
        self.rules.matcher.first_match(question, &self.expired)
    }

    pub(crate) fn slot(&self, place: usize) -> Option<RuleSlot> {
        self.slots.get(place).copied()
    }

    /// The place of the rule with this slot, if it is in force.
    pub(crate) fn place(&self, slot: RuleSlot) -> Option<usize> {
        self.slots.iter().position(|held| *held == slot).filter(|place| !self.has_expired(*place))
    }

    fn has_expired(&self, place: usize) -> bool {
        self.expired.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// What the rule at `place` does. There is a rule at every place the matcher names; were there none, drop.
    pub(crate) fn action(&self, place: usize) -> Action {
        self.rules.matcher.rule(place).map_or(Action::Drop, |rule| rule.action.clone())
    }

    pub(crate) fn log(&self, place: usize) -> bool {
        self.rules.matcher.rule(place).is_some_and(|rule| rule.log)
    }

    pub(crate) fn limits_of(&self, place: usize) -> Option<RuleLimits> {
        self.rules.matcher.rule(place).map(|rule| rule.limits)
    }

    pub(crate) fn has_reply_from(&self, place: usize) -> bool {
        self.rules.matcher.rule(place).is_some_and(|rule| !rule.reply_from.is_empty())
    }

    pub(crate) fn may_answer(&self, place: usize, remote: Addr) -> bool {
        !self.has_expired(place) && self.rules.matcher.may_answer(place, remote)
    }

    /// How a conn is admitted by the rule at `place`, now.
    pub(crate) fn admission_of(&self, place: usize, expected: bool) -> Admitted {
        let rule = self.rules.matcher.rule(place);
        Admitted {
            rule: self.slot(place),
            epoch: self.epoch,
            on_revoke: rule.map_or(OnRevoke::Kill, |rule| rule.on_revoke),
            expected,
            log: rule.is_some_and(|rule| rule.log),
        }
    }

    /// How a conn is admitted by the default, now.
    pub(crate) const fn default_admission(&self) -> Admitted {
        Admitted { rule: None, epoch: self.epoch, on_revoke: OnRevoke::Kill, expected: false, log: false }
    }

    /// When the next rule expires.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        self.expiring.last().map(|(due, _)| *due)
    }

    /// Ends the rules whose time is over; whether any did.
    pub(crate) fn expire(&mut self, now: Tick, epoch: u32) -> bool {
        let before = self.expiring.len();
        while let Some((_, place)) = self.expiring.pop_if(|(due, _)| *due <= now) {
            if let Some(word) = self.expired.get_mut(place / 64) {
                *word |= 1 << (place % 64);
            }
        }
        let any = self.expiring.len() < before;
        if any {
            self.epoch = epoch;
        }
        any
    }
}
