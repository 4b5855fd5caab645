//! A small process before the worker: what a VMM must not lose when the worker dies.
//!
//! Holds the VMM's connection and what was set up on it, the sockets, the uplink and the rules in force; starts a
//! worker, passes the VMM's messages on one by one, and tells a new worker everything again. Knows message heads.
//! Never touches a frame and never maps guest memory.

mod child;
pub(crate) mod line;
mod relay;
pub(crate) mod rules;
mod setup;
mod upgrade;
mod watch;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use conn_snapshot::KEY_LEN;
use fw_engine::Tick;
use nix::sys::signal::Signal as Told;
use nix::sys::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::uplink::Held;
use crate::worker::boot_time;
use child::Worker;
use line::{LINE_VERSION, Start, Word};
use relay::{Carried, Relay};
use upgrade::{Asker, Upgraded};
use watch::Found;
pub(crate) use watch::Watch;

/// How long a worker may take until it serves.
const START_MAX: Duration = Duration::from_secs(20);
/// How long the rest of a message, or room for one, may take.
const MESSAGE_MAX: Duration = Duration::from_secs(5);
/// A worker that lived this long did not die of its start.
const LIVED: Duration = Duration::from_millis(500);
/// The longest wait before the next try.
const BACK_OFF_MAX: Duration = Duration::from_millis(500);
/// How long after its connection a dead worker's line may take to end.
const LINE_ENDS: Duration = Duration::from_millis(200);

/// How the NIC ended.
#[derive(Debug)]
pub(crate) enum Over {
    /// It was told to.
    Stopped,
    /// The worker's exit code says that there is no going on.
    Code(u8),
}

/// The uplink is gone: a new worker would find the same.
const UPLINK_GONE: i32 = 75;

/// What the keeper holds.
pub(crate) struct Keeper {
    pub(crate) program: PathBuf,
    pub(crate) vmms: UnixListener,
    pub(crate) control: UnixListener,
    pub(crate) door: UnixListener,
    pub(crate) uplink: Held,
    pub(crate) key: Option<[u8; KEY_LEN]>,
    /// What a table is sealed with between two workers.
    pub(crate) seal: [u8; KEY_LEN],
    pub(crate) rules: Option<OwnedFd>,
    pub(crate) signals: SignalFd,
    /// Who wants a new worker, until that is begun.
    pub(crate) asker: Option<Asker>,
    pub(crate) watch: Watch,
    /// How long the next worker waits, since the ones before it died young.
    pub(crate) pause: Duration,
}

/// What a new worker is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The only one: it serves at once, with what the one before it left behind.
    Only,
    /// The one after a worker that still serves.
    Successor,
}

/// What ended a wait.
enum Event {
    Signal,
    Line,
    Vmm,
    Worker,
    /// The worker says that it is there.
    Pulse,
    /// Somebody may wait for the worker.
    Stir,
    Timeout,
}

impl Keeper {
    /// Serves until told to stop, or until a worker says that there is no going on.
    ///
    /// # Errors
    /// Waiting failed. What a VMM or a worker does is no error.
    pub(crate) fn serve(mut self) -> io::Result<Over> {
        let mut worker = match self.started(None, Role::Only)? {
            Ok(worker) => worker,
            Err(over) => return Ok(over),
        };
        let mut relay: Option<Relay> = None;
        loop {
            let event = self.wait(Some(&worker), relay.as_ref(), None)?;
            let alive = match event {
                Event::Signal if self.stops(Some(&worker)) => {
                    drop(relay);
                    worker.end()?;
                    return Ok(Over::Stopped);
                }
                Event::Signal => true,
                Event::Timeout | Event::Pulse | Event::Stir => {
                    self.watch_over(&worker, relay.as_ref(), &event)?;
                    true
                }
                Event::Line => self.heard(&worker),
                Event::Vmm if relay.is_none() => {
                    relay = self.welcome(&worker);
                    true
                }
                Event::Vmm => {
                    if relay.as_mut().is_some_and(|relay| !relay.carry_request()) {
                        log::info!("the VMM is gone");
                        relay = None;
                    }
                    self.watch.stir(boot_time());
                    true
                }
                Event::Worker => match relay.as_mut().map(Relay::carry_answer) {
                    Some(Carried::Ended) if self.line_ends(&worker) => false,
                    Some(Carried::Ended | Carried::Broken) => {
                        log::warn!("the worker closed the connection to the VMM");
                        relay = None;
                        true
                    }
                    Some(Carried::On) | None => true,
                },
            };
            worker = match self.next(worker, alive, &mut relay)? {
                Ok(worker) => worker,
                Err(over) => return Ok(over),
            };
        }
    }

    /// The worker that serves from now on: the same, another in the place of a dead one, or a new version.
    fn next(
        &mut self,
        worker: Worker,
        alive: bool,
        relay: &mut Option<Relay>,
    ) -> io::Result<Result<Worker, Over>> {
        if !alive {
            self.watch = Watch::new(boot_time());
            return self.replaced(worker, relay);
        }
        // A request under way belongs to the worker that has it.
        if relay.as_ref().is_some_and(Relay::is_asking) {
            return Ok(Ok(worker));
        }
        let Some(asker) = self.asker.take() else { return Ok(Ok(worker)) };
        self.watch = Watch::new(boot_time());
        match self.upgrade(worker, relay, asker)? {
            Upgraded::By(worker) | Upgraded::Not(worker) => Ok(Ok(worker)),
            Upgraded::Neither(worker) => self.replaced(worker, relay),
            Upgraded::Over(over) => Ok(Err(over)),
        }
    }

    /// Follows whether the worker answers while somebody waits. One that does not is killed, and found dead after that.
    fn watch_over(&mut self, worker: &Worker, relay: Option<&Relay>, event: &Event) -> io::Result<()> {
        let now = boot_time();
        let found = match event {
            Event::Pulse if worker.answers() => {
                let watch = std::mem::replace(&mut self.watch, Watch::new(now));
                let (watch, found) = watch.answered(now, relay);
                self.watch = watch;
                found
            }
            Event::Stir => {
                self.watch.stir(now);
                Found::Well
            }
            Event::Pulse => Found::Well,
            Event::Signal | Event::Line | Event::Vmm | Event::Worker | Event::Timeout => {
                let uplink = self.uplink.fd.as_ref().map(AsFd::as_fd);
                let waiting = relay.into_iter().flat_map(Relay::kicks).chain(uplink);
                self.watch.look(now, worker, waiting)?
            }
        };
        if found == Found::Hangs {
            log::error!("the worker hangs while somebody waits: it is killed");
            worker.signal(Signal::KILL);
            self.watch = Watch::new(now);
        }
        Ok(())
    }

    /// A new worker in the place of one that died, which knows everything that was set up.
    fn replaced(&mut self, dead: Worker, relay: &mut Option<Relay>) -> io::Result<Result<Worker, Over>> {
        let died = boot_time();
        if since(dead.since) >= LIVED {
            self.pause = Duration::ZERO;
        }
        let mut dead = Some(dead);
        loop {
            if let Some(dead) = dead.take() {
                let status = dead.end()?;
                log::error!("the worker died ({status}); the VMM is not told, a new one starts");
                if status.code() == Some(UPLINK_GONE) {
                    return Ok(Err(Over::Code(75)));
                }
            }
            let pause = self.pause;
            self.pause = (pause * 2).clamp(Duration::from_millis(10), BACK_OFF_MAX);
            let started = self.started(Some(pause), Role::Only)?;
            if relay.take_if(|relay| relay.is_abandoned()).is_some() {
                log::info!("the VMM is gone");
            }
            match started {
                Err(Over::Stopped) => return Ok(Err(Over::Stopped)),
                // There are rules that a worker took before: the next may have more luck.
                Err(Over::Code(code)) => log::error!("the new worker ended with code {code}; trying again"),
                Ok(worker) => match relay.as_mut().map_or(Ok(()), |relay| relay.restore(&worker)) {
                    Ok(()) => {
                        log::warn!("a new worker serves, after {} ms", since(died).as_millis());
                        return Ok(Ok(worker));
                    }
                    Err(error) => {
                        log::error!("the new worker did not take over: {error}");
                        dead = Some(worker);
                    }
                },
            }
        }
    }

    /// Starts a worker, after a while, and waits until it serves. It may end before, or the NIC be stopped.
    fn started(&mut self, after: Option<Duration>, role: Role) -> io::Result<Result<Worker, Over>> {
        let begin = from_now(after.unwrap_or_default());
        while boot_time() < begin {
            if matches!(self.wait(None, None, Some(begin))?, Event::Signal) && self.stops(None) {
                return Ok(Err(Over::Stopped));
            }
        }
        let start = Start {
            version: LINE_VERSION,
            seal: self.seal,
            successor: role == Role::Successor,
            key: self.key,
            mtu: self.uplink.mtu,
            uplink: self.uplink.fd.is_some(),
            rules: self.rules.is_some(),
        };
        let held: Vec<BorrowedFd<'_>> = [self.control.as_fd(), self.door.as_fd()]
            .into_iter()
            .chain(self.uplink.fd.as_ref().map(AsFd::as_fd))
            .chain(self.rules.as_ref().map(AsFd::as_fd))
            .collect();
        let worker = Worker::start(&self.program, start, &held)?;
        let end = from_now(START_MAX);
        loop {
            match self.wait(Some(&worker), None, Some(end))? {
                Event::Signal if self.stops(Some(&worker)) => {
                    worker.end()?;
                    return Ok(Err(Over::Stopped));
                }
                Event::Line => match worker.line.receive() {
                    Ok(Some((Word::Ready, _))) => return Ok(Ok(worker)),
                    Ok(Some((Word::Rules, sent))) => {
                        self.rules = sent.into_iter().next().or_else(|| self.rules.take())
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => {
                        let code = worker.end()?.code().and_then(|code| u8::try_from(code).ok());
                        return Ok(Err(Over::Code(code.unwrap_or(1))));
                    }
                },
                Event::Timeout if boot_time() >= end => {
                    worker.end()?;
                    return Ok(Err(Over::Code(1)));
                }
                Event::Signal | Event::Timeout | Event::Vmm | Event::Worker | Event::Pulse | Event::Stir => {}
            }
        }
    }

    /// Waits for what is open. While a request is under way the VMM is not read; while there is no worker that serves
    /// (`until` is given) nobody is welcomed.
    fn wait(&self, worker: Option<&Worker>, relay: Option<&Relay>, until: Option<Tick>) -> io::Result<Event> {
        let mut files = vec![(self.signals.as_fd(), Event::Signal)];
        files.extend(worker.map(|worker| (worker.line.as_fd(), Event::Line)));
        match relay {
            Some(relay) => {
                files.push((relay.worker_end(), Event::Worker));
                files.extend(relay.vmm_end().map(|vmm| (vmm, Event::Vmm)));
            }
            None if until.is_none() => files.push((self.vmms.as_fd(), Event::Vmm)),
            None => {}
        }
        if until.is_none() {
            files.extend(worker.and_then(Worker::pulse).map(|pulse| (pulse, Event::Pulse)));
            files.extend(self.watch.file().map(|file| (file, Event::Stir)));
        }
        let watched: Vec<BorrowedFd<'_>> = files.iter().map(|(file, _)| *file).collect();
        let ready = readable(&watched, until.or_else(|| self.watch.due()))?;
        let first = files.into_iter().zip(ready).find(|(_, ready)| *ready);
        Ok(first.map_or(Event::Timeout, |((_, event), _)| event))
    }

    /// Obeys the signals that came; whether the NIC goes down.
    fn stops(&self, worker: Option<&Worker>) -> bool {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or_default();
            if number != Told::SIGHUP as i32 {
                log::info!("signal {number}: the NIC goes down");
                return true;
            }
            match worker {
                Some(worker) => worker.signal(Signal::HUP),
                None => log::warn!("SIGHUP: no worker serves just now; say it again"),
            }
        }
        false
    }

    /// Takes a word of the worker's; whether it lives.
    fn heard(&mut self, worker: &Worker) -> bool {
        match worker.line.receive() {
            Ok(Some((Word::Rules, sent))) => {
                self.rules = sent.into_iter().next().or_else(|| self.rules.take());
                true
            }
            Ok(Some((Word::Upgrade, sent))) => {
                // One at a time: whoever asked before hears nothing more.
                self.asker = sent.into_iter().next().map(Asker::new);
                true
            }
            Ok(Some(_)) => true,
            Ok(None) => false,
            Err(error) => {
                log::error!("the worker is not understood: {error}");
                false
            }
        }
    }

    /// Whether the worker is dead whose connection has ended: then its line ends as well, after its last words.
    fn line_ends(&mut self, worker: &Worker) -> bool {
        let end = from_now(LINE_ENDS);
        let line =
            |worker: &Worker| readable(&[worker.line.as_fd()], Some(end)).is_ok_and(|ready| ready == [true]);
        while line(worker) {
            if !self.heard(worker) {
                return true;
            }
        }
        false
    }

    /// Takes the next VMM and hands its connection to the worker.
    fn welcome(&mut self, worker: &Worker) -> Option<Relay> {
        match self.vmms.accept().and_then(|(vmm, _)| Relay::new(vmm, worker)) {
            Ok(relay) => Some(relay),
            Err(error) => {
                log::warn!("no connection came about: {error}");
                None
            }
        }
    }
}

fn from_now(span: Duration) -> Tick {
    boot_time().after_ms(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

fn since(then: Tick) -> Duration {
    Duration::from_millis(boot_time().0.saturating_sub(then.0))
}

/// Waits until one of `files` can be read, at most until `end`; which ones can.
fn readable(files: &[BorrowedFd<'_>], end: Option<Tick>) -> io::Result<Vec<bool>> {
    let left = end.map(|end| Duration::from_millis(end.0.saturating_sub(boot_time().0) + 1));
    let left = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
    let mut polled: Vec<PollFd<'_>> =
        files.iter().map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN)).collect();
    match poll(&mut polled, left.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(polled.iter().map(|file| !file.revents().is_empty()).collect())
}
