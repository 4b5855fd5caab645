//! The worker of a keeper, and its place among workers: the first, the next, or the last one's successor.
//!
//! It leaves its table to the next worker when the keeper says so, or takes one; nothing is changed by anybody in between.
//! Knows the keeper's words. Never knows a VMM.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use conn_snapshot::Key;
use fw_control::Reply;
use fw_engine::PreparedRules;
use vmm_sys_util::eventfd::EventFd;

use super::running::{Running, Standing};
use super::start_control;
use crate::control::{Control, Nic as _};
use crate::crash_copy::{CrashCopy, NewFile};
use crate::handover::{Handover, HandoverOptions};
use crate::keeper::line::{Line, Word};
use crate::keeper::rules::read_again;
use crate::serve::Hear;
use crate::worker::{Command, WorkerHandle, boot_time};

/// It only reads, waits and writes.
const PULSE_STACK: usize = 64 * 1024;

/// The keeper as its worker sees it.
pub(super) struct Keeper {
    pub(super) line: Line,
    /// Where it asks whether the worker is there.
    pub(super) pulse: UnixStream,
    /// What a table is sealed with between two workers.
    pub(super) seal: Key,
    /// Whether another worker serves, whose table this one will take.
    pub(super) successor: bool,
    /// The successor's crash copy, which is nobody's yet.
    pub(super) next_copy: Option<(Box<CrashCopy>, NewFile)>,
}

/// What a worker does about the keeper's words.
pub(super) struct Succession {
    line: Line,
    nic: Arc<Running>,
    /// Hands the table over between workers.
    between: Handover,
    /// The successor's control thread: it answers nobody before it has taken over.
    control: Option<Control>,
    stop: EventFd,
    next_copy: Option<(Box<CrashCopy>, NewFile)>,
}

impl Succession {
    /// Serves as the only worker, or waits for the table of the one before. The keeper is told.
    pub(super) fn begin(
        keeper: Keeper,
        nic: Arc<Running>,
        options: HandoverOptions,
        control: Control,
        stop: EventFd,
    ) -> io::Result<Self> {
        let Keeper { line, pulse, seal, successor, next_copy } = keeper;
        answer_while_alive(pulse, nic.worker.clone())?;
        let between = Handover::new(HandoverOptions { key: seal, ..options }, nic.worker.clone());
        let mut succession = Self { line, nic, between, control: Some(control), stop, next_copy };
        if !successor {
            succession.answer_others()?;
        }
        succession.line.say(&Word::Ready, &[])?;
        Ok(succession)
    }

    fn answer_others(&mut self) -> io::Result<()> {
        match self.control.take() {
            Some(control) => start_control(control, &self.stop).map_err(io::Error::other),
            None => Ok(()),
        }
    }

    /// Writes the table to `file`, of which nothing changes any more; whether the NIC is frozen.
    fn leave(&self, file: Option<OwnedFd>) -> Result<bool, String> {
        let mut file = File::from(file.ok_or("there is no file for the table")?);
        self.nic.stand(Standing::HasLeft);
        let left = self.write_to(&mut file);
        if left.is_err() {
            self.nic.stand(Standing::Serves);
        }
        left
    }

    fn write_to(&self, file: &mut File) -> Result<bool, String> {
        if self.nic.handover.as_ref().is_some_and(|abroad| abroad.is_under_way()) {
            return Err("the VM is being moved: upgrade when that is done, or cancel it".to_owned());
        }
        let Ok(Reply::Stats(stats)) = self.nic.worker.ask(Command::Stats) else {
            return Err("the data thread has ended".to_owned());
        };
        let table = self.between.export().map_err(|error| error.to_string())?;
        file.write_all(&table).map_err(|error| error.to_string())?;
        Ok(stats.frozen)
    }

    /// Takes the last worker's place: its rules, its table, its crash copy's place; how many conns.
    fn take(&mut self, frozen: bool, given: Vec<OwnedFd>) -> Result<u64, String> {
        let mut given = given.into_iter();
        let mut table = File::from(given.next().ok_or("there is no table")?);
        if let Some(rules) = given.next() {
            self.put_in_force(rules)?;
        }
        let mut bytes = Vec::new();
        let read = table.rewind().and_then(|()| table.read_to_end(&mut bytes));
        read.map_err(|error| error.to_string())?;
        let conns = self.between.succeed(&bytes).map_err(|error| error.to_string())?;
        if frozen {
            self.nic.worker.ask(Command::Freeze).map_err(|gone| gone.to_string())?;
        }
        if let Some((copy, place)) = self.next_copy.take() {
            if let Some(abroad) = &self.nic.handover {
                abroad.know_taken(copy.taken());
            }
            self.nic.worker.keep_copy(copy).map_err(|gone| gone.to_string())?;
            place.put_in_place().map_err(|error| error.to_string())?;
        }
        self.answer_others().map_err(|error| error.to_string())?;
        Ok(conns)
    }

    fn put_in_force(&self, rules: OwnedFd) -> Result<(), String> {
        let rules = read_again(rules, boot_time()).map_err(|error| error.to_string())?;
        let rules = PreparedRules::new(rules).map_err(|error| error.to_string())?;
        if let Reply::Refused(why) = self.nic.install(Arc::new(rules)) { Err(why) } else { Ok(()) }
    }
}

/// Answers each question once the data thread has answered one: whoever spins or stands answers none.
fn answer_while_alive(mut pulse: UnixStream, worker: WorkerHandle) -> io::Result<()> {
    let thread = thread::Builder::new().name("pulse".to_owned()).stack_size(PULSE_STACK);
    let spawned = thread.spawn(move || {
        let mut question = [0; 1];
        while pulse.read_exact(&mut question).is_ok() && worker.rings_run().is_ok() {
            if pulse.write_all(&question).is_err() {
                return;
            }
        }
    });
    spawned.map(drop)
}

impl Hear for Succession {
    fn heard(&mut self, word: &Word, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let answer = match word {
            Word::Leave => self.leave(descriptors.into_iter().next()).map(|frozen| Word::Left { frozen }),
            Word::Take { frozen } => self.take(*frozen, descriptors).map(Word::Taken),
            Word::GoOn => {
                self.nic.stand(Standing::Serves);
                return Ok(());
            }
            // Not a keeper's words, or said already.
            Word::Start(_)
            | Word::Vmm
            | Word::Ready
            | Word::Rules
            | Word::Upgrade
            | Word::Left { .. }
            | Word::Taken(_)
            | Word::Cannot(_) => return Ok(()),
        };
        self.line.say(&answer.unwrap_or_else(Word::Cannot), &[])
    }
}
