//! What the other side knows of a table that is being sent ahead, and so what it must still be told.
//!
//! The whole table once, then in rounds what changed, and at the end what changed since the last round that was taken. A
//! round on its way may have been taken or not: what it said is said again. Knows places, flows and codes. Never knows how
//! bytes travel.

use std::collections::HashSet;

use conn_snapshot::{Kind, Snapshot};
use fw_model::{FlowKey, HandoverId};

use super::HandoverOptions;
use super::leaving::{Pieces, leave_at};
use crate::worker::{Leaving, WorkerGone, WorkerHandle};

/// So many rounds with nothing to say are left out one after the other.
const QUIET_MAX: u32 = 10;

/// A table on its way.
pub(super) struct Ahead {
    id: HandoverId,
    /// The code of what the other side took last; `None` until it took the table.
    base: Option<[u8; 32]>,
    /// By place of the table: the flow it was told of.
    told: Vec<Option<FlowKey>>,
    /// Places and flows of a round that was sent and not yet answered.
    unsure: Round,
    /// A list for the data thread to note in.
    spare: Vec<u32>,
    /// Rounds in which there was nothing to say.
    quiet: u32,
}

#[derive(Default)]
struct Round {
    places: Vec<u32>,
    gone: Vec<FlowKey>,
}

impl Ahead {
    pub(super) fn new(id: HandoverId, room: u32) -> Self {
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        Self {
            id,
            base: None,
            told: vec![None; room],
            unsure: Round::default(),
            spare: Vec::with_capacity(room),
            quiet: 0,
        }
    }

    pub(super) const fn id(&self) -> HandoverId {
        self.id
    }

    /// The other side is being told of these conns.
    pub(super) fn told(&mut self, piece: &Leaving) {
        for leaver in &piece.conns {
            if let Some(told) = self.at(leaver.place) {
                *told = Some(leaver.conn.flow);
            }
        }
    }

    /// The other side has taken what it was sent.
    pub(super) fn taken(&mut self, code: [u8; 32]) {
        self.base = Some(code);
        // What was read becomes the next list to note in, with all the room it has: a data thread that notes makes none.
        let read = std::mem::take(&mut self.unsure).places;
        if self.spare.capacity() == 0 {
            self.spare = read;
        }
    }

    /// What changed since the last round; `None` if nothing did.
    pub(super) fn round(
        &mut self,
        worker: &WorkerHandle,
        options: &HandoverOptions,
    ) -> Result<Option<Snapshot>, WorkerGone> {
        let Some(base) = self.base else { return Ok(None) };
        let changed = worker.changed(std::mem::take(&mut self.spare))?;
        // An empty round now and then finds out that the other side is gone, while the whole table can still leave.
        self.quiet = if changed.is_empty() { self.quiet + 1 } else { 0 };
        if changed.is_empty() && self.quiet < QUIET_MAX {
            self.spare = changed;
            return Ok(None);
        }
        self.quiet = 0;
        let (news, gone) = self.news(worker, options, &changed, Vec::new(), base)?;
        self.unsure = Round { places: changed, gone };
        Ok(Some(news))
    }

    /// What the other side must be told now that the VM rests; `None` if only the whole table will do.
    pub(super) fn finish(
        mut self,
        worker: &WorkerHandle,
        options: &HandoverOptions,
    ) -> Result<Option<Snapshot>, WorkerGone> {
        let Some(base) = self.base else { return Ok(None) };
        let mut places = worker.changed(Vec::new())?;
        let Round { places: unsure, gone } = std::mem::take(&mut self.unsure);
        if !unsure.is_empty() {
            places.extend(unsure);
            places.sort_unstable();
            places.dedup();
        }
        let (news, gone) = self.news(worker, options, &places, gone, base)?;
        // More flows than a table has room for are refused there.
        Ok((gone.len() <= self.told.len()).then_some(news))
    }

    /// The conns at `places` as they are now, and the flows that are gone from there, `gone` among them.
    fn news(
        &mut self,
        worker: &WorkerHandle,
        options: &HandoverOptions,
        places: &[u32],
        gone: Vec<FlowKey>,
        base: [u8; 32],
    ) -> Result<(Snapshot, Vec<FlowKey>), WorkerGone> {
        let mut pieces = Pieces::default();
        let mut all_gone: HashSet<FlowKey> = gone.into_iter().collect();
        let generation = leave_at(worker, places, |places, leaving| {
            pieces.add(leaving);
            let mut living = leaving.conns.iter().peekable();
            for place in places {
                let now = living.next_if(|leaver| leaver.place == *place).map(|leaver| leaver.conn.flow);
                let before = self.at(*place).and_then(|told| std::mem::replace(told, now));
                // A flow that has only moved to another place is in the same news, and lives: what is gone goes first.
                all_gone.extend(before.filter(|before| now != Some(*before)));
            }
        })?;
        for flow in &all_gone {
            pieces.add_gone(flow);
        }
        let news = pieces.seal(options, Kind::Delta, self.id, generation, base);
        Ok((news, all_gone.into_iter().collect()))
    }

    fn at(&mut self, place: u32) -> Option<&mut Option<FlowKey>> {
        self.told.get_mut(usize::try_from(place).ok()?)
    }
}
