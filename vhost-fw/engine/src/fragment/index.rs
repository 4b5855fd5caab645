//! Finding a place by a key: a chained hash table over places that are kept elsewhere.
//!
//! Knows hashes and places. Never knows keys. The hash has no secret, so a sender can make chains long; there are
//! at most 1,024 places, which bounds what that costs.

use std::hash::{Hash, Hasher};

use siphasher::sip::SipHasher13;

pub(super) fn hash(key: &impl Hash) -> u64 {
    let mut hasher = SipHasher13::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug)]
pub(super) struct Index {
    buckets: Vec<Option<usize>>,
    /// By place: the next one in its bucket.
    next: Vec<Option<usize>>,
}

impl Index {
    pub(super) fn new(places: usize) -> Self {
        Self { buckets: vec![None; (places * 2).next_power_of_two()], next: vec![None; places] }
    }

    pub(super) fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<usize> {
        let mut next = self.buckets.get(self.bucket(hash)).copied().flatten();
        while let Some(place) = next {
            if is_it(place) {
                return Some(place);
            }
            next = self.next.get(place).copied().flatten();
        }
        None
    }

    pub(super) fn insert(&mut self, hash: u64, place: usize) {
        let bucket = self.bucket(hash);
        if let (Some(head), Some(next)) = (self.buckets.get_mut(bucket), self.next.get_mut(place)) {
            *next = head.replace(place);
        }
    }

    pub(super) fn remove(&mut self, hash: u64, place: usize) {
        let after = self.next.get_mut(place).and_then(Option::take);
        let bucket = self.bucket(hash);
        let Some(head) = self.buckets.get_mut(bucket) else { return };
        if *head == Some(place) {
            *head = after;
            return;
        }
        let mut current = *head;
        while let Some(link) = current.and_then(|current| self.next.get_mut(current)) {
            if *link == Some(place) {
                *link = after;
                return;
            }
            current = *link;
        }
    }

    fn bucket(&self, hash: u64) -> usize {
        // The table's length is a power of two, at most 2,048.
        let mask = self.buckets.len().saturating_sub(1);
        usize::from(u16::try_from(hash & 0xffff).unwrap_or(0)) & mask
    }
}
