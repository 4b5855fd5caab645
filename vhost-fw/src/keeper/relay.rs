//! One VMM's messages on their way to the worker, and the answers back.
//!
//! A request at a time; what was set up is remembered, and told again to a worker that comes after. Knows message heads.
//! Never knows which worker serves, nor why there is another.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use fw_engine::Tick;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::child::Worker;
use super::setup::{self, GET_FEATURES, Setup};
use super::{MESSAGE_MAX, START_MAX};
use crate::serve::message::Message;
use crate::worker::boot_time;

/// One VMM: its connection, that to the worker, and what lies between.
pub(super) struct Relay {
    vmm: UnixStream,
    worker: UnixStream,
    setup: Setup,
    /// The request that was not answered yet. Nothing else passes meanwhile.
    asked: Option<Message>,
    asked_at: Tick,
}

/// What became of a message.
pub(super) enum Carried {
    On,
    /// The worker's end is gone.
    Ended,
    /// The VMM's end is, or does not keep to the protocol.
    Broken,
}

impl Relay {
    pub(super) fn new(vmm: UnixStream, worker: &Worker) -> io::Result<Self> {
        vmm.set_nonblocking(false)?;
        vmm.set_read_timeout(Some(MESSAGE_MAX))?;
        vmm.set_write_timeout(Some(MESSAGE_MAX))?;
        let connection = handed(worker)?;
        Ok(Self { vmm, worker: connection, setup: Setup::default(), asked: None, asked_at: boot_time() })
    }

    /// Whether the VMM has gone away meanwhile.
    pub(super) fn is_abandoned(&self) -> bool {
        let mut vmm = [PollFd::new(&self.vmm, PollFlags::RDHUP)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut vmm, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Whether a request is under way.
    pub(super) const fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// Since when a request is under way.
    pub(super) fn asks_since(&self) -> Option<Tick> {
        self.is_asking().then_some(self.asked_at)
    }

    /// Where it shows that the guest waits.
    pub(super) fn kicks(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.setup.kicks()
    }

    /// What is waited for, both ends: the VMM is not read while a request is under way.
    pub(super) fn worker_end(&self) -> BorrowedFd<'_> {
        self.worker.as_fd()
    }

    pub(super) fn vmm_end(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_asking()).then(|| self.vmm.as_fd())
    }

    /// Carries one message to the worker; whether the VMM is still there.
    pub(super) fn carry_request(&mut self) -> bool {
        let carried = Message::read(&self.vmm).and_then(|message| {
            let Some(message) = message else { return Ok(false) };
            // A worker that is gone is found out by its end of the connection, and is told again.
            if let Err(error) = message.send(&self.worker) {
                log::warn!("a message was not carried to the worker: {error}");
            }
            if self.setup.is_answered(&message) {
                (self.asked, self.asked_at) = (Some(message), boot_time());
            } else {
                self.setup.note(message, None)?;
            }
            Ok(true)
        });
        carried.unwrap_or_else(|error| {
            log::warn!("a message was not carried on: {error}");
            false
        })
    }

    /// Carries one answer to the VMM.
    pub(super) fn carry_answer(&mut self) -> Carried {
        let Ok(Some(answer)) = Message::read(&self.worker) else { return Carried::Ended };
        let noted = match self.asked.take() {
            Some(asked) => self.setup.note(asked, Some(&answer)),
            None => Ok(()),
        };
        match noted.and_then(|()| answer.send(&self.vmm)) {
            Ok(()) => Carried::On,
            Err(error) => {
                log::warn!("an answer was not carried on: {error}");
                Carried::Broken
            }
        }
    }

    /// Takes the connection away from the worker, which gives its rings back.
    pub(super) fn part(&self) {
        // One that is gone already is as good.
        let _ = self.worker.shutdown(Shutdown::Both);
    }

    /// Tells a new worker everything, and asks it what the last one did not answer.
    pub(super) fn restore(&mut self, worker: &Worker) -> io::Result<()> {
        let connection = handed(worker)?;
        setup::replay(&self.setup, &connection)?;
        Message::new(GET_FEATURES, &[]).send(&connection)?;
        let offered = loop {
            let ended = || io::Error::other("it ended the connection");
            let answer = Message::read(&connection)?.ok_or_else(ended)?;
            // The log is answered always; what it says was said before.
            if answer.request() == GET_FEATURES {
                break answer.value().unwrap_or(0);
            }
        };
        let acked = self.setup.acked();
        if acked & !offered != 0 {
            let lacks = acked & !offered;
            return Err(io::Error::other(format!("it lacks features in use ({lacks:#x})")));
        }
        if let Some(asked) = &self.asked {
            asked.send(&connection)?;
            self.asked_at = boot_time();
        }
        self.worker = connection;
        self.setup.wake();
        Ok(())
    }
}

/// A connection whose other end the worker has.
fn handed(worker: &Worker) -> io::Result<UnixStream> {
    let (near, far) = UnixStream::pair()?;
    near.set_read_timeout(Some(START_MAX))?;
    near.set_write_timeout(Some(MESSAGE_MAX))?;
    worker.hand(&far.into())?;
    Ok(near)
}
