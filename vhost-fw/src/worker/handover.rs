//! What a handover asks of the data thread: conns out, conns in, a piece at a time.
//!
//! Knows the engine's verbs and the rings' state. Never knows where conns go to or come from.

use std::io;
use std::ops::Range;
use std::sync::mpsc::SyncSender;

use fw_engine::{Arrival, Engine, PortableConn, RuleSlot, Tick, Trust};
use fw_model::{Adoption, Arrived, Reason, RuleId};

use super::{Order, Worker, WorkerGone, WorkerHandle};
use crate::vring::Look;

/// A piece of the table as it leaves.
pub(crate) struct Leaving {
    /// The generation of the rules in force; 0 without.
    pub(crate) generation: u64,
    /// Places the table has.
    pub(crate) slots: u32,
    pub(crate) conns: Vec<(PortableConn, Option<RuleSlot>)>,
    /// The rules that admitted them, each once.
    pub(crate) rules: Vec<(RuleSlot, RuleId)>,
}

impl Leaving {
    /// The conns at these places.
    pub(crate) fn of(engine: &Engine, slots: Range<u32>, now: Tick) -> Self {
        let places = slots.end.min(engine.slots()).saturating_sub(slots.start);
        let mut leaving = Self {
            generation: engine.generation().unwrap_or(0),
            slots: engine.slots(),
            conns: Vec::with_capacity(usize::try_from(places).unwrap_or(0)),
            rules: Vec::new(),
        };
        let mut named: Vec<bool> = Vec::new();
        engine.export(slots, now, |_, conn, rule| {
            if let Some(slot) = rule {
                if slot.index() >= named.len() {
                    named.resize(slot.index().saturating_add(1), false);
                }
                if let Some(named) = named.get_mut(slot.index()).filter(|named| !**named) {
                    *named = true;
                    leaving.rules.extend(engine.rule_id(slot).map(|id| (slot, id.clone())));
                }
            }
            leaving.conns.push((*conn, rule));
        });
        leaving
    }
}

/// One thing a handover asks.
pub(super) enum Hand {
    RingsRun(SyncSender<bool>),
    Leave(Range<u32>, SyncSender<Leaving>),
    Forget(SyncSender<()>),
    Adopt(Vec<Arrival>, Vec<RuleId>, Trust, SyncSender<Adoption>),
    Arrived(Box<Arrived>, SyncSender<()>),
}

impl WorkerHandle {
    /// Whether a ring is being served.
    pub(crate) fn rings_run(&self) -> Result<bool, WorkerGone> {
        self.order(|done| Order::Hand(Hand::RingsRun(done)))
    }

    /// The conns at these places.
    pub(crate) fn leaving(&self, slots: Range<u32>) -> Result<Leaving, WorkerGone> {
        self.order(|done| Order::Hand(Hand::Leave(slots, done)))
    }

    /// Makes room for another table.
    pub(crate) fn forget_conns(&self) -> Result<(), WorkerGone> {
        self.order(|done| Order::Hand(Hand::Forget(done)))
    }

    /// Takes conns in.
    pub(crate) fn adopt(
        &self,
        arrivals: Vec<Arrival>,
        names: Vec<RuleId>,
        trust: Trust,
    ) -> Result<Adoption, WorkerGone> {
        self.order(|done| Order::Hand(Hand::Adopt(arrivals, names, trust, done)))
    }

    /// A table has arrived, or was refused: then the NIC is closed.
    pub(crate) fn arrived(&self, arrived: Arrived) -> Result<(), WorkerGone> {
        self.order(|done| Order::Hand(Hand::Arrived(Box::new(arrived), done)))
    }
}

impl Worker {
    pub(super) fn hand(&mut self, hand: Hand) {
        let now = (self.clock)();
        // Whoever no longer waits for the answer need not get one.
        match hand {
            Hand::RingsRun(done) => drop(done.send(self.rings_run())),
            Hand::Leave(slots, done) => drop(done.send(Leaving::of(&self.desk.engine, slots, now))),
            Hand::Forget(done) => {
                self.desk.engine.forget_conns();
                let _ = done.send(());
            }
            Hand::Adopt(arrivals, names, trust, done) => {
                let adoption = self.desk.engine.adopt(&arrivals, &names, trust, now);
                let _ = done.send(adoption);
            }
            Hand::Arrived(arrived, done) => {
                match &*arrived {
                    Arrived::Adopted(_) | Arrived::Emptied => self.announcer.begin(),
                    Arrived::Refused(_) => self.desk.engine.close(Reason::HandoverRefused),
                }
                self.arrived = Some(*arrived);
                let _ = done.send(());
            }
        }
        self.sought = None;
    }

    fn rings_run(&self) -> bool {
        let Some(rings) = &self.rings else { return false };
        [&rings.inward, &rings.outward].iter().any(|ring| !matches!(ring.look(), Look::Idle))
    }

    /// Announces the guest after a handover. The rings are enabled when the VM goes on here, and only then has it
    /// stopped elsewhere: QEMU enables them as it resumes; Cloud Hypervisor a moment before, but after the source has
    /// paused and sent its last page.
    pub(super) fn announce_guest(&mut self, now: Tick) -> io::Result<()> {
        if !self.announcer.is_due(now) || self.frozen || !self.rings_run() {
            return Ok(());
        }
        self.announcer.done(now);
        self.desk.engine.announce(&mut self.answers);
        self.empty_outbox()
    }
}
