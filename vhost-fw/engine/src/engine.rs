//! The engine's verbs.
//!
//! Input is frames, rules and time; output is answers. Hands the state to the stations; decides nothing itself. Never knows where frames come from or go to.

use std::ops::Range;
use std::sync::Arc;

use fw_model::{
    Adoption, By, ConnFilter, ConnInfo, Explanation, FlowKey, Probe, Reason, RuleId, RuleSet, Stats,
};

use crate::adoption::Home;
use crate::announcement;
use crate::config::Config;
use crate::conntrack::{Due, Follower};
use crate::explain;
use crate::frame::Frame;
use crate::in_force::InForce;
use crate::pipeline::{self, Readings};
use crate::portable::{Arrival, PortableConn, Trust};
use crate::prepared::PreparedRules;
use crate::state::{State, Sweep};
use crate::time::Tick;
use crate::verdict::{Answers, RuleSlot};
use crate::vnet::GuestOffloads;

/// Timers one call of [`Engine::expire`] looks at, at most.
const EXPIRE_STEP: usize = 256;

/// One shard of one NIC's firewall.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    rules: Option<Box<InForce>>,
    /// Why the NIC is closed, if it is: then no frame passes, whatever the rules.
    closed: Option<Reason>,
    readings: Readings,
    state: State,
}

impl Engine {
    /// An engine without rules: it drops every frame ([`Reason::NoRules`]). Everything it will ever need for frames
    /// is allocated here.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let state = State::new(&config);
        Self { config, rules: None, closed: None, readings: Readings::new(), state }
    }

    /// Tells the engine what the guest's driver acknowledged.
    pub const fn set_guest_offloads(&mut self, offloads: GuestOffloads) {
        self.state.link.guest = offloads;
    }

    /// Judges a batch (any number of frames; 32 is a good one), in order. `answers` is emptied first, its outbox
    /// excepted: that is the caller's to empty.
    pub fn judge(&mut self, batch: &[Frame<'_>], now: Tick, answers: &mut Answers) {
        self.end_rules(now);
        let rules = match self.closed {
            Some(reason) => Err(reason),
            None => self.rules.as_deref().ok_or(Reason::NoRules),
        };
        pipeline::judge(&mut self.state, rules, &mut self.readings, batch, now, answers);
    }

    /// Puts rules in force. From the return on no frame passes that they forbid. Living conns are judged again
    /// before their next frame, and by the sweep that [`Engine::expire`] runs.
    pub fn install(&mut self, rules: Arc<PreparedRules>, now: Tick) {
        let set = rules.rules();
        let limits = set.limits;
        let conns = limits.conns.unwrap_or(self.config.conns).min(self.config.conns);
        self.state.table.set_limits(conns, limits.half_open.unwrap_or(conns / 4));
        self.state.fragments.set_limit(limits.fragments.unwrap_or(self.config.fragments) as usize);
        self.state.expectations.set_limit(limits.expectations.map_or(usize::MAX, |limit| limit as usize));
        self.state.meters.set_limits(&limits, now);
        self.state.link.mtu = set.nic.mtu.unwrap_or(self.config.mtu).into();
        let slots = self.state.ledger.put_in_force(set.rules.iter().map(|rule| &rule.id));
        self.state.epoch = self.state.epoch.wrapping_add(1);
        self.state.sweep = Some(Sweep { next_slot: 0, generation: set.generation });
        let rules = InForce::new(rules, slots, self.state.epoch, now);
        self.rules = Some(Box::new(match self.rules.as_deref() {
            Some(before) => rules.after(before),
            None => rules,
        }));
    }

    /// Closes the NIC: no frame passes any more, for this reason.
    pub const fn close(&mut self, reason: Reason) {
        self.closed = Some(reason);
    }

    /// Opens a closed NIC again: the rules decide.
    pub const fn reopen(&mut self) {
        self.closed = None;
    }

    /// When [`Engine::expire`] has something to do next; `None` if never, as things are.
    #[must_use]
    pub fn next_due(&self) -> Option<Tick> {
        if self.state.sweep.is_some() {
            return Some(Tick(0));
        }
        let rules = self.rules.as_ref().and_then(|rules| rules.next_due());
        [self.state.table.next_due(), self.state.fragments.next_due(), rules].into_iter().flatten().min()
    }

    /// Lets time pass: closes conns and datagrams whose time is over, ends expired rules, and sweeps conns after a
    /// change of rules. One call takes a bounded time; call again while `next_due` is not in the future.
    pub fn expire(&mut self, now: Tick, answers: &mut Answers) {
        for _ in 0..EXPIRE_STEP {
            match self.state.table.pop_due(now) {
                Due::Closed(closed) => self.state.ledger.conn_closed(closed.rule),
                Due::Lives => {}
                Due::Nothing => break,
            }
        }
        let timed_out = self.state.fragments.expire(now);
        self.state.ledger.count_reasons(Reason::FragmentTimeout, timed_out);
        self.end_rules(now);
        if let Some(rules) = self.rules.as_deref() {
            self.state.sweep(rules, now, answers);
        }
    }

    /// Ends the rules whose time is over. Asked before every batch too: no frame passes by a rule that has ended,
    /// however late `expire` is called.
    fn end_rules(&mut self, now: Tick) {
        let Some(rules) =
            self.rules.as_deref_mut().filter(|rules| rules.next_due().is_some_and(|due| due <= now))
        else {
            return;
        };
        if rules.expire(now, self.state.epoch.wrapping_add(1)) {
            self.state.epoch = self.state.epoch.wrapping_add(1);
            self.state.sweep = Some(Sweep { next_slot: 0, generation: rules.generation() });
        }
    }

    /// The living conns that match, `limit` at most.
    #[must_use]
    pub fn conns(&self, filter: &ConnFilter, limit: usize, now: Tick) -> Vec<ConnInfo> {
        let slots = 0..self.state.table.slots();
        slots.filter_map(|slot| self.conn(slot, filter, now)).take(limit).collect()
    }

    fn conn(&self, slot: u32, filter: &ConnFilter, now: Tick) -> Option<ConnInfo> {
        let view = self.state.table.info(self.state.table.id_at(slot)?, now)?;
        let rule = view.admitted.rule.and_then(|slot| self.state.ledger.rule_id(slot));
        let rules = self.rules.as_ref()?;
        filter.matches(&view.flow, rule).then(|| ConnInfo {
            flow: view.flow,
            opener: view.opener,
            state: view.state.to_owned(),
            rule: rule.cloned(),
            current: view.admitted.epoch == rules.epoch(),
            remaining_ms: view.remaining_ms,
        })
    }

    /// Closes the living conns that match and says how many; TCP is told at both ends, through the outbox.
    pub fn kill(&mut self, filter: &ConnFilter, now: Tick, answers: &mut Answers) -> u64 {
        let Some(rules) = self.rules.as_deref() else { return 0 };
        let mut killed = 0;
        for slot in 0..self.state.table.slots() {
            let Some(id) = self.state.table.id_at(slot) else { continue };
            let Some(view) = self.state.table.info(id, now) else { continue };
            let rule = view.admitted.rule.and_then(|slot| self.state.ledger.rule_id(slot));
            if filter.matches(&view.flow, rule) {
                self.state.revoke(rules, id, now, answers);
                killed += 1;
            }
        }
        killed
    }

    /// Conns in the table.
    #[must_use]
    pub const fn living(&self) -> u32 {
        self.state.table.len()
    }

    /// Places of the table there have ever been conns in: all that a walk by [`Engine::export`] visits.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.state.table.slots()
    }

    /// Visits the conns at these places as they would leave, each with the rule that admitted it.
    pub fn export(
        &self,
        slots: Range<u32>,
        now: Tick,
        mut visit: impl FnMut(u32, &PortableConn, Option<RuleSlot>),
    ) {
        for slot in slots.start..slots.end.min(self.state.table.slots()) {
            let Some(id) = self.state.table.id_at(slot) else { continue };
            if let Some((conn, admitted)) = self.state.table.portable(id, now) {
                visit(slot, &conn, admitted.rule);
            }
        }
    }

    /// Takes in conns of another engine, `names` being the rules that admitted them there. Each is judged by the rules in
    /// force here, by its opener; without rules none is taken.
    pub fn adopt(&mut self, arrivals: &[Arrival], names: &[RuleId], trust: Trust, now: Tick) -> Adoption {
        self.end_rules(now);
        let Some(rules) = self.rules.as_deref() else {
            let refused = [(Reason::NoRules, arrivals.len() as u64)].into();
            return Adoption { kept: 0, judged_again: 0, refused };
        };
        self.state.adopt(rules, arrivals, names, trust, now)
    }

    /// As [`Engine::adopt`], telling of each arrival what became of it: its place in the list, and whether it lives by the
    /// rule it came with.
    pub fn adopt_each(
        &mut self,
        arrivals: &[Arrival],
        names: &[RuleId],
        trust: Trust,
        now: Tick,
        mut told: impl FnMut(usize, Result<Home, Reason>),
    ) {
        self.end_rules(now);
        match self.rules.as_deref() {
            Some(rules) => self.state.adopt_each(rules, arrivals, names, trust, now, told),
            None => (0..arrivals.len()).for_each(|place| told(place, Err(Reason::NoRules))),
        }
    }

    /// Forgets the conns of these flows, and tells nobody.
    pub fn forget<'f>(&mut self, flows: impl Iterator<Item = &'f FlowKey>) {
        for flow in flows {
            let closed = self.state.table.id_of(flow).and_then(|id| self.state.table.close(id));
            if let Some(closed) = closed {
                self.state.ledger.conn_closed(closed.rule);
            }
        }
    }

    /// Makes ready for so many conns to be adopted: memory that was only reserved is given by the system now.
    pub fn prepare(&mut self, conns: u32) {
        self.state.table.prepare(conns);
    }

    /// Forgets every conn, and tells nobody: another table takes this one's place.
    pub fn forget_conns(&mut self) {
        for slot in 0..self.state.table.slots() {
            let closed = self.state.table.id_at(slot).and_then(|id| self.state.table.close(id));
            if let Some(closed) = closed {
                self.state.ledger.conn_closed(closed.rule);
            }
        }
    }

    /// Tells the network where the guest is now: frames of its own addresses, in the outbox.
    pub fn announce(&self, answers: &mut Answers) {
        if let Some(rules) = self.rules.as_deref() {
            announcement::announce(rules.guard(), answers);
        }
    }

    /// Notes from now on which conns change, for [`Engine::changed`]. Everything that takes is allocated here.
    pub fn follow(&mut self, follower: Follower) {
        self.state.table.follow(follower);
    }

    /// Notes no longer for this one.
    pub fn leave_alone(&mut self, follower: Follower) {
        self.state.table.leave_alone(follower);
    }

    /// The places whose conns were opened, changed or closed since they were last told of, for a handover. `spare` becomes
    /// the list of the next ones.
    pub fn changed_places(&mut self, spare: Vec<u32>) -> Vec<u32> {
        self.state.table.take_all_changed(Follower::Handover, spare)
    }

    /// Conns that were opened, changed or closed since they were last told of, `most` at most, for a copy that follows the
    /// table: `visit` gets each one's place and, if it lives, what it is now with the rule that admitted it.
    pub fn changed(
        &mut self,
        now: Tick,
        most: usize,
        mut visit: impl FnMut(u32, Option<(&PortableConn, Option<RuleSlot>)>),
    ) {
        for _ in 0..most {
            let Some(slot) = self.state.table.take_changed(Follower::CrashCopy) else { return };
            let id = self.state.table.id_at(slot);
            let portable = id.and_then(|id| self.state.table.portable(id, now));
            visit(slot, portable.as_ref().map(|(conn, admitted)| (conn, admitted.rule)));
        }
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> Option<&RuleSet> {
        self.rules.as_ref().map(|rules| rules.rules().rules())
    }

    /// What would happen to a first frame, and why: the path of `judge` without its effects.
    #[must_use]
    pub fn explain(&self, probe: &Probe, now: Tick) -> Explanation {
        match (self.closed, self.rules.as_deref()) {
            (Some(reason), _) => explain::refused(reason, By::Guard, None),
            (None, Some(rules)) => explain::explain(&self.state, rules, probe, now),
            (None, None) => explain::refused(Reason::NoRules, By::Guard, None),
        }
    }

    /// The generation of the rules in force; `None` without rules.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.rules.as_ref().map(|rules| rules.generation())
    }

    /// Counters and generations. `log_lost`, `frozen`, `arrived` and `resumed` are the shell's to fill in.
    #[must_use]
    pub fn stats(&self, now: Tick) -> Stats {
        let generation = self.generation();
        Stats {
            nic: self.rules.as_ref().map(|rules| rules.rules().rules().nic.id.clone()),
            generation,
            enforced: generation,
            swept: self.state.swept,
            conns: self.state.table.len().into(),
            frames: self.state.ledger.frames(),
            drops: self.state.ledger.drops(),
            rules: self.state.ledger.rule_counts(now),
            log_lost: 0,
            frozen: false,
            arrived: None,
            resumed: None,
        }
    }

    /// Counts a frame the shell had to drop for a reason of the device.
    pub fn count_drop(&mut self, reason: Reason) {
        self.state.ledger.count_reason(reason);
    }

    /// The id of a rule an answer names.
    #[must_use]
    pub fn rule_id(&self, slot: RuleSlot) -> Option<&RuleId> {
        self.state.ledger.rule_id(slot)
    }
}
