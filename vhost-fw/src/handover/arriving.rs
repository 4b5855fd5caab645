//! A table arrives: whole, ahead of its VM, or the last of one that came ahead.
//!
//! Everything is checked before the table here is touched. Knows snapshots, what is expected and the data thread's
//! commands. Never knows who carried the bytes.

use std::collections::VecDeque;

use conn_snapshot::{Checked, Chunk, Decoder, Header, Kind};
use fw_engine::Trust;
use fw_model::{Adoption, Arrived, HandoverId};

use super::staged::Staged;
use super::{Handover, HandoverError, HandoverOptions, Restore, record};
use crate::worker::{Pending, WorkerGone};

/// Chunks that wait for the data thread, at most: some 300 KB each.
const UNDER_WAY: usize = 8;

impl Handover {
    /// Takes a table in place of the one that is here, or says why not. A refusal closes the NIC.
    pub(crate) fn load(&self, bytes: &[u8]) -> Result<Arrived, HandoverError> {
        let arrived = self.take(bytes).inspect_err(|error| self.refuse(error))?;
        self.arrived(arrived.clone())?;
        Ok(arrived)
    }

    /// A table with this header, which is authentic, is on its way.
    pub(crate) fn make_ready(&self, header: &Header) {
        let records = u32::try_from(header.records).unwrap_or(u32::MAX);
        if let Err(gone) = self.worker.begin_prepare(records.min(self.options.conns)) {
            log::error!("{gone}");
        }
    }

    /// Takes a table that an operator brings. A refusal changes nothing.
    pub(super) fn import(&self, bytes: &[u8]) -> Result<[u8; 32], HandoverError> {
        self.require_rest()?;
        let checked = self.check(bytes)?;
        let arrived = self.admit(&checked)?;
        self.arrived(arrived)?;
        Ok(*checked.code())
    }

    /// Takes the table of this NIC's worker before this one, exactly; how many conns live.
    pub(crate) fn succeed(&self, bytes: &[u8]) -> Result<u64, HandoverError> {
        let checked = self.check(bytes)?;
        match self.replace(&checked, Trust::Exact)? {
            Arrived::Adopted(adoption) => Ok(adoption.kept + adoption.judged_again),
            Arrived::Emptied | Arrived::Refused(_) => Ok(0),
        }
    }

    /// Takes what comes ahead of a VM: the table, or what is new of it. Answers with its code.
    pub(super) fn stage(&self, bytes: &[u8]) -> Result<[u8; 32], HandoverError> {
        let checked = self.check(bytes)?;
        let header = checked.header();
        // Held throughout: the VM's own part waits until this one is in or out.
        let mut staged = self.staged();
        match header.kind {
            Kind::Whole => return Err(HandoverError::NotAhead),
            Kind::Bulk => {
                self.require_rest()?;
                self.expected().require(header.handover)?;
                *staged = None;
                *staged = Some(Staged::begin(&self.worker, &checked)?);
            }
            Kind::Delta => {
                let base = staged.as_mut().filter(|staged| staged.is_base(header.handover, &header.base));
                base.ok_or(HandoverError::NoBase)?.add(&self.worker, &checked)?;
            }
        }
        Ok(*checked.code())
    }

    /// What came ahead is not wanted any more.
    pub(super) fn forget_staged(&self) -> Result<(), WorkerGone> {
        *self.staged() = None;
        self.worker.forget_stage()
    }

    fn check<'b>(&self, bytes: &'b [u8]) -> Result<Checked<'b>, HandoverError> {
        let HandoverOptions { nic, key, conns, .. } = &self.options;
        let checked = Decoder::check(bytes, key, u64::from(*conns))?;
        let found = &checked.header().nic;
        if found == nic {
            Ok(checked)
        } else {
            Err(HandoverError::Foreign { found: found.clone(), own: nic.clone() })
        }
    }

    fn take(&self, bytes: &[u8]) -> Result<Arrived, HandoverError> {
        self.admit(&self.check(bytes)?)
    }

    fn admit(&self, checked: &Checked<'_>) -> Result<Arrived, HandoverError> {
        let header = checked.header();
        let staged = self.staged().take();
        let base = match header.kind {
            Kind::Whole => None,
            Kind::Bulk => return Err(HandoverError::NoBase),
            Kind::Delta => staged.filter(|staged| staged.is_base(header.handover, &header.base)),
        };
        let missing = header.kind == Kind::Delta && base.is_none();
        if missing && self.options.restore == Restore::Refuse {
            return Err(HandoverError::NoBase);
        }
        let admitted = self.expected().admit(header.handover)?;
        if admitted.is_some() && header.handover != HandoverId::NONE {
            self.worker.remember_taken(header.handover)?;
        }
        match (admitted, base) {
            (Some(_), Some(staged)) => self.complete(staged, checked),
            (Some(trust), None) => {
                let trust = if missing { Trust::Resuming } else { trust };
                if missing {
                    log::warn!(
                        "the conns that were sent ahead are not here: those that have not changed since are lost"
                    );
                }
                self.replace(checked, trust)
            }
            (None, _) => {
                self.worker.forget_conns()?;
                Ok(Arrived::Emptied)
            }
        }
    }

    /// The last of a table that came ahead.
    fn complete(&self, mut staged: Staged, news: &Checked<'_>) -> Result<Arrived, HandoverError> {
        staged.add(&self.worker, news)?;
        let living = self.worker.leaving(0..0)?.living;
        Ok(Arrived::Adopted(staged.adoption(living)))
    }

    /// Another table in place of this one.
    fn replace(&self, checked: &Checked<'_>, trust: Trust) -> Result<Arrived, HandoverError> {
        self.worker.forget_conns()?;
        let mut adoption = Adoption::default();
        // The data thread takes chunks in while the next ones are decoded: neither waits for the other to wake.
        let mut under_way = VecDeque::new();
        checked.try_visit(|chunk| {
            under_way.push_back(self.begin_adopt(chunk, trust)?);
            if under_way.len() > UNDER_WAY
                && let Some(first) = under_way.pop_front()
            {
                add(&mut adoption, &first.wait()?);
            }
            Ok::<_, WorkerGone>(())
        })?;
        for last in under_way {
            add(&mut adoption, &last.wait()?);
        }
        Ok(Arrived::Adopted(adoption))
    }

    fn begin_adopt(&self, chunk: &Chunk, trust: Trust) -> Result<Pending<Adoption>, WorkerGone> {
        let arrivals = chunk.records.iter().map(record::arrival).collect();
        self.worker.begin_adopt(arrivals, chunk.rules.clone(), trust)
    }

    fn arrived(&self, arrived: Arrived) -> Result<(), WorkerGone> {
        match &arrived {
            Arrived::Adopted(adoption) => tell(adoption),
            Arrived::Emptied | Arrived::Refused(_) => {
                log::info!("a conn table arrived and was not taken: --restore empty");
            }
        }
        self.worker.arrived(arrived)
    }
}

fn add(all: &mut Adoption, piece: &Adoption) {
    all.kept += piece.kept;
    all.judged_again += piece.judged_again;
    for (reason, count) in &piece.refused {
        *all.refused.entry(*reason).or_default() += count;
    }
}

fn tell(adoption: &Adoption) {
    log::info!("a conn table arrived: {adoption}");
}
