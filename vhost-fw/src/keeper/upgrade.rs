//! A new worker takes over from one that lives: planned, exact, and undone if anything is not as it should be.
//!
//! The new one is ready before the old one stops. Then the VMM's connection moves: the old one gives its rings back and writes
//! its table down, the new one takes table and rules in and is told everything that was set up. Knows the order and both
//! workers. Never knows a conn.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fw_control::{Reply, message};
use rustix::fs::{MemfdFlags, memfd_create};

use super::child::Worker;
use super::line::Word;
use super::{Keeper, Over, Relay, Role, from_now, readable, since};
use crate::worker::boot_time;

/// How long a worker may take to write a table down or to take it in.
const TABLE_MAX: Duration = Duration::from_secs(5);

/// Who asked for a new worker, and is told how it went.
pub(crate) struct Asker(UnixStream);

impl Asker {
    pub(super) fn new(connection: OwnedFd) -> Self {
        Self(UnixStream::from(connection))
    }

    fn tell(mut self, reply: &Reply) {
        // Whoever no longer waits need not hear it. Short enough for an empty socket: nobody can make us wait.
        let _ = self.0.set_nonblocking(true);
        let _ = message::encode(reply).and_then(|bytes| self.0.write_all(&bytes));
    }
}

/// What became of an upgrade.
pub(super) enum Upgraded {
    /// This worker serves now; the old one is gone.
    By(Worker),
    /// The old one serves on.
    Not(Worker),
    /// The old one died over it, and no new one serves.
    Neither(Worker),
    /// The NIC was told to stop meanwhile.
    Over(Over),
}

impl Keeper {
    /// Has a new worker take over from `old`.
    pub(super) fn upgrade(
        &mut self,
        old: Worker,
        relay: &mut Option<Relay>,
        asker: Asker,
    ) -> io::Result<Upgraded> {
        let begun = boot_time();
        log::info!("upgrade: starting {}", self.program.display());
        let new = match self.started(None, Role::Successor) {
            Ok(Ok(new)) => new,
            Ok(Err(Over::Stopped)) => {
                asker.tell(&Reply::Refused("the NIC was told to stop".to_owned()));
                old.end()?;
                return Ok(Upgraded::Over(Over::Stopped));
            }
            Ok(Err(Over::Code(code))) => {
                return Ok(self.stays(old, asker, &format!("it ended with code {code}")));
            }
            Err(error) => return Ok(self.stays(old, asker, &error.to_string())),
        };
        let stopped = boot_time();
        match self.change(&old, &new, relay) {
            Ok(conns) => {
                let gap = since(stopped).as_millis();
                log::info!("upgrade: a new worker serves with {conns} conns; {gap} ms without one");
                old.end()?;
                asker.tell(&Reply::Done);
                Ok(Upgraded::By(new))
            }
            Err(error) => {
                new.end()?;
                if let Err(gone) = self.back(&old, relay) {
                    let why = format!("{error}; and the old one does not go on: {gone}");
                    asker.tell(&Reply::Refused(why));
                    return Ok(Upgraded::Neither(old));
                }
                let after = since(begun).as_millis();
                Ok(self.stays(old, asker, &format!("{error} (undone after {after} ms)")))
            }
        }
    }

    fn stays(&self, old: Worker, asker: Asker, why: &str) -> Upgraded {
        let told = format!(
            "{}: the new worker does not take over: {why}; the old one serves on",
            self.program.display()
        );
        log::error!("upgrade: {told}");
        asker.tell(&Reply::Refused(told));
        Upgraded::Not(old)
    }

    /// The change itself; how many conns went over.
    fn change(&mut self, old: &Worker, new: &Worker, relay: &mut Option<Relay>) -> io::Result<u64> {
        // Its rings come to rest with their connection.
        if let Some(relay) = relay {
            relay.part();
        }
        let table = memfd_create("table", MemfdFlags::CLOEXEC)?;
        old.line.say(&Word::Leave, &[table.as_fd()])?;
        let Word::Left { frozen } = self.answer(old)? else {
            return Err(io::Error::other("the old worker does not understand"));
        };
        let given: Vec<_> = [table.as_fd()].into_iter().chain(self.rules.as_ref().map(AsFd::as_fd)).collect();
        new.line.say(&Word::Take { frozen }, &given)?;
        let Word::Taken(conns) = self.answer(new)? else {
            return Err(io::Error::other("it does not understand"));
        };
        relay.as_mut().map_or(Ok(()), |relay| relay.restore(new))?;
        Ok(conns)
    }

    /// The old worker goes on where it was.
    fn back(&mut self, old: &Worker, relay: &mut Option<Relay>) -> io::Result<()> {
        old.line.say(&Word::GoOn, &[])?;
        relay.as_mut().map_or(Ok(()), |relay| relay.restore(old))
    }

    /// A worker's next word but for rules, which are kept; that it cannot is an error.
    fn answer(&mut self, worker: &Worker) -> io::Result<Word> {
        let end = from_now(TABLE_MAX);
        loop {
            if readable(&[worker.line.as_fd()], Some(end))? != [true] {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long over its table"));
            }
            match worker.line.receive()? {
                Some((Word::Rules, sent)) => {
                    self.rules = sent.into_iter().next().or_else(|| self.rules.take())
                }
                Some((Word::Cannot(why), _)) => return Err(io::Error::other(why)),
                Some((word, _)) => return Ok(word),
                None => return Err(io::Error::other("it died")),
            }
        }
    }
}
