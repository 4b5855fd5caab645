//! From a hash to the places that may hold its conn.
//!
//! Buckets of one cache line: seven entries and a count of those that had to go further. A miss in a bucket nobody went
//! past ends the search, and removing leaves no tombstone. Knows hashes and places. Never knows a conn.

use std::hint::black_box;

/// Words of the smallest page of memory.
const PAGE: usize = 4096 / 8;
/// Entries of a bucket; the eighth word counts.
const ENTRIES: usize = 7;
const BUCKET: usize = 8;
/// Where the words of a bucket start on a cache line of their own.
const LINE: usize = 64;

/// An open-addressing index, at most 60 % full.
#[derive(Debug)]
pub(super) struct Index {
    words: Vec<u64>,
    /// The first word that stands on a line of its own.
    base: usize,
    mask: usize,
}

impl Index {
    /// Room for `capacity` places. Memory is touched only as it is used.
    pub(super) fn new(capacity: u32) -> Self {
        let capacity = usize::try_from(capacity).unwrap_or(usize::MAX);
        let buckets = (capacity / 4 + 1).next_power_of_two();
        let words = vec![0; buckets * BUCKET + BUCKET];
        let base = words.as_ptr().align_offset(LINE).min(BUCKET);
        Self { words, base, mask: buckets - 1 }
    }

    /// Has the system give all of its memory now, not as each page is first used.
    pub(super) fn prepare(&mut self) {
        for word in self.words.iter_mut().step_by(PAGE) {
            *word = black_box(*word);
        }
    }

    /// Loads the line of `hash`.
    pub(super) fn warm(&self, hash: u64) -> u64 {
        self.words.get(self.start(self.home(hash)) + ENTRIES).copied().unwrap_or(0)
    }

    /// The first place filed under a hash like this one: its conn's, but for one hash in billions.
    pub(super) fn likely(&self, hash: u64) -> Option<u32> {
        let tag = tag(hash);
        let [entries @ .., _] = self.bucket(self.home(hash))?;
        entries.iter().find(|entry| **entry & TAG_MASK == tag).and_then(|entry| place_of(*entry))
    }

    /// The place with this hash that `is_it` recognises.
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let tag = tag(hash);
        let mut bucket = self.home(hash);
        for _ in 0..=self.mask {
            let [entries @ .., went_further] = self.bucket(bucket)?;
            for entry in entries.iter().filter(|entry| **entry & TAG_MASK == tag) {
                if let Some(place) = place_of(*entry).filter(|place| is_it(*place)) {
                    return Some(place);
                }
            }
            if *went_further == 0 {
                return None;
            }
            bucket = (bucket + 1) & self.mask;
        }
        None
    }

    /// Files `place` under `hash`. There is room: the table never holds more than the index was made for.
    pub(super) fn insert(&mut self, hash: u64, place: u32) {
        let mut bucket = self.home(hash);
        for _ in 0..=self.mask {
            let Some(words) = self.bucket_mut(bucket) else { return };
            if let Some(free) = words.iter_mut().take(ENTRIES).find(|entry| **entry == 0) {
                *free = entry(hash, place);
                return;
            }
            if let Some(went_further) = words.get_mut(ENTRIES) {
                *went_further += 1;
            }
            bucket = (bucket + 1) & self.mask;
        }
    }

    /// Takes `place`, filed under `hash`, out again.
    pub(super) fn remove(&mut self, hash: u64, place: u32) {
        let wanted = entry(hash, place);
        let mut bucket = self.home(hash);
        for _ in 0..=self.mask {
            let Some(words) = self.bucket_mut(bucket) else { return };
            if let Some(found) = words.iter_mut().take(ENTRIES).find(|entry| **entry == wanted) {
                *found = 0;
                return;
            }
            if let Some(went_further) = words.get_mut(ENTRIES) {
                *went_further = went_further.saturating_sub(1);
            }
            bucket = (bucket + 1) & self.mask;
        }
    }

    fn home(&self, hash: u64) -> usize {
        usize::try_from(hash & 0xffff_ffff).unwrap_or(0) & self.mask
    }

    const fn start(&self, bucket: usize) -> usize {
        self.base + bucket * BUCKET
    }

    fn bucket(&self, bucket: usize) -> Option<&[u64; BUCKET]> {
        self.words.get(self.start(bucket)..)?.first_chunk()
    }

    fn bucket_mut(&mut self, bucket: usize) -> Option<&mut [u64]> {
        let start = self.start(bucket);
        self.words.get_mut(start..start + BUCKET)
    }
}

const TAG_MASK: u64 = 0xffff_ffff_0000_0000;

/// The hash's upper half; its lower half chose the bucket.
const fn tag(hash: u64) -> u64 {
    hash & TAG_MASK
}

/// Tag and place in one word; 0 stands for nothing, so places count from 1.
fn entry(hash: u64, place: u32) -> u64 {
    tag(hash) | u64::from(place.wrapping_add(1))
}

fn place_of(entry: u64) -> Option<u32> {
    u32::try_from(entry & !TAG_MASK).ok()?.checked_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_hash_is_found_and_removed_without_a_trace() {
        let mut index = Index::new(64);
        for place in 0..64 {
            index.insert(42, place);
        }
        for place in 0..64 {
            assert_eq!(index.find(42, |found| found == place), Some(place));
        }
        for place in (0..64).rev() {
            index.remove(42, place);
        }
        assert!(index.words.iter().all(|word| *word == 0));
    }

    #[test]
    fn an_empty_place_is_never_offered() {
        let index = Index::new(1);
        assert_eq!(index.find(0, |_| true), None);
    }
}
