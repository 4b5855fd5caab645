//! The NICs of this host: found by their control sockets, each brought to what is kept for it, again and again until it is.
//!
//! Knows folders and turns. Never knows serve.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fw_control::{SOCKET, control_in};
use fw_model::NicId;
use tokio::sync::broadcast;

use super::kept::Kept;
use super::nic::{Enforced, ask, bring};
use crate::link::wire::{NicState, Report, report};

/// The first pause after a NIC did not do what it was asked, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Which socket stands at a path: another one means another process.
type Socket = (u64, i64, i64);

#[derive(Debug)]
struct Standing {
    socket: Socket,
    /// What the NIC enforces; absent until it was asked.
    enforced: Option<Enforced>,
    problem: String,
    is_busy: bool,
    pause: Duration,
    not_before: Instant,
}

/// The NICs of this host.
#[derive(Debug)]
pub(super) struct Nics {
    run_dir: PathBuf,
    reports: broadcast::Sender<Report>,
    known: Mutex<BTreeMap<NicId, Standing>>,
}

impl Nics {
    pub(super) fn new(run_dir: PathBuf, reports: broadcast::Sender<Report>) -> Self {
        Self { run_dir, reports, known: Mutex::default() }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<NicId, Standing>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What every NIC enforces, as a report each.
    pub(super) fn states(&self) -> Vec<NicState> {
        self.known().iter().map(|(nic, standing)| state(nic, standing)).collect()
    }

    /// Looks who is there, and starts what has to be done. What was started ends by itself.
    pub(super) fn look_over(self: &Arc<Self>, kept: &Arc<Kept>) {
        let found = self.found();
        let now = Instant::now();
        let mut known = self.known();
        known.retain(|nic, standing| {
            let stays = found.get(nic) == Some(&standing.socket);
            if !stays && !found.contains_key(nic) {
                self.say(NicState { nic: nic.to_string(), ..NicState::default() });
            }
            stays
        });
        for (nic, socket) in found {
            let standing = known.entry(nic.clone()).or_insert_with(|| Standing {
                socket,
                enforced: None,
                problem: String::new(),
                is_busy: false,
                pause: PAUSES.0,
                not_before: now,
            });
            let generation = standing.enforced.as_ref().map(|enforced| enforced.generation);
            let is_there =
                generation.is_some() && kept.generation_of(&nic).is_none_or(|g| Some(g) == generation);
            if standing.is_busy || is_there || now < standing.not_before {
                continue;
            }
            standing.is_busy = true;
            let (nics, kept) = (Arc::clone(self), Arc::clone(kept));
            let before = standing.enforced.clone();
            tokio::task::spawn_blocking(move || {
                let became = nics.turn(&nic, before, &kept);
                nics.settle(&nic, socket, became);
            });
        }
    }

    /// Who is there: a folder named for a NIC with a control socket in it.
    fn found(&self) -> BTreeMap<NicId, Socket> {
        let Ok(folders) = fs::read_dir(&self.run_dir) else { return BTreeMap::new() };
        let nic = |folder: fs::DirEntry| {
            let nic: NicId = folder.file_name().to_str()?.parse().ok()?;
            let socket = fs::metadata(folder.path().join(SOCKET)).ok()?;
            Some((nic, (socket.ino(), socket.ctime(), socket.ctime_nsec())))
        };
        folders.filter_map(Result::ok).filter_map(nic).collect()
    }

    fn turn(&self, nic: &NicId, before: Option<Enforced>, kept: &Kept) -> Result<Enforced, String> {
        let socket = control_in(&self.run_dir, nic);
        let before = match before {
            Some(before) => before,
            None => Enforced { generation: ask(&socket)?, rules: None },
        };
        match kept.rules_of(nic) {
            Some(wanted) if wanted.generation == before.generation => {
                Ok(Enforced { rules: Some(Arc::new(wanted)), ..before })
            }
            Some(wanted) => bring(&socket, &before, wanted),
            None => Ok(before),
        }
    }

    fn settle(&self, nic: &NicId, socket: Socket, became: Result<Enforced, String>) {
        let mut known = self.known();
        let Some(standing) = known.get_mut(nic).filter(|standing| standing.socket == socket) else { return };
        standing.is_busy = false;
        match became {
            Ok(enforced) => {
                standing.enforced = Some(enforced);
                standing.problem.clear();
                standing.pause = PAUSES.0;
            }
            Err(why) => {
                log::warn!("NIC {nic}: {why}");
                standing.problem = why;
                standing.not_before = Instant::now() + standing.pause;
                standing.pause = (standing.pause * 2).min(PAUSES.1);
                // Whatever it enforces now, it is asked before the next attempt.
                standing.enforced = None;
            }
        }
        self.say(state(nic, standing));
    }

    fn say(&self, state: NicState) {
        // Nobody listens while serve is away; it is told everything when it is back.
        let _ = self.reports.send(Report { what: Some(report::What::Nic(state)) });
    }
}

fn state(nic: &NicId, standing: &Standing) -> NicState {
    NicState {
        nic: nic.to_string(),
        attached: true,
        enforced: standing.enforced.as_ref().map_or(0, |enforced| enforced.generation),
        problem: standing.problem.clone(),
    }
}
