//! Fragments: held with hard caps, reassembled, judged as one frame, released as they came.
//!
//! Knows datagrams that are not whole yet. Never knows conns, rules or who the NIC is.
//!
//! Read before working here: RFC 791 section 3.2, RFC 8200 section 4.5, RFC 5722, RFC 6946, RFC 8900.

mod arena;
mod arrival;
mod fit;
mod index;
mod rebuild;
mod sources;
#[cfg(test)]
mod tests;

use fw_model::{Direction, MacAddr, Protocol, Reason};

use crate::headers::Headers;
use crate::time::Tick;
use arena::{Arena, Chunk};
use arrival::{Arrival, Key, Start};
use fit::Fit;
use index::{Index, hash};
use sources::Sources;

/// Fragments of one datagram: enough for 65,535 bytes at IPv6's smallest MTU (RFC 8200 section 5).
const PIECES_MAX: usize = 64;

/// Datagrams thrown out for one fragment, at most: what bounds the work of making room.
const EVICTIONS_MAX: usize = 64;

/// What became of a fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// Kept.
    Held,
    /// Its datagram is whole: read it with [`Fragments::datagram`], then release or discard it.
    Whole(DatagramId),
    /// Refused, and its datagram with it where the reason says so.
    Refused(Reason),
}

/// A datagram that is being put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DatagramId(usize);

/// Held fragments that were dropped later because of their datagram, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// [`Reason::FragmentOverlap`].
    pub(crate) overlap: u64,
    /// [`Reason::FragmentMalformed`].
    pub(crate) malformed: u64,
    /// [`Reason::FragmentLimit`]: thrown out for newer ones, or too many of one datagram.
    pub(crate) limit: u64,
}

/// A held fragment; it stands beside the first chunk of its frame.
#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Its data's range in the datagram's fragmentable part.
    start: u32,
    end: u32,
    more: bool,
    /// Length of its frame, and where its data starts there.
    frame: u32,
    data_at: u32,
    /// The piece that came next.
    next: Option<Chunk>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Gathering,
    /// Refused for good; late fragments of it are too, until its time is over (RFC 5722 section 4).
    Poisoned(Reason),
}

#[derive(Debug, Clone, Copy)]
struct Datagram {
    key: Key,
    state: State,
    deadline: Tick,
    /// What all fragments must agree in.
    protocol: Protocol,
    destination_mac: MacAddr,
    /// Its pieces in the order they came.
    first: Option<Chunk>,
    last: Option<Chunk>,
    pieces: usize,
    /// Bytes of data held, where the furthest piece ends, and where the datagram does.
    received: u32,
    furthest: u32,
    end: Option<u32>,
    /// The piece with offset 0, whose headers count.
    start: Option<(Chunk, Start)>,
}

/// The datagrams of one NIC that are not whole yet.
#[derive(Debug)]
pub(crate) struct Fragments {
    arena: Arena,
    /// By the first chunk of each held frame.
    pieces: Vec<Option<Piece>>,
    datagrams: Vec<Option<Datagram>>,
    free: Vec<usize>,
    index: Index,
    sources: Sources,
    /// What one source may hold: a quarter of everything.
    source_datagrams: usize,
    source_chunks: usize,
    /// Chunks that a limit of the rules' own keeps empty.
    reserved: usize,
    /// No datagram's time is over before.
    due: Option<Tick>,
    /// Fragments that were found overdue since `expire` last ran.
    overdue: u64,
    lost: Lost,
    scratch: Vec<u8>,
}

impl Fragments {
    /// Room for `bytes` of held frames; everything is allocated here.
    pub(crate) fn new(bytes: usize) -> Self {
        let datagrams = (bytes / 4096).clamp(16, 1024);
        let arena = Arena::new(bytes);
        Self {
            pieces: vec![None; arena.len()],
            source_datagrams: datagrams / 4,
            source_chunks: arena.len() / 4,
            reserved: 0,
            arena,
            datagrams: vec![None; datagrams],
            free: (0..datagrams).rev().collect(),
            index: Index::new(datagrams),
            sources: Sources::new(datagrams),
            due: None,
            overdue: 0,
            lost: Lost::default(),
            scratch: vec![0; crate::FRAME_LEN_MAX],
        }
    }

    /// Lowers the room to `bytes`; what is held beyond that goes as new fragments come.
    pub(crate) fn set_limit(&mut self, bytes: usize) {
        let chunks = self.arena.len().min(bytes / arena::CHUNK);
        self.reserved = self.arena.len() - chunks;
        self.source_chunks = chunks / 4;
    }

    /// Takes a whole frame that is a fragment (`headers.net` is IP with `fragment` set). It is kept for
    /// `lifetime_s` seconds from the first of its datagram at most.
    pub(crate) fn add(
        &mut self,
        direction: Direction,
        frame: &[u8],
        headers: &Headers,
        now: Tick,
        lifetime_s: u32,
    ) -> Added {
        let Some((arrival, bytes)) = Arrival::read(direction, frame, headers) else {
            return Added::Refused(Reason::FragmentMalformed);
        };
        let slot = match self.find(&arrival.key, now) {
            Some(slot) => slot,
            None => match self.open(&arrival, now.after_s(lifetime_s)) {
                Ok(slot) => slot,
                Err(reason) => return Added::Refused(reason),
            },
        };
        self.place(slot, &arrival, bytes).unwrap_or_else(Added::Refused)
    }

    /// The whole datagram as one unfragmented frame (Ethernet header of the first fragment, IP header without
    /// fragmentation, lengths and IPv4 header checksum right), to be parsed and judged like any other.
    pub(crate) fn datagram(&mut self, id: DatagramId) -> &[u8] {
        let length = self.rebuild(id.0).unwrap_or(0);
        self.scratch.get(..length).unwrap_or_default()
    }

    /// Hands out the frames of a datagram in the order they came, and forgets it.
    pub(crate) fn release(&mut self, id: DatagramId, mut emit: impl FnMut(&[u8])) {
        let mut next = self.datagram_at(id.0).and_then(|datagram| datagram.first);
        while let Some((chunk, piece)) = next.and_then(|chunk| Some((chunk, self.piece_at(chunk)?))) {
            if let Some(frame) = self.scratch.get_mut(..piece.frame as usize) {
                self.arena.read(chunk, 0, frame);
                emit(frame);
            }
            next = piece.next;
        }
        self.forget(id.0);
    }

    /// Forgets a datagram that was refused.
    pub(crate) fn discard(&mut self, id: DatagramId) {
        self.forget(id.0);
    }

    /// Forgets every datagram whose time is over; says how many fragments that dropped.
    pub(crate) fn expire(&mut self, now: Tick) -> u64 {
        let mut dropped = std::mem::take(&mut self.overdue);
        if self.due.is_some_and(|due| due <= now) {
            for slot in 0..self.datagrams.len() {
                if self.datagram_at(slot).is_some_and(|datagram| datagram.deadline <= now) {
                    dropped += self.forget(slot);
                }
            }
            self.due = self.datagrams.iter().flatten().map(|datagram| datagram.deadline).min();
        }
        dropped
    }

    /// When `expire` may have something to do next.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        self.due
    }

    /// The held fragments that were dropped since this was last asked, other than by time.
    pub(crate) fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    fn find(&mut self, key: &Key, now: Tick) -> Option<usize> {
        let is_it = |slot| self.datagram_at(slot).is_some_and(|datagram| datagram.key == *key);
        let slot = self.index.find(hash(key), is_it)?;
        if self.datagram_at(slot)?.deadline > now {
            return Some(slot);
        }
        self.overdue += self.forget(slot);
        None
    }

    /// A place for a datagram of which this is the first to come.
    fn open(&mut self, arrival: &Arrival, deadline: Tick) -> Result<usize, Reason> {
        let own = arrival.key.source();
        if self.sources.datagrams(&own) >= self.source_datagrams {
            self.evict(self.sources.oldest(&own, None));
        }
        if self.free.is_empty() {
            self.evict(self.sources.oldest_of_most_datagrams());
        }
        let slot = self.free.pop().ok_or(Reason::FragmentLimit)?;
        if let Some(place) = self.datagrams.get_mut(slot) {
            *place = Some(Datagram {
                key: arrival.key,
                state: State::Gathering,
                deadline,
                protocol: arrival.protocol,
                destination_mac: arrival.destination_mac,
                first: None,
                last: None,
                pieces: 0,
                received: 0,
                furthest: 0,
                end: None,
                start: None,
            });
        }
        self.index.insert(hash(&arrival.key), slot);
        self.sources.join(own, slot);
        self.due = Some(self.due.map_or(deadline, |due| due.min(deadline)));
        Ok(slot)
    }

    /// Puts a fragment into its datagram. `Err` refuses it; whether the datagram goes too is settled here.
    fn place(&mut self, slot: usize, arrival: &Arrival, bytes: &[u8]) -> Result<Added, Reason> {
        let datagram = self.datagram_at(slot).ok_or(Reason::FragmentLimit)?;
        if let State::Poisoned(reason) = datagram.state {
            return Err(reason);
        }
        match self.fit(&datagram, arrival, bytes) {
            Fit::New => {}
            Fit::Duplicate => return Err(Reason::FragmentOverlap),
            Fit::Clash(reason) => return Err(self.poison(slot, reason)),
        }
        if datagram.pieces >= PIECES_MAX || !self.make_room(slot, bytes.len()) {
            return Err(self.poison(slot, Reason::FragmentLimit));
        }
        let Some((chunk, chunks)) = self.arena.store(bytes) else {
            return Err(self.poison(slot, Reason::FragmentLimit));
        };
        self.sources.grow(slot, chunks);
        let whole = self.link(slot, chunk, arrival);
        if whole > Some(65_535) {
            return Err(self.poison(slot, Reason::FragmentMalformed));
        }
        Ok(if whole.is_some() { Added::Whole(DatagramId(slot)) } else { Added::Held })
    }

    /// Throws out the oldest datagrams of whoever holds most until `length` bytes fit beside those of `slot`, within
    /// the share of its source.
    fn make_room(&mut self, slot: usize, length: usize) -> bool {
        let needed = Arena::chunks_for(length);
        let Some(own) = self.datagram_at(slot).map(|datagram| datagram.key.source()) else { return false };
        for _ in 0..EVICTIONS_MAX {
            let victim = if self.sources.chunks(&own) + needed > self.source_chunks {
                self.sources.oldest(&own, Some(slot))
            } else if self.arena.free() < needed + self.reserved {
                self.sources.oldest_of_most_chunks(slot)
            } else {
                return true;
            };
            if victim.is_none() {
                return false;
            }
            self.evict(victim);
        }
        false
    }

    /// Appends a stored piece; gives the IP length of the datagram if that made it whole.
    fn link(&mut self, slot: usize, chunk: Chunk, arrival: &Arrival) -> Option<u32> {
        let datagram = self.datagrams.get_mut(slot)?.as_mut()?;
        *self.pieces.get_mut(chunk.place())? = Some(Piece {
            start: arrival.start,
            end: arrival.end,
            more: arrival.more,
            frame: arrival.frame,
            data_at: arrival.data_at,
            next: None,
        });
        match datagram.last.and_then(|last| self.pieces.get_mut(last.place())?.as_mut()) {
            Some(before) => before.next = Some(chunk),
            None => datagram.first = Some(chunk),
        }
        datagram.last = Some(chunk);
        datagram.pieces += 1;
        datagram.received += arrival.end - arrival.start;
        datagram.furthest = datagram.furthest.max(arrival.end);
        if !arrival.more {
            datagram.end = Some(arrival.end);
        }
        if arrival.start == 0 {
            datagram.start = Some((chunk, arrival.headers));
        }
        // Pieces neither overlap nor reach beyond the end, so their sum says whether there is a hole.
        let end = datagram.end.filter(|end| *end == datagram.received)?;
        Some(datagram.start?.1.ip_length() + end)
    }

    /// Drops what is held of a datagram and remembers to refuse the rest of it.
    fn poison(&mut self, slot: usize, reason: Reason) -> Reason {
        let dropped = self.empty(slot);
        self.count_lost(reason, dropped);
        if let Some(datagram) = self.datagrams.get_mut(slot).and_then(Option::as_mut) {
            datagram.state = State::Poisoned(reason);
        }
        reason
    }

    fn count_lost(&mut self, reason: Reason, fragments: u64) {
        if reason == Reason::FragmentOverlap {
            self.lost.overlap += fragments;
        } else if reason == Reason::FragmentMalformed {
            self.lost.malformed += fragments;
        } else {
            self.lost.limit += fragments;
        }
    }

    fn evict(&mut self, slot: Option<usize>) {
        if let Some(slot) = slot {
            let dropped = self.forget(slot);
            self.count_lost(Reason::FragmentLimit, dropped);
        }
    }

    /// Frees a datagram's place; says how many fragments it held.
    fn forget(&mut self, slot: usize) -> u64 {
        let dropped = self.empty(slot);
        if let Some(datagram) = self.datagrams.get_mut(slot).and_then(Option::take) {
            self.index.remove(hash(&datagram.key), slot);
            self.sources.leave(slot);
            self.free.push(slot);
        }
        dropped
    }

    /// Frees the frames of a datagram; says how many there were.
    fn empty(&mut self, slot: usize) -> u64 {
        let Some(datagram) = self.datagrams.get_mut(slot).and_then(Option::as_mut) else { return 0 };
        let mut next = datagram.first.take();
        (datagram.last, datagram.start, datagram.pieces) = (None, None, 0);
        let mut dropped = 0;
        while let Some(chunk) = next {
            next = self.pieces.get_mut(chunk.place()).and_then(Option::take).and_then(|piece| piece.next);
            self.arena.free_from(chunk);
            dropped += 1;
        }
        self.sources.shrink(slot);
        dropped
    }

    fn datagram_at(&self, slot: usize) -> Option<Datagram> {
        self.datagrams.get(slot).copied().flatten()
    }

    fn piece_at(&self, chunk: Chunk) -> Option<Piece> {
        self.pieces.get(chunk.place()).copied().flatten()
    }
}
