//! The data thread: it owns the engine and the uplink, serves the rings and obeys the control side.
//!
//! One thread, no lock around the engine: wake, rounds with a budget until nothing is left, ask to be kicked, sleep
//! until the engine's next moment. It alone reads the clock. It must never wait for anybody but its epoll.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use fw_control::Reply;
use fw_engine::{Answers, Engine, PreparedRules, Tick};
use fw_model::{Arrived, ConnFilter, HandoverId, Probe};
use vmm_sys_util::epoll::EpollEvent;

use crate::crash_copy::CrashCopy;
use crate::decision::Observer;
use crate::features::Acked;
use crate::queue::BATCH;
use crate::uplink::Uplink;
use crate::vring::{Plug, Ring, TOKEN_UPLINK};

mod announcer;
mod clock;
mod desk;
pub(crate) mod handover;
mod inward;
mod outward;
mod pending;

use announcer::Announcer;
use desk::{Desk, GuestDoor};
use handover::Hand;
pub(crate) use handover::{Leaving, Outcomes, Staging};
use inward::Inward;
use outward::Outward;
pub(crate) use pending::Pending;

pub use clock::boot_time;
pub(crate) use clock::wall_time_ms;

/// Batches of one direction in a round.
const ROUND: usize = 8;
/// Busy rounds between two looks at the epoll.
const ROUNDS_UNSEEN: u32 = 8;
/// Most conns a reply lists.
const CONNS_LISTED: usize = 10_000;
/// Room for the engine's own frames of a batch.
const OUTBOX: usize = 256 * 1024;

/// What the control side may ask of the data thread.
#[derive(Debug)]
pub enum Command {
    /// Put these rules in force; answered by [`Reply::Enforced`].
    Install(Arc<PreparedRules>),
    /// Counters and generations.
    Stats,
    /// Living conns that match.
    Conns(ConnFilter),
    /// Close the living conns that match.
    Kill(ConnFilter),
    /// Judge a frame that does not exist.
    Explain(Probe),
    /// Stop reading rings and uplink; timers run on.
    Freeze,
    /// Go on after a freeze.
    Thaw,
    /// End the data thread.
    Stop,
}

/// The data thread has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data thread has ended")]
pub struct WorkerGone;

/// Asks the data thread.
#[derive(Clone)]
pub struct WorkerHandle {
    orders: Sender<Order>,
    plug: Arc<Plug>,
}

impl WorkerHandle {
    /// Has a command done and waits for its reply: about a batch's time.
    ///
    /// # Errors
    /// The data thread has ended.
    pub fn ask(&self, command: Command) -> Result<Reply, WorkerGone> {
        self.order(|done| Order::Ask(command, done))
    }

    /// Hands the rings of a new connection over.
    pub(crate) fn attach(&self, rings: Rings) -> Result<(), WorkerGone> {
        self.order(|done| Order::Attach(rings, done))
    }

    /// Returns when the data thread has let go of the rings and of the memory behind them.
    pub(crate) fn detach(&self) -> Result<(), WorkerGone> {
        self.order(Order::Detach)
    }

    fn order<T>(&self, order: impl FnOnce(SyncSender<T>) -> Order) -> Result<T, WorkerGone> {
        self.begin(order)?.wait()
    }

    /// Has something done without waiting for it.
    fn begin<T>(&self, order: impl FnOnce(SyncSender<T>) -> Order) -> Result<Pending<T>, WorkerGone> {
        let (done, answer) = sync_channel(1);
        self.orders.send(order(done)).map_err(|_| WorkerGone)?;
        self.plug.wake();
        Ok(Pending::new(answer))
    }
}

enum Order {
    Ask(Command, SyncSender<Reply>),
    Attach(Rings, SyncSender<()>),
    Detach(SyncSender<()>),
    Hand(Hand),
}

/// The rings of one queue pair.
pub(crate) struct Rings {
    /// The guest receives.
    pub(crate) inward: Ring,
    /// The guest transmits.
    pub(crate) outward: Ring,
}

/// What the data thread takes for the time; [`boot_time`] outside of tests.
pub(crate) type Clock = Box<dyn FnMut() -> Tick + Send>;

/// When the data thread sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    /// When there is nothing to do.
    WhenIdle,
    /// Never: it looks for frames all the time and needs no kick.
    Never,
}

/// What a step found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Something: there may be more.
    Busy,
    /// Nothing to do.
    Idle,
}

/// The data thread's belongings.
pub(crate) struct Worker {
    plug: Arc<Plug>,
    orders: Receiver<Order>,
    uplink: Box<dyn Uplink>,
    uplink_fd: Option<i32>,
    /// The uplink may have frames.
    uplink_ready: bool,
    desk: Desk,
    clock: Clock,
    acked: Acked,
    rings: Option<Rings>,
    outward: Outward,
    inward: Inward,
    answers: Answers,
    frozen: bool,
    announcer: Announcer,
    crash_copy: Option<Box<CrashCopy>>,
    /// A table that came ahead of its VM and is not handed over yet: none of its conns speaks.
    staged: Option<HandoverId>,
    /// The last table that was handed over.
    arrived: Option<Arrived>,
    rest: Rest,
    /// The engine's next moment, as it was at `sought`.
    due: Option<Tick>,
    sought: Option<Tick>,
}

impl Worker {
    /// A data thread to be run, and the handle that asks it.
    pub(crate) fn new(
        plug: Arc<Plug>,
        engine: Engine,
        crash_copy: Option<Box<CrashCopy>>,
        uplink: Box<dyn Uplink>,
        observer: Box<dyn Observer>,
        clock: Clock,
        rest: Rest,
    ) -> (Self, WorkerHandle) {
        let (sender, orders) = channel();
        let handle = WorkerHandle { orders: sender, plug: Arc::clone(&plug) };
        let worker = Self {
            plug,
            orders,
            uplink,
            uplink_fd: None,
            uplink_ready: true,
            desk: Desk::new(engine, observer),
            clock,
            acked: Acked(0),
            rings: None,
            outward: Outward::new(),
            inward: Inward::new(),
            answers: Answers::with_capacity(BATCH, OUTBOX),
            frozen: false,
            announcer: Announcer::default(),
            crash_copy,
            staged: None,
            arrived: None,
            rest,
            due: None,
            sought: None,
        };
        (worker, handle)
    }

    /// Serves until told to stop.
    ///
    /// # Errors
    /// The uplink is gone for good, or waiting failed.
    pub(crate) fn run(mut self) -> io::Result<()> {
        self.desk.engine.set_guest_offloads(self.acked.offloads());
        self.uplink.set_offloads(self.acked.offloads())?;
        let mut unseen = 0;
        while self.obey()? {
            self.follow_features()?;
            self.forget_stage_if_served();
            let now = (self.clock)();
            self.let_time_pass(now)?;
            self.announce_guest(now)?;
            let busy = !self.frozen && self.round(now)? == Step::Busy;
            if let Some(copy) = &mut self.crash_copy {
                copy.follow(&mut self.desk.engine, now);
            }
            let awake = busy || self.rest == Rest::Never;
            if awake && unseen < ROUNDS_UNSEEN {
                unseen += 1;
                continue;
            }
            unseen = 0;
            let at_once = awake || (!self.frozen && self.listen());
            self.wait(if at_once { 0 } else { self.sleep_ms(now) })?;
        }
        Ok(())
    }

    /// Does what the control side ordered. `false` means stop.
    fn obey(&mut self) -> io::Result<bool> {
        while let Ok(order) = self.orders.try_recv() {
            // Whoever no longer waits for the answer need not get one.
            match order {
                Order::Ask(Command::Stop, done) => {
                    let _ = done.send(Reply::Done);
                    return Ok(false);
                }
                Order::Ask(command, done) => {
                    let reply = self.reply(command)?;
                    self.sought = None;
                    let _ = done.send(reply);
                }
                Order::Attach(rings, done) => {
                    self.rings = Some(rings);
                    self.outward.forget();
                    self.inward.forget();
                    let _ = done.send(());
                }
                Order::Hand(hand) => self.hand(hand),
                Order::Detach(done) => {
                    self.rings = None;
                    // A table that was refused closed this connection's NIC, not the next one's.
                    self.desk.engine.reopen();
                    self.announcer = Announcer::default();
                    self.inward.judge_again();
                    let _ = done.send(());
                }
            }
        }
        Ok(true)
    }

    fn reply(&mut self, command: Command) -> io::Result<Reply> {
        let now = (self.clock)();
        Ok(match command {
            Command::Install(rules) => {
                let generation = rules.rules().generation;
                self.desk.engine.install(rules, now);
                if let Some(copy) = &mut self.crash_copy {
                    copy.forget_tags();
                }
                // Frames that wait for buffers of the guest were judged by the rules before.
                self.inward.judge_again();
                Reply::Enforced(generation)
            }
            Command::Stats => {
                let mut stats = self.desk.engine.stats(now);
                stats.log_lost = self.desk.observer.lost();
                stats.frozen = self.frozen;
                stats.arrived = self.arrived.clone();
                stats.resumed = self.crash_copy.as_ref().and_then(|copy| copy.resumed().cloned());
                Reply::Stats(Box::new(stats))
            }
            Command::Conns(filter) => Reply::Conns(self.desk.engine.conns(&filter, CONNS_LISTED, now)),
            Command::Kill(filter) => {
                let killed = self.desk.engine.kill(&filter, now, &mut self.answers);
                self.empty_outbox()?;
                Reply::Killed(killed)
            }
            Command::Explain(probe) => Reply::Explanation(self.desk.engine.explain(&probe, now)),
            Command::Freeze => {
                self.frozen = true;
                Reply::Done
            }
            Command::Thaw | Command::Stop => {
                self.frozen = false;
                Reply::Done
            }
        })
    }

    /// Engine and uplink follow what the driver acknowledged before a frame is served by it.
    fn follow_features(&mut self) -> io::Result<()> {
        let acked = self.plug.acked();
        if acked != self.acked {
            self.acked = acked;
            self.desk.engine.set_guest_offloads(acked.offloads());
            self.uplink.set_offloads(acked.offloads())?;
        }
        Ok(())
    }

    /// Finding the engine's next moment costs more than a batch, so it is sought once per tick of the clock.
    fn let_time_pass(&mut self, now: Tick) -> io::Result<()> {
        if self.sought != Some(now) {
            self.sought = Some(now);
            self.due = self.desk.engine.next_due();
        }
        if self.due.is_some_and(|due| due <= now) {
            self.desk.engine.expire(now, &mut self.answers);
            self.empty_outbox()?;
            self.due = self.desk.engine.next_due();
        }
        Ok(())
    }

    /// Both directions in turn, so that neither starves the other.
    fn round(&mut self, now: Tick) -> io::Result<Step> {
        let mut found = Step::Idle;
        for _ in 0..ROUND {
            let outward = self.step_outward(now)?;
            let inward = self.step_inward(now)?;
            if outward == Step::Idle && inward == Step::Idle {
                break;
            }
            found = Step::Busy;
        }
        Ok(found)
    }

    /// Asks the driver for kicks where we wait for it. `true` if it did something meanwhile.
    fn listen(&mut self) -> bool {
        let Some(rings) = &self.rings else { return false };
        let outward = self.outward.listen(&rings.outward, self.acked);
        let inward = self.inward.listen(&rings.inward, self.acked);
        outward || inward
    }

    fn sleep_ms(&self, now: Tick) -> i32 {
        let copy = self.crash_copy.as_ref().and_then(|copy| copy.next_due());
        let due = [self.desk.engine.next_due(), self.announcer.next(), copy].into_iter().flatten().min();
        due.map_or(-1, |due| i32::try_from(due.since_ms(now)).unwrap_or(i32::MAX))
    }

    fn wait(&mut self, timeout_ms: i32) -> io::Result<()> {
        self.watch_uplink()?;
        let mut events = [EpollEvent::default(); 8];
        let count = match self.plug.epoll().wait(timeout_ms, &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for event in events.iter().take(count) {
            // Kicks and wakes say nothing that a look around does not find.
            self.uplink_ready |= event.data() == TOKEN_UPLINK;
        }
        Ok(())
    }

    /// An uplink may change its file, as a peer comes and goes.
    fn watch_uplink(&mut self) -> io::Result<()> {
        let fd = self.uplink.readable_fd();
        if fd == self.uplink_fd {
            return Ok(());
        }
        if let Some(old) = self.uplink_fd {
            self.plug.unwatch(old);
        }
        self.uplink_fd = fd;
        self.uplink_ready = true;
        match fd {
            Some(fd) => self.plug.watch(fd, TOKEN_UPLINK),
            None => Ok(()),
        }
    }

    /// Lets the engine's own frames go.
    fn empty_outbox(&mut self) -> io::Result<()> {
        let Self { answers, desk, uplink, rings, inward, acked, frozen, staged, .. } = self;
        if staged.is_some() {
            // The VM is elsewhere still, and only there its firewall speaks for it.
            answers.for_each_emission(|_, _, _| {});
            return Ok(());
        }
        let ring = rings.as_ref().map(|rings| &rings.inward);
        let mut door = GuestDoor { ring, inward, acked: *acked, frozen: *frozen };
        desk.empty_outbox(answers, uplink.as_mut(), &mut door)
    }
}
