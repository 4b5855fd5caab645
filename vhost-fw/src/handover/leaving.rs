//! The table leaves: whole, or what is new since it was sent ahead.
//!
//! It stays where it is: a source that is told to go on goes on with it. Knows the data thread's pieces and the encoder.
//! Never knows who carries the bytes.

use std::collections::VecDeque;

use conn_snapshot::{Encoder, Header, Kind, Snapshot};
use fw_model::HandoverId;

use super::ahead::Ahead;
use super::record::{self, Names};
use super::{Handover, HandoverError, HandoverOptions};
use crate::worker::{Leaving, WorkerGone, WorkerHandle, wall_time_ms};

/// Places of the table that leave together: the data thread is asked for a piece at a time.
const PIECE: u32 = 4096;

/// Pieces that are looked for ahead of the one that is encoded, at most: some 700 KB each.
const UNDER_WAY: usize = 4;

impl Handover {
    /// The table as it stands, sealed, for the VMM that has stopped its VM.
    pub(crate) fn save(&self) -> Result<Snapshot, HandoverError> {
        self.require_rest()?;
        let id = self.expected().announced();
        let ahead = self.ahead().take();
        let news = match ahead.filter(|ahead| ahead.id() == id) {
            Some(ahead) => ahead.finish(&self.worker, &self.options)?,
            None => None,
        };
        self.worker.leave_alone()?;
        let snapshot = match news {
            Some(news) => news,
            None => self.whole(Kind::Whole, id, &mut |_| {})?,
        };
        let Header { kind, records, handover, .. } = &snapshot.header;
        let what = if *kind == Kind::Delta { "changed conns" } else { "conns" };
        log::info!("{records} {what} leave in {} bytes, handover {handover}", snapshot.bytes.len());
        Ok(snapshot)
    }

    /// The VMM has all of the table that left under this name.
    pub(super) fn left(&self, id: HandoverId) {
        self.expected().left(id);
    }

    /// The table as it stands, for whoever asks, while the VM may run.
    pub(crate) fn export(&self) -> Result<Vec<u8>, HandoverError> {
        Ok(self.whole(Kind::Whole, HandoverId::NONE, &mut |_| {})?.bytes)
    }

    /// Every conn; `seen` is shown each piece.
    fn whole(
        &self,
        kind: Kind,
        id: HandoverId,
        seen: &mut dyn FnMut(&Leaving),
    ) -> Result<Snapshot, WorkerGone> {
        let mut pieces = Pieces::default();
        // The data thread looks for the next pieces while one is encoded; while frames pass, for one at a time.
        let ahead = if self.worker.rings_run()? { 1 } else { UNDER_WAY };
        let (mut under_way, mut from) = (VecDeque::new(), 0_u32);
        let (mut slots, mut generation) = (1, None);
        while from < slots || !under_way.is_empty() {
            while from < slots && under_way.len() < ahead {
                let to = from.saturating_add(PIECE);
                under_way.push_back(self.worker.begin_leaving(from..to)?);
                from = to;
            }
            let Some(piece) = under_way.pop_front() else { break };
            let piece = piece.wait()?;
            (slots, generation) = (piece.slots, piece.generation);
            seen(&piece);
            pieces.add(&piece);
        }
        Ok(pieces.seal(&self.options, kind, id, generation, [0; 32]))
    }

    /// Begins to send the table ahead: all of it as it stands.
    pub(super) fn begin_ahead(&self, id: HandoverId) -> Result<Snapshot, HandoverError> {
        let mut ahead = self.ahead();
        if ahead.is_some() {
            return Err(HandoverError::UnderWay);
        }
        self.expected().announce(id);
        self.worker.follow()?;
        let mut begun = Ahead::new(id, self.options.conns);
        let bulk = self.whole(Kind::Bulk, id, &mut |piece| begun.told(piece))?;
        *ahead = Some(begun);
        Ok(bulk)
    }

    /// What is new since the last round of `id`; `None` if nothing is. The other side has taken what it was sent.
    pub(super) fn next_round(&self, id: HandoverId) -> Result<Round, HandoverError> {
        match self.ahead().as_mut().filter(|ahead| ahead.id() == id) {
            Some(ahead) => Ok(match ahead.round(&self.worker, &self.options)? {
                Some(news) => Round::News(news),
                None => Round::Nothing,
            }),
            None => Ok(Round::Over),
        }
    }

    /// The other side has taken the snapshot with this code.
    pub(super) fn taken(&self, id: HandoverId, code: [u8; 32]) {
        if let Some(ahead) = self.ahead().as_mut().filter(|ahead| ahead.id() == id) {
            ahead.taken(code);
        }
    }

    /// The other side of this handover is gone: the whole table will leave.
    pub(super) fn end_ahead(&self, id: HandoverId) -> Result<(), WorkerGone> {
        let mut ahead = self.ahead();
        match ahead.take_if(|ahead| ahead.id() == id) {
            Some(_) => self.worker.leave_alone(),
            None => Ok(()),
        }
    }
}

/// What a round of sending ahead found.
pub(super) enum Round {
    /// These conns have changed.
    News(Snapshot),
    /// None has.
    Nothing,
    /// The table has left, or the handover was cancelled.
    Over,
}

/// Pieces of a table as they become a snapshot.
#[derive(Default)]
pub(crate) struct Pieces {
    encoder: Encoder,
    names: Names,
}

impl Pieces {
    pub(crate) fn add(&mut self, piece: &Leaving) {
        self.names.learn(&piece.rules);
        for leaver in &piece.conns {
            let rule = leaver.rule.and_then(|slot| self.names.place_of(slot));
            self.encoder.push(&record::record(&leaver.conn, rule), self.names.list());
        }
    }

    pub(super) fn add_gone(&mut self, flow: &fw_model::FlowKey) {
        self.encoder.push_gone(flow, self.names.list());
    }

    pub(crate) fn seal(
        self,
        options: &HandoverOptions,
        kind: Kind,
        handover: HandoverId,
        generation: Option<u64>,
        base: [u8; 32],
    ) -> Snapshot {
        let header = Header {
            kind,
            nic: options.nic.clone(),
            generation: generation.unwrap_or(0),
            created_ms: wall_time_ms(),
            handover,
            base,
            records: 0,
            chunks: 0,
            body_len: 0,
        };
        self.encoder.finish(header, self.names.list(), &options.key)
    }
}

/// The conns at these places, a piece at a time; the generation of the rules they live under.
pub(super) fn leave_at(
    worker: &WorkerHandle,
    places: &[u32],
    mut seen: impl FnMut(&[u32], &Leaving),
) -> Result<Option<u64>, WorkerGone> {
    let mut generation = None;
    let piece_len = usize::try_from(PIECE).unwrap_or(usize::MAX);
    for piece in places.chunks(piece_len) {
        let leaving = worker.leaving_at(piece.to_vec())?;
        generation = leaving.generation;
        seen(piece, &leaving);
    }
    Ok(generation)
}
