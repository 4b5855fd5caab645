//! The control thread: what operators and the control plane ask of a running NIC, and signals.
//!
//! One event loop over the control socket, its few connections, a clock tick and signals; nobody who connects can
//! keep the others waiting. Knows messages. Never knows how the NIC does what it is told.

mod answer;
mod connection;
mod socket;

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use event_manager::{EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps};
use fw_control::{Reply, Request};
use fw_engine::PreparedRules;
use fw_model::{NicId, RuleSet};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use crate::rules_file;
use connection::{Connection, Progress};
pub(crate) use socket::require_free;
pub use socket::{ControlError, SocketFile, bind};

/// Connections at any time.
const CONNECTIONS_MAX: usize = 8;
/// Seconds from one message to the next, and for all of one message: enough for the longest on a slow machine.
const SILENCE_MAX_S: u32 = 60;

const LISTENER: u32 = 0;
const SIGNALS: u32 = 1;
const TICKS: u32 = 2;
const FIRST_CONNECTION: u32 = 3;

/// The running NIC, as the control thread sees it.
pub trait Nic {
    /// Puts rules in force.
    fn install(&self, rules: Arc<PreparedRules>) -> Reply;

    /// The rules in force, with the life that is left of them; `None` if there are none.
    fn in_force(&self) -> Option<RuleSet>;

    /// Does what is asked, [`Request::Install`] and [`Request::Advance`] excepted.
    fn ask(&self, request: Request) -> Reply;

    /// Takes the connection on which `request` was asked and answered [`Reply::Done`].
    fn hand_over(&self, request: Request, stream: UnixStream);
}

/// What the control thread is made of. Everything is open before the sandbox closes.
pub struct Control {
    /// The NIC's id; rules for another are refused.
    id: NicId,
    nic: Box<dyn Nic + Send>,
    /// The file that SIGHUP reads again.
    rules: Option<PathBuf>,
    /// Told when the process shall end.
    stop: EventFd,
    listener: UnixListener,
    signals: SignalFd,
    ticks: TimerFd,
    ticking: bool,
    connections: [Option<Connection>; CONNECTIONS_MAX],
}

/// Blocks the signals that the control thread answers. Call it before any thread is spawned, so that all inherit it.
///
/// # Errors
/// The kernel refused.
pub fn block_signals() -> io::Result<()> {
    Ok(own_signals().thread_block()?)
}

fn own_signals() -> SigSet {
    SigSet::from_iter([Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT])
}

impl Control {
    /// The control thread of the NIC `id`, which listens on `listener` and reads `rules` again on SIGHUP.
    ///
    /// # Errors
    /// Descriptors ran out.
    pub fn new(
        id: NicId,
        nic: Box<dyn Nic + Send>,
        listener: UnixListener,
        rules: Option<PathBuf>,
        stop: EventFd,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let signals = SignalFd::with_flags(&own_signals(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let ticks = TimerFd::new()?;
        let connections = Default::default();
        Ok(Self { id, nic, rules, stop, listener, signals, ticks, ticking: false, connections })
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// The event loop broke: nobody can control the NIC any more.
    pub fn run(self) -> io::Result<()> {
        let wrong = |error: event_manager::Error| io::Error::other(error.to_string());
        let mut manager: EventManager<Self> = EventManager::new().map_err(wrong)?;
        manager.add_subscriber(self);
        loop {
            manager.run().map_err(wrong)?;
        }
    }

    fn accept(&mut self, ops: &mut EventOps<'_>) {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => return log::warn!("control socket: {error}"),
        };
        if let Err(refusal) = self.admit(stream, ops) {
            log::warn!("control socket: {refusal}");
        }
    }

    fn admit(&mut self, stream: UnixStream, ops: &mut EventOps<'_>) -> Result<(), String> {
        let peer = socket_peercred(&stream).map_err(|error| error.to_string())?.uid;
        if !peer.is_root() && peer != geteuid() {
            return Err(format!("a process of uid {} was turned away", peer.as_raw()));
        }
        stream.set_nonblocking(true).map_err(|error| error.to_string())?;
        let free = self.connections.iter_mut().zip(FIRST_CONNECTION..).find(|(place, _)| place.is_none());
        let Some((place, token)) = free else {
            Connection::turn_away(&stream, "too many connections at once; try again");
            return Err(format!("{CONNECTIONS_MAX} connections are open; another was turned away"));
        };
        let events = Events::with_data(&stream, token, EventSet::IN);
        ops.add(events).map_err(|error| error.to_string())?;
        *place = Some(Connection::new(stream));
        if !self.ticking {
            self.let_clock_tick(true);
        }
        Ok(())
    }

    fn serve(&mut self, token: u32, ops: &mut EventOps<'_>) {
        let place = usize::try_from(token.saturating_sub(FIRST_CONNECTION)).unwrap_or(usize::MAX);
        let others_long = self.connections.iter().enumerate().any(|(other, connection)| {
            other != place && connection.as_ref().is_some_and(Connection::is_long)
        });
        let Some(Some(connection)) = self.connections.get_mut(place) else { return };
        let before = connection.interest();
        let progress = connection.advance(others_long, |request| answer::to(&*self.nic, &self.id, request));
        let changed = connection.interest() != before;
        let events = Events::with_data(connection.stream(), token, connection.interest());
        match progress {
            Progress::HandedOver(request) => {
                if let Some(connection) = self.close(place, ops) {
                    self.nic.hand_over(request, connection.into_stream());
                }
            }
            Progress::Goes if !changed || ops.modify(events).is_ok() => {}
            Progress::Goes | Progress::Over => drop(self.close(place, ops)),
        }
    }

    fn close(&mut self, place: usize, ops: &mut EventOps<'_>) -> Option<Connection> {
        let connection = self.connections.get_mut(place).and_then(Option::take)?;
        // Before the descriptor closes, or its number could be another's when it goes.
        let _ = ops.remove(Events::empty(connection.stream()));
        Some(connection)
    }

    /// The clock ticks while somebody is connected: a NIC nobody talks to is not woken for nothing. It is stopped by
    /// its own tick only, since one that was told of and then taken back would be waited for.
    fn let_clock_tick(&mut self, ticking: bool) {
        let second = Duration::from_secs(1);
        let set = if ticking { self.ticks.reset(second, Some(second)) } else { self.ticks.clear() };
        match set {
            Ok(()) => self.ticking = ticking,
            Err(error) => log::warn!("control thread's clock: {error}"),
        }
    }

    fn tick(&mut self, ops: &mut EventOps<'_>) {
        if let Err(error) = self.ticks.wait() {
            log::warn!("control thread's clock: {error}");
        }
        for place in 0..CONNECTIONS_MAX {
            let stale = self.connections.get_mut(place).and_then(Option::as_mut);
            if stale.is_some_and(|connection| connection.grow_older() > SILENCE_MAX_S) {
                drop(self.close(place, ops));
            }
        }
        if self.connections.iter().all(Option::is_none) {
            self.let_clock_tick(false);
        }
    }

    fn obey_signals(&self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            if number == Signal::SIGHUP as i32 {
                self.reload();
                continue;
            }
            log::info!("signal {number}: the NIC goes down");
            if let Err(error) = self.stop.write(1) {
                log::error!("cannot stop: {error}");
            }
        }
    }

    /// Reads the rules file again. Whatever is wrong, the rules in force stay.
    fn reload(&self) {
        let Some(path) = &self.rules else {
            return log::warn!("SIGHUP: started without --rules, so there is nothing to read again");
        };
        let previous = answer::generation(&*self.nic);
        let reply = match rules_file::load_prepared(path, previous) {
            Ok(rules) => answer::install(&*self.nic, &self.id, rules),
            Err(error) => Reply::Refused(error.to_string()),
        };
        match reply {
            Reply::Enforced(generation) => {
                log::info!("{}: generation {generation} is enforced", path.display())
            }
            reply @ (Reply::Stats(_)
            | Reply::Conns(_)
            | Reply::Killed(_)
            | Reply::Explanation(_)
            | Reply::Terms(_)
            | Reply::Done
            | Reply::Refused(_)) => log::error!("the rules in force stay: {}", answer::refusal(&reply)),
        }
    }
}

impl MutEventSubscriber for Control {
    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        match events.data() {
            LISTENER => self.accept(ops),
            SIGNALS => self.obey_signals(),
            TICKS => self.tick(ops),
            connection => self.serve(connection, ops),
        }
    }

    fn init(&mut self, ops: &mut EventOps<'_>) {
        for (descriptor, token) in [
            (self.listener.as_raw_fd(), LISTENER),
            (self.signals.as_raw_fd(), SIGNALS),
            (self.ticks.as_raw_fd(), TICKS),
        ] {
            if let Err(error) = ops.add(Events::with_data_raw(descriptor, token, EventSet::IN)) {
                log::error!("the control thread is deaf: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests;
