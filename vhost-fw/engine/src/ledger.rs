//! What happened, counted: a number per reason and per rule.
//!
//! A rule keeps its slot, and so its counts, while its id stays in the rules or a conn remembers it. Knows ids and
//! numbers. Never knows why a frame met its verdict.

use std::collections::{BTreeMap, HashMap};

use fw_model::{Direction, FrameCounts, Reason, RuleCounts, RuleId, RuleLimits};

use crate::frame::Frame;
use crate::guard::GuardRule;
use crate::limits::Bucket;
use crate::time::Tick;
use crate::verdict::RuleSlot;

/// The counters of one engine.
#[derive(Debug)]
pub(crate) struct Ledger {
    reasons: Vec<u64>,
    frames: FrameCounts,
    rules: Vec<Entry>,
    by_id: HashMap<RuleId, u32>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    id: Option<RuleId>,
    frames: u64,
    bytes: u64,
    conns: u64,
    living: u32,
    last_hit: Option<Tick>,
    new_per_s: Option<(u32, Bucket)>,
    in_force: bool,
}

impl Entry {
    fn new(id: RuleId) -> Self {
        Self {
            id: Some(id),
            frames: 0,
            bytes: 0,
            conns: 0,
            living: 0,
            last_hit: None,
            new_per_s: None,
            in_force: true,
        }
    }
}

impl RuleSlot {
    /// A built-in rule's slot: the first of the ledger.
    pub(crate) const fn guard(rule: GuardRule) -> Self {
        Self(rule as u32)
    }
}

impl Ledger {
    pub(crate) fn new() -> Self {
        let rules =
            GuardRule::ALL.iter().filter_map(|rule| rule.name().parse().ok()).map(Entry::new).collect();
        Self {
            reasons: vec![0; Reason::ALL.len()],
            frames: FrameCounts::default(),
            rules,
            by_id: HashMap::new(),
            free: Vec::new(),
        }
    }

    /// Counts a frame by what became of it.
    #[inline]
    pub(crate) fn count(
        &mut self,
        frame: &Frame<'_>,
        reason: Reason,
        rule: Option<RuleSlot>,
        passes: bool,
        now: Tick,
    ) {
        self.count_reason(reason);
        if passes {
            self.count_forwarded(frame.direction, 1);
        }
        if let Some(entry) = rule.and_then(|slot| self.rules.get_mut(slot.index())) {
            entry.frames += 1;
            entry.bytes += frame.length as u64;
            entry.last_hit = Some(now);
        }
    }

    pub(crate) const fn count_forwarded(&mut self, direction: Direction, frames: u64) {
        match direction {
            Direction::Out => self.frames.out += frames,
            Direction::In => self.frames.in_ += frames,
        }
    }

    pub(crate) fn count_reason(&mut self, reason: Reason) {
        self.count_reasons(reason, 1);
    }

    pub(crate) fn count_reasons(&mut self, reason: Reason, times: u64) {
        if let Some(count) = self.reasons.get_mut(reason.index()) {
            *count += times;
        }
    }

    /// Whether the rule may admit another conn; takes from its rate if so.
    pub(crate) fn may_open(
        &mut self,
        slot: Option<RuleSlot>,
        limits: Option<RuleLimits>,
        now: Tick,
    ) -> Result<(), Reason> {
        let (Some(limits), Some(entry)) = (limits, slot.and_then(|slot| self.rules.get_mut(slot.index())))
        else {
            return Ok(());
        };
        if limits.conns.is_some_and(|conns| entry.living >= conns) {
            return Err(Reason::RuleConns);
        }
        let Some(rate) = limits.new_per_s else { return Ok(()) };
        if entry.new_per_s.is_none_or(|(known, _)| known != rate) {
            entry.new_per_s = Some((rate, Bucket::new(rate.into(), 1)));
        }
        let taken = entry.new_per_s.as_mut().is_none_or(|(_, bucket)| bucket.take(1, now));
        if taken { Ok(()) } else { Err(Reason::NewConnRate) }
    }

    pub(crate) fn conn_opened(&mut self, slot: Option<RuleSlot>) {
        if let Some(entry) = slot.and_then(|slot| self.rules.get_mut(slot.index())) {
            entry.conns += 1;
            entry.living = entry.living.saturating_add(1);
        }
    }

    /// A conn that another engine's rules admitted lives here now, by this rule.
    pub(crate) fn conn_adopted(&mut self, slot: Option<RuleSlot>) {
        if let Some(entry) = slot.and_then(|slot| self.rules.get_mut(slot.index())) {
            entry.living = entry.living.saturating_add(1);
        }
    }

    /// The slot of the rule with this id, if it is known.
    pub(crate) fn slot_by_id(&self, id: &RuleId) -> Option<RuleSlot> {
        self.by_id.get(id).copied().map(RuleSlot)
    }

    /// A conn the rule had admitted ended. The rule keeps its slot until the next install even if it is no longer in
    /// force, for the answer that closed the conn names it.
    pub(crate) fn conn_closed(&mut self, slot: Option<RuleSlot>) {
        if let Some(entry) = slot.and_then(|slot| self.rules.get_mut(slot.index())) {
            entry.living = entry.living.saturating_sub(1);
        }
    }

    /// A conn is now admitted by another rule.
    pub(crate) fn conn_moved(&mut self, from: Option<RuleSlot>, to: Option<RuleSlot>) {
        if from == to {
            return;
        }
        self.conn_adopted(to);
        self.conn_closed(from);
    }

    /// The slots of these rules, from now on those in force.
    pub(crate) fn put_in_force<'a>(&mut self, ids: impl Iterator<Item = &'a RuleId>) -> Vec<RuleSlot> {
        for entry in self.rules.iter_mut().skip(GuardRule::ALL.len()) {
            entry.in_force = false;
        }
        let slots = ids.map(|id| self.slot_of(id)).collect();
        for place in GuardRule::ALL.len()..self.rules.len() {
            if let Ok(slot) = u32::try_from(place) {
                self.forget_if_unused(RuleSlot(slot));
            }
        }
        slots
    }

    fn slot_of(&mut self, id: &RuleId) -> RuleSlot {
        if let Some(slot) = self.by_id.get(id).copied() {
            if let Some(entry) = self.rules.get_mut(RuleSlot(slot).index()) {
                entry.in_force = true;
            }
            return RuleSlot(slot);
        }
        let entry = Entry::new(id.clone());
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(place) = self.rules.get_mut(RuleSlot(slot).index()) {
                    *place = entry;
                }
                slot
            }
            None => {
                self.rules.push(entry);
                u32::try_from(self.rules.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_id.insert(id.clone(), slot);
        RuleSlot(slot)
    }

    fn forget_if_unused(&mut self, slot: RuleSlot) {
        let Some(entry) = self.rules.get_mut(slot.index()) else { return };
        if entry.in_force || entry.living > 0 {
            return;
        }
        if let Some(id) = entry.id.take() {
            self.by_id.remove(&id);
            self.free.push(slot.0);
        }
    }

    pub(crate) fn rule_id(&self, slot: RuleSlot) -> Option<&RuleId> {
        self.rules.get(slot.index())?.id.as_ref()
    }

    /// Conns the rule has admitted that still live.
    pub(crate) fn living(&self, slot: RuleSlot) -> u32 {
        self.rules.get(slot.index()).map_or(0, |entry| entry.living)
    }

    pub(crate) const fn frames(&self) -> FrameCounts {
        self.frames
    }

    /// Refused frames by reason, those that occurred.
    pub(crate) fn drops(&self) -> BTreeMap<Reason, u64> {
        let counted = Reason::ALL.iter().copied().zip(self.reasons.iter().copied());
        let refused = |reason: Reason| !reason.is_pass() && reason != Reason::FragmentHeld;
        counted.filter(|(reason, count)| *count > 0 && refused(*reason)).collect()
    }

    pub(crate) fn rule_counts(&self, now: Tick) -> BTreeMap<RuleId, RuleCounts> {
        let count = |entry: &Entry| RuleCounts {
            frames: entry.frames,
            bytes: entry.bytes,
            conns: entry.conns,
            last_hit_s: entry.last_hit.map(|hit| now.since_ms(hit) / 1000),
        };
        self.rules.iter().filter_map(|entry| Some((entry.id.clone()?, count(entry)))).collect()
    }
}
