//! A table that has come ahead of its VM, and waits in this NIC's own for the rest.
//!
//! What came is remembered by its code, so that what builds on it can be told from what builds on something else; and
//! which conns did not find in, so that the last word counts each once. Knows flows and outcomes. Never knows how bytes
//! travel.

use std::collections::{BTreeMap, HashMap, HashSet};

use conn_snapshot::{Checked, Chunk};
use fw_engine::Home;
use fw_model::{Adoption, FlowKey, HandoverId, Reason};

use super::{HandoverError, record};
use crate::worker::{Outcomes, Staging, WorkerHandle};

/// A table that came ahead.
pub(super) struct Staged {
    id: HandoverId,
    /// The code of what was taken last, and of what was taken before it.
    code: [u8; 32],
    before: Option<[u8; 32]>,
    /// Conns that live by another rule than the one they came with.
    judged_again: HashSet<FlowKey>,
    refused: HashMap<FlowKey, Reason>,
}

impl Staged {
    /// Takes the table itself.
    pub(super) fn begin(worker: &WorkerHandle, checked: &Checked<'_>) -> Result<Self, HandoverError> {
        let id = checked.header().handover;
        worker.begin_stage(id)?;
        let mut staged = Self {
            id,
            code: *checked.code(),
            before: None,
            judged_again: HashSet::new(),
            refused: HashMap::new(),
        };
        staged.take(worker, checked)?;
        Ok(staged)
    }

    /// Whether this is what a delta of handover `id` builds on. The giver may not know yet that its last round was taken:
    /// then it builds on the one before, and says all of it again.
    pub(super) fn is_base(&self, id: HandoverId, base: &[u8; 32]) -> bool {
        self.id == id && (self.code == *base || self.before.as_ref() == Some(base))
    }

    /// Takes what is new.
    pub(super) fn add(&mut self, worker: &WorkerHandle, news: &Checked<'_>) -> Result<(), HandoverError> {
        // Everything that is gone or new goes first: a flow may have moved from one conn to another.
        news.try_visit(|chunk| {
            let gone: Vec<FlowKey> =
                chunk.gone.iter().copied().chain(chunk.records.iter().map(|record| record.flow)).collect();
            for flow in &gone {
                self.judged_again.remove(flow);
                self.refused.remove(flow);
            }
            let staging = Staging { handover: self.id, gone, arrivals: Vec::new(), names: Vec::new() };
            worker.stage(staging)?.map(drop).ok_or(HandoverError::NoBase)
        })?;
        self.take(worker, news)?;
        self.before = Some(std::mem::replace(&mut self.code, *news.code()));
        Ok(())
    }

    fn take(&mut self, worker: &WorkerHandle, checked: &Checked<'_>) -> Result<(), HandoverError> {
        checked.try_visit(|chunk| {
            let arrivals = chunk.records.iter().map(record::arrival).collect();
            let names = chunk.rules.clone();
            let staging = Staging { handover: self.id, gone: Vec::new(), arrivals, names };
            let outcomes = worker.stage(staging)?.ok_or(HandoverError::NoBase)?;
            self.remember(chunk, &outcomes);
            Ok(())
        })
    }

    fn remember(&mut self, chunk: &Chunk, outcomes: &Outcomes) {
        for (record, outcome) in chunk.records.iter().zip(outcomes) {
            match outcome {
                Ok(Home::Same) => {}
                Ok(Home::Other) => drop(self.judged_again.insert(record.flow)),
                Err(reason) => drop(self.refused.insert(record.flow, *reason)),
            }
        }
    }

    /// What became of the table in all, `living` of its conns being here.
    pub(super) fn adoption(&self, living: u32) -> Adoption {
        let judged_again = u64::try_from(self.judged_again.len()).unwrap_or(u64::MAX);
        let mut refused = BTreeMap::new();
        for reason in self.refused.values() {
            *refused.entry(*reason).or_default() += 1;
        }
        Adoption { kept: u64::from(living).saturating_sub(judged_again), judged_again, refused }
    }
}
