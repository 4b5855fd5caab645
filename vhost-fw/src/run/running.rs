//! The NIC that the control thread speaks with: its data thread, and who must hear of new rules.
//!
//! Knows which command a request is. Never knows how one is carried out.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fw_control::{Reply, Request};
use fw_engine::{PreparedRules, Tick};
use fw_model::RuleSet;

use crate::control::Nic;
use crate::handover::Handover;
use crate::keeper;
use crate::keeper::line::{Line, Word};
use crate::ready::Readiness;
use crate::worker::{Command, WorkerGone, WorkerHandle, boot_time};

/// The NIC behind the control socket.
pub(super) struct Running {
    pub(super) worker: WorkerHandle,
    pub(super) handover: Option<Arc<Handover>>,
    /// Who holds the rules in force for the next worker.
    pub(super) keeper: Option<Line>,
    pub(super) readiness: Readiness,
    /// Whether anything may be changed here: not from when the table has left for the next worker. Held while something is.
    pub(super) standing: Mutex<Standing>,
    /// What was installed last, and when: a change is made to it.
    pub(super) in_force: Mutex<Option<(Arc<PreparedRules>, Tick)>>,
}

/// Which of two workers this is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// The one that serves.
    #[default]
    Serves,
    /// The one whose table has left.
    HasLeft,
}

fn leaving() -> Reply {
    Reply::Refused("an upgrade is under way: a new worker takes over just now; ask again".to_owned())
}

impl Running {
    /// Leaves the rules with the keeper, before anybody hears that they are in force: then they outlive this process.
    fn leave(&self, rules: &PreparedRules) -> io::Result<()> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let written = keeper::rules::write_down(rules.rules(), boot_time())?;
        keeper.say(&Word::Rules, &[written.as_fd()])
    }

    /// From now on it is this one. Whoever is changing something just now ends that first.
    pub(super) fn stand(&self, standing: Standing) {
        *self.standing() = standing;
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, command: Command) -> Reply {
        self.worker.ask(command).unwrap_or_else(|gone| Reply::Refused(gone.to_string()))
    }
}

impl Nic for Arc<Running> {
    fn install(&self, rules: Arc<PreparedRules>) -> Reply {
        let standing = self.standing();
        if *standing == Standing::HasLeft {
            return leaving();
        }
        let reply = self.tell(Command::Install(Arc::clone(&rules)));
        if let Reply::Enforced(generation) = reply {
            *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((Arc::clone(&rules), boot_time()));
            if let Err(error) = self.leave(&rules) {
                return Reply::Refused(format!(
                    "generation {generation} is in force, but would not outlive this process: {error}"
                ));
            }
            self.readiness.enforced(generation);
        }
        reply
    }

    fn in_force(&self) -> Option<RuleSet> {
        let held = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
        let (rules, since) = held.as_ref()?;
        let mut rules = rules.rules().clone();
        fw_control::age(&mut rules, boot_time().0.saturating_sub(since.0));
        Some(rules)
    }

    fn ask(&self, request: Request) -> Reply {
        let standing = self.standing();
        if *standing == Standing::HasLeft {
            return leaving();
        }
        let handover = |ask: &dyn Fn(&Handover) -> Result<Reply, WorkerGone>| match &self.handover {
            Some(handover) => ask(handover).unwrap_or_else(|gone| Reply::Refused(gone.to_string())),
            None => Reply::Refused("started without --state-key: no table leaves or arrives".to_owned()),
        };
        let done = |tell: &dyn Fn(&Handover)| {
            handover(&|handover| {
                tell(handover);
                Ok(Reply::Done)
            })
        };
        self.tell(match request {
            Request::CancelHandover => return handover(&|handover| handover.cancel().map(|()| Reply::Done)),
            Request::Terms => {
                return handover(&|handover| handover.terms().map(|terms| Reply::Terms(Box::new(terms))));
            }
            Request::Upgrade => {
                return match &self.keeper {
                    Some(_) => Reply::Done,
                    None => Reply::Refused(
                        "started without --keeper: restart it, and the VMM connects again".to_owned(),
                    ),
                };
            }
            Request::SendAhead(_) | Request::Export | Request::Import => return done(&|_| {}),
            Request::AnnounceHandover(id) => return done(&|handover| handover.announce(id)),
            // What is not expected by name is not taken ahead.
            Request::ReceiveAhead(id) | Request::ExpectHandover(id) => {
                return done(&|handover| handover.expect(id));
            }
            Request::Stats => Command::Stats,
            Request::Conns(filter) => Command::Conns(filter),
            Request::Kill(filter) => Command::Kill(filter),
            Request::Explain(probe) => Command::Explain(probe),
            Request::Freeze => Command::Freeze,
            Request::Thaw => Command::Thaw,
            Request::Install(_) | Request::Advance(_) => {
                return Reply::Refused("rules are installed by another door".to_owned());
            }
        })
    }

    fn hand_over(&self, request: Request, stream: UnixStream) {
        if let (Request::Upgrade, Some(keeper)) = (&request, &self.keeper) {
            if let Err(error) = keeper.say(&Word::Upgrade, &[stream.as_fd()]) {
                log::error!("the keeper cannot be asked for a new worker: {error}");
            }
            return;
        }
        let Some(handover) = &self.handover else { return };
        if let Err(error) = handover.serve(request, stream) {
            log::error!("a handover's thread does not start: {error}");
        }
    }
}
