//! What a handover asks of the data thread: conns out, conns in, a piece at a time.
//!
//! Knows the engine's verbs and the rings' state. Never knows where conns go to or come from.

use std::io;
use std::ops::Range;
use std::sync::mpsc::SyncSender;

use fw_engine::{Arrival, Engine, Follower, Home, PortableConn, RuleSlot, Tick, Trust};
use fw_model::{Adoption, Arrived, FlowKey, HandoverId, Reason, RuleId};

use super::{Order, Pending, Worker, WorkerGone, WorkerHandle};
use crate::crash_copy::CrashCopy;
use crate::vring::Look;

/// A piece of the table as it leaves.
pub(crate) struct Leaving {
    /// The generation of the rules in force.
    pub(crate) generation: Option<u64>,
    /// Conns in the whole table.
    pub(crate) living: u32,
    /// Places the table has.
    pub(crate) slots: u32,
    pub(crate) conns: Vec<Leaver>,
    /// The rules that admitted them, each once.
    pub(crate) rules: Vec<(RuleSlot, RuleId)>,
}

impl Leaving {
    /// The conns at these places.
    pub(crate) fn of(engine: &Engine, places: Places, now: Tick) -> Self {
        let room = match &places {
            Places::Range(places) => places.end.min(engine.slots()).saturating_sub(places.start),
            Places::These(places) => u32::try_from(places.len()).unwrap_or(0),
        };
        let mut leaving = Self {
            generation: engine.generation(),
            living: engine.living(),
            slots: engine.slots(),
            conns: Vec::with_capacity(usize::try_from(room).unwrap_or(0)),
            rules: Vec::new(),
        };
        let mut named: Vec<bool> = Vec::new();
        let mut leave = |place, conn: &PortableConn, rule: Option<RuleSlot>| {
            leaving.conns.push(Leaver { place, conn: *conn, rule });
            let Some(slot) = rule else { return };
            if slot.index() >= named.len() {
                named.resize(slot.index().saturating_add(1), false);
            }
            if let Some(named) = named.get_mut(slot.index()).filter(|named| !**named) {
                *named = true;
                leaving.rules.extend(engine.rule_id(slot).map(|id| (slot, id.clone())));
            }
        };
        match places {
            Places::Range(places) => engine.export(places, now, leave),
            Places::These(places) => {
                places.into_iter().for_each(|place| engine.export(place..place + 1, now, &mut leave));
            }
        }
        leaving
    }
}

/// A conn as it leaves.
pub(crate) struct Leaver {
    /// Its place in the table.
    pub(crate) place: u32,
    pub(crate) conn: PortableConn,
    /// The rule that admitted it.
    pub(crate) rule: Option<RuleSlot>,
}

/// Which places leave.
pub(crate) enum Places {
    Range(Range<u32>),
    /// In this order.
    These(Vec<u32>),
}

/// Some conns of a table that comes ahead of its VM.
pub(crate) struct Staging {
    /// Whose table: what was staged for another handover is not built upon.
    pub(crate) handover: HandoverId,
    /// Flows whose conns here are forgotten first.
    pub(crate) gone: Vec<FlowKey>,
    pub(crate) arrivals: Vec<Arrival>,
    /// The rules that admitted them.
    pub(crate) names: Vec<RuleId>,
}

/// What became of each arrival of a [`Staging`].
pub(crate) type Outcomes = Vec<Result<Home, Reason>>;

/// One thing a handover asks.
pub(super) enum Hand {
    RingsRun(SyncSender<bool>),
    Leave(Places, SyncSender<Leaving>),
    Follow(SyncSender<()>),
    LeaveAlone(SyncSender<()>),
    Changed(Vec<u32>, SyncSender<Vec<u32>>),
    Prepare(u32, SyncSender<()>),
    Forget(SyncSender<()>),
    BeginStage(HandoverId, SyncSender<()>),
    Stage(Box<Staging>, SyncSender<Option<Outcomes>>),
    ForgetStage(SyncSender<()>),
    Taken(HandoverId, SyncSender<()>),
    Copy(Box<CrashCopy>, SyncSender<()>),
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
        self.begin_leaving(slots)?.wait()
    }

    /// As [`WorkerHandle::leaving`], for whoever has something else to do meanwhile.
    pub(crate) fn begin_leaving(&self, slots: Range<u32>) -> Result<Pending<Leaving>, WorkerGone> {
        self.begin(|done| Order::Hand(Hand::Leave(Places::Range(slots), done)))
    }

    /// The conns at these places, in this order; where none lives there is none.
    pub(crate) fn leaving_at(&self, places: Vec<u32>) -> Result<Leaving, WorkerGone> {
        self.order(|done| Order::Hand(Hand::Leave(Places::These(places), done)))
    }

    /// Notes from now on which places change.
    pub(crate) fn follow(&self) -> Result<(), WorkerGone> {
        self.order(|done| Order::Hand(Hand::Follow(done)))
    }

    /// Notes no longer.
    pub(crate) fn leave_alone(&self) -> Result<(), WorkerGone> {
        self.order(|done| Order::Hand(Hand::LeaveAlone(done)))
    }

    /// The places that changed since they were last asked for; `spare` is the next list.
    pub(crate) fn changed(&self, spare: Vec<u32>) -> Result<Vec<u32>, WorkerGone> {
        self.order(|done| Order::Hand(Hand::Changed(spare, done)))
    }

    /// Forgets every conn and begins to take a table that comes ahead of its VM.
    pub(crate) fn begin_stage(&self, id: HandoverId) -> Result<(), WorkerGone> {
        self.order(|done| Order::Hand(Hand::BeginStage(id, done)))
    }

    /// Takes some of its conns in; `None` if it is no longer here.
    pub(crate) fn stage(&self, staging: Staging) -> Result<Option<Outcomes>, WorkerGone> {
        self.order(|done| Order::Hand(Hand::Stage(Box::new(staging), done)))
    }

    /// Writes the whole table to `copy`, which follows it from now on.
    pub(crate) fn keep_copy(&self, copy: Box<CrashCopy>) -> Result<(), WorkerGone> {
        self.order(|done| Order::Hand(Hand::Copy(copy, done)))
    }

    /// Has it written down, where anything is, that a handover was taken.
    pub(crate) fn remember_taken(&self, id: HandoverId) -> Result<(), WorkerGone> {
        self.order(|done| Order::Hand(Hand::Taken(id, done)))
    }

    /// Forgets a table that came ahead, if one is here.
    pub(crate) fn forget_stage(&self) -> Result<(), WorkerGone> {
        self.order(|done| Order::Hand(Hand::ForgetStage(done)))
    }

    /// Makes ready for so many conns, while they are still on their way.
    pub(crate) fn begin_prepare(&self, conns: u32) -> Result<Pending<()>, WorkerGone> {
        self.begin(|done| Order::Hand(Hand::Prepare(conns, done)))
    }

    /// Makes room for another table.
    pub(crate) fn forget_conns(&self) -> Result<(), WorkerGone> {
        self.order(|done| Order::Hand(Hand::Forget(done)))
    }

    /// Takes conns in, while the caller prepares the next ones.
    pub(crate) fn begin_adopt(
        &self,
        arrivals: Vec<Arrival>,
        names: Vec<RuleId>,
        trust: Trust,
    ) -> Result<Pending<Adoption>, WorkerGone> {
        self.begin(|done| Order::Hand(Hand::Adopt(arrivals, names, trust, done)))
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
            Hand::Leave(places, done) => drop(done.send(Leaving::of(&self.desk.engine, places, now))),
            Hand::Follow(done) => {
                self.desk.engine.follow(Follower::Handover);
                let _ = done.send(());
            }
            Hand::LeaveAlone(done) => {
                self.desk.engine.leave_alone(Follower::Handover);
                let _ = done.send(());
            }
            Hand::Changed(spare, done) => drop(done.send(self.desk.engine.changed_places(spare))),
            Hand::Prepare(conns, done) => {
                // It takes a while, which frames would wait for.
                if !self.rings_run() {
                    self.desk.engine.prepare(conns);
                }
                let _ = done.send(());
            }
            Hand::Forget(done) => {
                self.staged = None;
                self.desk.engine.forget_conns();
                let _ = done.send(());
            }
            Hand::BeginStage(id, done) => {
                self.desk.engine.forget_conns();
                self.staged = Some(id);
                let _ = done.send(());
            }
            Hand::Copy(mut copy, done) => {
                copy.begin(&mut self.desk.engine, now);
                self.crash_copy = Some(copy);
                let _ = done.send(());
            }
            Hand::Stage(staging, done) => drop(done.send(self.stage(&staging, now))),
            Hand::ForgetStage(done) => {
                self.forget_stage();
                let _ = done.send(());
            }
            Hand::Taken(id, done) => {
                if let Some(copy) = &mut self.crash_copy {
                    copy.remember(id);
                }
                let _ = done.send(());
            }
            Hand::Adopt(arrivals, names, trust, done) => {
                let adoption = self.desk.engine.adopt(&arrivals, &names, trust, now);
                let _ = done.send(adoption);
            }
            Hand::Arrived(arrived, done) => {
                match &*arrived {
                    Arrived::Adopted(_) | Arrived::Emptied => self.announcer.begin(),
                    Arrived::Refused(_) => {
                        self.forget_stage();
                        self.desk.engine.close(Reason::HandoverRefused);
                    }
                }
                self.staged = None;
                self.arrived = Some(*arrived);
                let _ = done.send(());
            }
        }
        self.sought = None;
    }

    fn stage(&mut self, staging: &Staging, now: Tick) -> Option<Outcomes> {
        let Staging { handover, gone, arrivals, names } = staging;
        if self.staged != Some(*handover) {
            return None;
        }
        let mut outcomes = Vec::with_capacity(arrivals.len());
        self.desk.engine.forget(gone.iter());
        self.desk.engine.adopt_each(arrivals, names, Trust::Exact, now, |_, outcome| outcomes.push(outcome));
        Some(outcomes)
    }

    fn forget_stage(&mut self) {
        if self.staged.take().is_some() {
            self.desk.engine.forget_conns();
        }
    }

    /// A VM runs here, and the table that came ahead was another one's or an earlier one's: it was never handed over.
    pub(super) fn forget_stage_if_served(&mut self) {
        if self.staged.is_some() && self.rings_run() {
            log::warn!("a conn table came ahead of a VM and was not handed over: it is forgotten");
            self.forget_stage();
        }
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
