//! Who holds how much: each source's datagrams, oldest first, and the chunks they fill.
//!
//! Knows sources and places of datagrams. Never knows their fragments.

use fw_model::{Addr, Direction};

use super::index::{Index, hash};

/// Whose datagrams share a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SourceKey {
    pub(super) direction: Direction,
    pub(super) vlan: Option<u16>,
    pub(super) address: Addr,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    key: SourceKey,
    datagrams: usize,
    chunks: usize,
    oldest: usize,
    newest: usize,
}

/// A datagram's place among its source's.
#[derive(Debug, Clone, Copy)]
struct Held {
    source: usize,
    chunks: usize,
    /// Counts up: which of two is older.
    born: u64,
    older: Option<usize>,
    newer: Option<usize>,
}

#[derive(Debug)]
pub(super) struct Sources {
    list: Vec<Option<Source>>,
    free: Vec<usize>,
    index: Index,
    /// By the datagram's place.
    held: Vec<Option<Held>>,
    born: u64,
}

impl Sources {
    pub(super) fn new(datagrams: usize) -> Self {
        Self {
            list: vec![None; datagrams],
            free: (0..datagrams).rev().collect(),
            index: Index::new(datagrams),
            held: vec![None; datagrams],
            born: 0,
        }
    }

    pub(super) fn datagrams(&self, key: &SourceKey) -> usize {
        self.find(key).map_or(0, |(_, source)| source.datagrams)
    }

    pub(super) fn chunks(&self, key: &SourceKey) -> usize {
        self.find(key).map_or(0, |(_, source)| source.chunks)
    }

    /// Counts a new datagram for its source.
    pub(super) fn join(&mut self, key: SourceKey, slot: usize) {
        let known = self.find(&key);
        let Some(place) = known.map(|(place, _)| place).or_else(|| self.free.pop()) else { return };
        let older = known.map(|(_, source)| source.newest);
        if let Some(held) = older.and_then(|older| self.held.get_mut(older)?.as_mut()) {
            held.newer = Some(slot);
        }
        if known.is_none() {
            self.index.insert(hash(&key), place);
        }
        let source =
            known.map_or(Source { key, datagrams: 0, chunks: 0, oldest: slot, newest: slot }, |(_, s)| s);
        if let Some(entry) = self.list.get_mut(place) {
            *entry = Some(Source { datagrams: source.datagrams + 1, newest: slot, ..source });
        }
        if let Some(held) = self.held.get_mut(slot) {
            *held = Some(Held { source: place, chunks: 0, born: self.born, older, newer: None });
        }
        self.born += 1;
    }

    /// Forgets a datagram, which holds no chunks any more.
    pub(super) fn leave(&mut self, slot: usize) {
        let Some(gone) = self.held.get_mut(slot).and_then(Option::take) else { return };
        if let Some(older) = gone.older.and_then(|older| self.held.get_mut(older)?.as_mut()) {
            older.newer = gone.newer;
        }
        if let Some(newer) = gone.newer.and_then(|newer| self.held.get_mut(newer)?.as_mut()) {
            newer.older = gone.older;
        }
        let Some(entry) = self.list.get_mut(gone.source) else { return };
        let Some(source) = entry else { return };
        source.datagrams = source.datagrams.saturating_sub(1);
        source.oldest = if source.oldest == slot { gone.newer.unwrap_or(slot) } else { source.oldest };
        source.newest = if source.newest == slot { gone.older.unwrap_or(slot) } else { source.newest };
        if source.datagrams == 0 {
            self.index.remove(hash(&source.key), gone.source);
            *entry = None;
            self.free.push(gone.source);
        }
    }

    /// Counts chunks that a datagram took.
    pub(super) fn grow(&mut self, slot: usize, chunks: usize) {
        let Some(held) = self.held.get_mut(slot).and_then(Option::as_mut) else { return };
        held.chunks += chunks;
        if let Some(source) = self.list.get_mut(held.source).and_then(Option::as_mut) {
            source.chunks += chunks;
        }
    }

    /// Counts that a datagram gave back all its chunks.
    pub(super) fn shrink(&mut self, slot: usize) {
        let Some(held) = self.held.get_mut(slot).and_then(Option::as_mut) else { return };
        let chunks = std::mem::take(&mut held.chunks);
        if let Some(source) = self.list.get_mut(held.source).and_then(Option::as_mut) {
            source.chunks = source.chunks.saturating_sub(chunks);
        }
    }

    /// The oldest datagram of a source, other than `but`.
    pub(super) fn oldest(&self, key: &SourceKey, but: Option<usize>) -> Option<usize> {
        self.find(key).and_then(|(_, source)| self.oldest_of(&source, but))
    }

    /// The oldest datagram of the source that has most of them.
    pub(super) fn oldest_of_most_datagrams(&self) -> Option<usize> {
        self.oldest_of_most(None, |source| source.datagrams)
    }

    /// The oldest datagram of the source that fills most chunks, `but` and its chunks left out.
    pub(super) fn oldest_of_most_chunks(&self, but: usize) -> Option<usize> {
        let spared = self.held.get(but).copied().flatten();
        self.oldest_of_most(Some(but), |source| {
            let own = spared.filter(|held| self.key_at(held.source) == Some(source.key));
            source.chunks.saturating_sub(own.map_or(0, |held| held.chunks))
        })
    }

    /// Among equals the oldest datagram counts. Looks at every source: at most 1,024, and only when all is full.
    fn oldest_of_most(&self, but: Option<usize>, weight: impl Fn(&Source) -> usize) -> Option<usize> {
        let weighed = self.list.iter().flatten().filter_map(|source| {
            let oldest = self.oldest_of(source, but)?;
            let born = self.held.get(oldest)?.as_ref()?.born;
            let weight = weight(source);
            (weight > 0).then_some((weight, std::cmp::Reverse(born), oldest))
        });
        weighed.max().map(|(.., oldest)| oldest)
    }

    fn oldest_of(&self, source: &Source, but: Option<usize>) -> Option<usize> {
        if Some(source.oldest) == but {
            self.held.get(source.oldest)?.as_ref()?.newer
        } else {
            Some(source.oldest)
        }
    }

    fn find(&self, key: &SourceKey) -> Option<(usize, Source)> {
        let place = self.index.find(hash(key), |place| self.key_at(place) == Some(*key))?;
        Some((place, self.list.get(place).copied().flatten()?))
    }

    fn key_at(&self, place: usize) -> Option<SourceKey> {
        self.list.get(place)?.as_ref().map(|source| source.key)
    }
}
