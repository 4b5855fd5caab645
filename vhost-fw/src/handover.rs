//! The conn table leaves for another firewall, and arrives from one.
//!
//! What leaves is sealed with the cluster's key (`leaving`); what arrives must be authentic, this NIC's own and expected, or
//! else as `--restore` says, and is refused whole or taken whole (`arriving`). Knows snapshots and the data thread's
//! commands. Never knows how bytes travel: `transfer` does that for a VMM, `connection` for everybody else.

mod ahead;
pub(crate) mod arriving;
mod connection;
mod expected;
mod key_file;
pub(crate) mod leaving;
mod patient;
pub(crate) mod record;
mod staged;
mod transfer;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use conn_snapshot::{Key, SnapshotError, Versions};
use fw_control::Terms;
use fw_model::{Arrived, HandoverId, NicId};

use crate::hex;
use crate::worker::{Leaving, WorkerGone, WorkerHandle};
pub use record::arrival;

use ahead::Ahead;
use expected::Expected;
pub use expected::Restore;
pub(crate) use key_file::load_secret;
pub use key_file::{KeyFileError, load_key};
use staged::Staged;
pub(crate) use transfer::Transfers;

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
    /// It is no part of a table that comes ahead.
    #[error("this is a whole table: ahead of a VM come its bulk and what changed since")]
    NotAhead,
    /// Another table is being sent or taken ahead.
    #[error("another handover of this NIC is under way; cancel it first")]
    UnderWay,
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
    /// What was sent ahead of the VM that is here.
    ahead: Mutex<Option<Ahead>>,
    /// What came ahead of a VM that is elsewhere.
    staged: Mutex<Option<Staged>>,
}

impl Handover {
    pub(crate) fn new(options: HandoverOptions, worker: WorkerHandle) -> Self {
        let expected = Mutex::new(Expected::new(options.restore));
        Self { options, worker, expected, ahead: Mutex::new(None), staged: Mutex::new(None) }
    }

    /// These were taken by a process before this one: a copy of them is none.
    pub(crate) fn know_taken(&self, taken: &[HandoverId]) {
        self.expected().know(taken);
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

    /// Nothing is announced or expected any more, and what was sent ahead is forgotten.
    ///
    /// # Errors
    /// The data thread has ended.
    pub fn cancel(&self) -> Result<(), WorkerGone> {
        self.expected().cancel();
        self.ahead().take();
        self.worker.leave_alone()?;
        self.forget_staged()
    }

    /// Whether somebody is moving this NIC's VM, as far as it was told.
    pub(crate) fn is_under_way(&self) -> bool {
        self.expected().is_any() || self.ahead().is_some() || self.staged().is_some()
    }

    /// What this NIC can hand over and take.
    ///
    /// # Errors
    /// The data thread has ended.
    pub fn terms(&self) -> Result<Terms, WorkerGone> {
        let Versions { oldest, newest } = Versions::OURS;
        let Leaving { generation, living, .. } = self.worker.leaving(0..0)?;
        let (announced, taken) = self.expected().named();
        Ok(Terms {
            nic: self.options.nic.clone(),
            generation,
            conns: living.into(),
            room: self.options.conns.into(),
            versions: (oldest, newest),
            key: hex::encode(&self.options.key.fingerprint()),
            rings_run: self.worker.rings_run()?,
            announced,
            taken,
        })
    }

    /// Refuses to begin while the rings run.
    pub(crate) fn require_rest(&self) -> Result<(), HandoverError> {
        if self.worker.rings_run()? { Err(HandoverError::RingsRun) } else { Ok(()) }
    }

    /// Closes the NIC: what should have arrived did not.
    pub(crate) fn refuse(&self, cause: &dyn fmt::Display) {
        log::error!("a conn table is refused and the NIC is closed: {cause}");
        if let Err(gone) = self.worker.arrived(Arrived::Refused(cause.to_string())) {
            log::error!("{gone}");
        }
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn staged(&self) -> MutexGuard<'_, Option<Staged>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
