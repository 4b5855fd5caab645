//! The conn table leaves for another firewall, and arrives from one.
//!
//! What leaves is sealed with the cluster's key; what arrives must be authentic, this NIC's own and expected, or else as
//! `--restore` says, and is refused whole or taken whole. Knows snapshots and the data thread's commands. Never knows how
//! bytes travel: `transfer` does that for a VMM.

mod expected;
mod key_file;
pub(crate) mod record;
mod transfer;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use conn_snapshot::{Chunk, Decoder, Encoder, Header, Key, Kind, SnapshotError};
use fw_engine::Trust;
use fw_model::{Adoption, Arrived, HandoverId, NicId, RuleId};

use crate::worker::{Leaving, WorkerGone, WorkerHandle, wall_time_ms};
use expected::Expected;
pub use expected::Restore;
pub(crate) use key_file::load_secret;
pub use key_file::{KeyFileError, load_key};
pub(crate) use transfer::Transfers;

/// Places of the table that leave together: the data thread is asked for a piece at a time.
pub(crate) const PIECE: u32 = 4096;

/// What a NIC needs to hand its table over, and to take one.
#[derive(Debug, Clone)]
pub struct HandoverOptions {
    /// The NIC; other NICs' tables are refused.
    pub nic: NicId,
    /// The cluster's key.
    pub key: Key,
    /// What becomes of a table that nobody announced.
    pub restore: Restore,
    /// Most conns that are taken.
    pub conns: u32,
}

/// Why a table is not taken, or cannot leave.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// It is no snapshot, or not an authentic one.
    #[error("{0}")]
    Snapshot(#[from] SnapshotError),
    /// It is another NIC's.
    #[error("these are the conns of `{found}`, and this NIC is `{own}`")]
    Foreign {
        /// Whose it is.
        found: NicId,
        /// Who we are.
        own: NicId,
    },
    /// Another handover is expected.
    #[error("handover {expected} is expected, and this is {found}")]
    Unexpected {
        /// The expected one.
        expected: HandoverId,
        /// The one that came.
        found: HandoverId,
    },
    /// It came before.
    #[error("handover {0} was taken before: this is a copy of it")]
    Replayed(HandoverId),
    /// Nobody announced it, and `--restore refuse` takes only what was announced.
    #[error("no handover was announced to this NIC, and it was started with --restore refuse")]
    Unannounced,
    /// It builds on conns that were sent ahead, which are not here.
    #[error("it builds on conns that were sent ahead, and they are not here")]
    NoBase,
    /// The rings run.
    #[error("the rings run: a table leaves or arrives while they are stopped")]
    RingsRun,
    /// The data thread has ended.
    #[error("{0}")]
    WorkerGone(#[from] WorkerGone),
}

/// Hands tables over, for one NIC.
pub struct Handover {
    options: HandoverOptions,
    worker: WorkerHandle,
    expected: Mutex<Expected>,
}

impl Handover {
    pub(crate) fn new(options: HandoverOptions, worker: WorkerHandle) -> Self {
        let expected = Mutex::new(Expected::new(options.restore));
        Self { options, worker, expected }
    }

    /// Most conns that are taken.
    pub(crate) const fn conns(&self) -> u32 {
        self.options.conns
    }

    pub(crate) const fn key(&self) -> &Key {
        &self.options.key
    }

    /// The next table that leaves belongs to this handover.
    pub fn announce(&self, id: HandoverId) {
        self.expected().announce(id);
    }

    /// The next table that arrives is this handover's, and no other.
    pub fn expect(&self, id: HandoverId) {
        self.expected().expect(id);
    }

    /// Refuses to begin while the rings run.
    pub(crate) fn require_rest(&self) -> Result<(), HandoverError> {
        if self.worker.rings_run()? { Err(HandoverError::RingsRun) } else { Ok(()) }
    }

    /// The table as it stands, sealed. It stays where it is: a source that is told to go on goes on with it.
    pub(crate) fn save(&self) -> Result<Vec<u8>, HandoverError> {
        self.require_rest()?;
        let mut encoder = Encoder::new();
        let mut names = record::Names::default();
        let mut piece = self.worker.leaving(0..PIECE)?;
        let mut from = PIECE;
        loop {
            encode(&piece, &mut names, &mut encoder);
            if from >= piece.slots {
                break;
            }
            piece = self.worker.leaving(from..from.saturating_add(PIECE))?;
            from = from.saturating_add(PIECE);
        }
        let header = Header {
            kind: Kind::Whole,
            nic: self.options.nic.clone(),
            generation: piece.generation,
            created_ms: wall_time_ms(),
            handover: self.expected().take_announced(),
            base: [0; 32],
            records: 0,
            chunks: 0,
            body_len: 0,
        };
        let snapshot = encoder.finish(header, names.list(), &self.options.key);
        log::info!(
            "{} conns leave in {} bytes, handover {}",
            snapshot.header.records,
            snapshot.bytes.len(),
            snapshot.header.handover
        );
        Ok(snapshot.bytes)
    }

    /// Takes a table in place of the one that is here, or says why not. A refusal closes the NIC.
    pub(crate) fn load(&self, bytes: &[u8]) -> Result<Arrived, HandoverError> {
        let arrived = self.take(bytes).inspect_err(|error| self.refuse(error))?;
        match &arrived {
            Arrived::Adopted(adoption) => tell(adoption),
            Arrived::Emptied | Arrived::Refused(_) => {
                log::info!("a conn table arrived and was not taken: --restore empty");
            }
        }
        self.worker.arrived(arrived.clone())?;
        Ok(arrived)
    }

    /// Closes the NIC: what should have arrived did not.
    pub(crate) fn refuse(&self, cause: &dyn fmt::Display) {
        log::error!("a conn table is refused and the NIC is closed: {cause}");
        if let Err(gone) = self.worker.arrived(Arrived::Refused(cause.to_string())) {
            log::error!("{gone}");
        }
    }

    fn take(&self, bytes: &[u8]) -> Result<Arrived, HandoverError> {
        let HandoverOptions { nic, key, conns, .. } = &self.options;
        // Everything is checked before the table here is touched.
        let checked = Decoder::check(bytes, key, u64::from(*conns))?;
        let header = checked.header();
        if header.nic != *nic {
            return Err(HandoverError::Foreign { found: header.nic.clone(), own: nic.clone() });
        }
        if header.kind != Kind::Whole {
            return Err(HandoverError::NoBase);
        }
        let admitted = self.expected().admit(header.handover)?;
        self.worker.forget_conns()?;
        let Some(trust) = admitted else { return Ok(Arrived::Emptied) };
        let mut adoption = Adoption::default();
        let mut gone = Ok(());
        checked.visit(|chunk| {
            if gone.is_ok() {
                gone = self.adopt(chunk, trust).map(|adopted| add(&mut adoption, &adopted));
            }
        });
        gone?;
        Ok(Arrived::Adopted(adoption))
    }

    fn adopt(&self, chunk: &Chunk, trust: Trust) -> Result<Adoption, WorkerGone> {
        let arrivals = chunk.records.iter().map(record::arrival).collect();
        let names: Vec<RuleId> = chunk.rules.clone();
        self.worker.adopt(arrivals, names, trust)
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn encode(piece: &Leaving, names: &mut record::Names, encoder: &mut Encoder) {
    names.learn(&piece.rules);
    for (conn, rule) in &piece.conns {
        let rule = rule.and_then(|slot| names.place_of(slot));
        encoder.push(&record::record(conn, rule), names.list());
    }
}

pub(crate) fn add(all: &mut Adoption, piece: &Adoption) {
    all.kept += piece.kept;
    all.judged_again += piece.judged_again;
    for (reason, count) in &piece.refused {
        *all.refused.entry(*reason).or_default() += count;
    }
}

fn tell(adoption: &Adoption) {
    let reasons: Vec<_> =
        adoption.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    log::info!(
        "a conn table arrived: moved {} · re-judged {} · dropped {}{reasons}",
        adoption.kept + adoption.judged_again,
        adoption.judged_again,
        adoption.refused()
    );
}
