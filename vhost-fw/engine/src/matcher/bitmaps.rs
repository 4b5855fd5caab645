//! Sets of rules as bitmaps, one bit for each rule's place, and the first place two of them share.
//!
//! Knows places. Never knows what a rule says.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// Most bytes the bitmaps of one rule set may take; 10,000 rules with ranges of ports that all overlap take a
/// fifth of it.
pub(super) const BYTES_MAX: usize = 256 << 20;

/// A bitmap of the pool: where its row starts. [`Bitmap::EMPTY`] is in every pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bitmap(pub(super) u32);

impl Bitmap {
    pub(super) const EMPTY: Self = Self(0);
}

/// All bitmaps of a rule set, row after row. A row is one head for each block of 64 words (4,096 places) and then
/// the words, of which those without a bit are mostly left out; so a short bitmap is one cache line.
#[derive(Debug)]
pub(super) struct Bitmaps {
    blocks_each: usize,
    words: Vec<u64>,
}

/// The head of a block is two words: bit `i` of the first says that word `i` has a bit. The second says where the
/// words start in the pool, and with [`WHOLE`] that all 64 are there, which saves counting.
const HEAD: usize = 2;
const WHOLE: u64 = 1 << 63;

/// A block as its head tells.
#[derive(Debug, Clone, Copy)]
struct Block {
    present: u64,
    words: u64,
}

impl Bitmaps {
    /// The first of `places` that is in `a` and in `b` and whose bit is not set in `without` (which may be short).
    pub(super) fn first_common(
        &self,
        a: Bitmap,
        b: Bitmap,
        places: Range<usize>,
        without: &[u64],
    ) -> Option<usize> {
        // Where every rule names a remote, nobody is named by none.
        if a == Bitmap::EMPTY || b == Bitmap::EMPTY {
            return None;
        }
        let first_word = places.start / 64;
        let blocks = self.blocks(a).zip(self.blocks(b)).enumerate();
        for (block, (a, b)) in blocks.skip(first_word / 64) {
            let mut both = a.present & b.present;
            if block == first_word / 64 {
                both &= u64::MAX << (first_word % 64);
            }
            while both != 0 {
                let bit = both.trailing_zeros();
                both &= both - 1;
                let at = block * 64 + bit as usize;
                let mut word = self.word(a, bit) & self.word(b, bit) & !without.get(at).copied().unwrap_or(0);
                if at == first_word {
                    word &= u64::MAX << (places.start % 64);
                }
                if word != 0 {
                    return Some(at * 64 + word.trailing_zeros() as usize)
                        .filter(|place| *place < places.end);
                }
            }
        }
        None
    }

    fn blocks(&self, Bitmap(start): Bitmap) -> impl Iterator<Item = Block> + '_ {
        let start = start as usize;
        let heads = self.words.get(start..start + self.blocks_each * HEAD).unwrap_or(&[]);
        let (heads, _) = heads.as_chunks::<HEAD>();
        heads.iter().map(|[present, words]| Block { present: *present, words: *words })
    }

    fn word(&self, block: Block, bit: u32) -> u64 {
        let is_whole = block.words & WHOLE != 0;
        let before = if is_whole { bit } else { (block.present & !(u64::MAX << bit)).count_ones() };
        let at = usize::try_from(block.words & !WHOLE).unwrap_or(usize::MAX).saturating_add(before as usize);
        self.words.get(at).copied().unwrap_or(0)
    }
}

/// The bitmaps together would take more than [`BYTES_MAX`].
#[derive(Debug)]
pub(super) struct TooLarge;

/// A pool that still grows; equal bitmaps become one.
#[derive(Debug)]
pub(super) struct Growing {
    pool: Bitmaps,
    /// By hash: the latest bitmap with it.
    known: HashMap<u64, Bitmap>,
}

impl Growing {
    /// A pool for places below `places`, with the empty bitmap in it.
    pub(super) fn new(places: usize) -> Self {
        let blocks_each = places.div_ceil(64 * 64).max(1);
        let pool = Bitmaps { blocks_each, words: vec![0; blocks_each * HEAD] };
        Self { pool, known: HashMap::new() }
    }

    /// The bitmap with these words.
    pub(super) fn add(&mut self, words: &[u64]) -> Result<Bitmap, TooLarge> {
        if words.iter().all(|word| *word == 0) {
            return Ok(Bitmap::EMPTY);
        }
        let mut hasher = DefaultHasher::new();
        words.hash(&mut hasher);
        let hash = hasher.finish();
        if let Some(known) = self.known.get(&hash).filter(|known| self.holds(**known, words)) {
            return Ok(*known);
        }
        let added = Bitmap(u32::try_from(self.pool.words.len()).map_err(|_| TooLarge)?);
        self.append(words);
        if self.pool.words.len() * size_of::<u64>() > BYTES_MAX {
            return Err(TooLarge);
        }
        self.known.insert(hash, added);
        Ok(added)
    }

    /// The bitmap with the bits of these places.
    pub(super) fn add_places(&mut self, places: &[usize]) -> Result<Bitmap, TooLarge> {
        let mut words = vec![0; self.pool.blocks_each * 64];
        for place in places {
            set(&mut words, *place, true);
        }
        self.add(&words)
    }

    /// The pool, which grows no more.
    pub(super) fn finish(mut self) -> Bitmaps {
        self.pool.words.shrink_to_fit();
        self.pool
    }

    fn append(&mut self, words: &[u64]) {
        let mut heads = Vec::with_capacity(self.pool.blocks_each * HEAD);
        let mut stored: Vec<u64> = Vec::new();
        let start = self.pool.words.len() + self.pool.blocks_each * HEAD;
        let mut chunks = words.chunks(64);
        for _ in 0..self.pool.blocks_each {
            let chunk = chunks.next().unwrap_or(&[]);
            let present =
                chunk.iter().rev().fold(0_u64, |present, word| (present << 1) | u64::from(*word != 0));
            let is_whole = present.count_ones() >= 32;
            heads.push(present);
            heads.push((start + stored.len()) as u64 | if is_whole { WHOLE } else { 0 });
            stored.extend(chunk.iter().filter(|word| is_whole || **word != 0));
        }
        self.pool.words.extend(heads);
        self.pool.words.extend(stored);
    }

    fn holds(&self, bitmap: Bitmap, words: &[u64]) -> bool {
        let mut chunks = words.chunks(64);
        self.pool.blocks(bitmap).all(|block| {
            let mut chunk = chunks.next().unwrap_or(&[]).iter().copied();
            (0..64).all(|bit| {
                let stored = if (block.present >> bit) & 1 == 1 { self.pool.word(block, bit) } else { 0 };
                stored == chunk.next().unwrap_or(0)
            })
        })
    }
}

/// Writes one bit of a bitmap that is being made.
pub(super) fn set(words: &mut [u64], place: usize, value: bool) {
    if let Some(word) = words.get_mut(place / 64) {
        let bit = 1 << (place % 64);
        *word = if value { *word | bit } else { *word & !bit };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_common_place_is_found_from_any_start() {
        let sparse: Vec<usize> = vec![3, 64, 4_095, 4_096, 9_000, 9_999];
        let dense: Vec<usize> = (0..10_000).filter(|place| place % 3 == 0).collect();
        let mut growing = Growing::new(10_000);
        let (a, b) = (growing.add_places(&sparse).unwrap(), growing.add_places(&dense).unwrap());
        let pool = growing.finish();
        let common = |start: usize| sparse.iter().copied().find(|place| place % 3 == 0 && *place >= start);
        for start in (0..10_000).step_by(7).chain([3, 4, 64, 65, 4_095, 4_096, 9_000, 9_001, 9_999]) {
            assert_eq!(pool.first_common(a, b, start..10_000, &[]), common(start), "from {start}");
            assert_eq!(
                pool.first_common(b, a, start..9_000, &[]),
                common(start).filter(|place| *place < 9_000)
            );
            assert_eq!(pool.first_common(b, b, start..10_000, &[]), Some(start.next_multiple_of(3)));
        }
        assert_eq!(pool.first_common(a, b, 0..10_000, &[1 << 3]), Some(4_095));
        assert_eq!(pool.first_common(a, Bitmap::EMPTY, 0..10_000, &[]), None);
    }

    #[test]
    fn equal_bitmaps_are_stored_once() {
        let mut growing = Growing::new(200);
        let first = growing.add_places(&[1, 100]).unwrap();
        assert_eq!(growing.add_places(&[100, 1]).unwrap(), first);
        assert_ne!(growing.add_places(&[100]).unwrap(), first);
        assert_eq!(growing.add_places(&[]).unwrap(), Bitmap::EMPTY);
        assert_eq!(growing.finish().words.len(), 3 * HEAD + 3);
    }

    #[test]
    fn a_pool_refuses_to_grow_without_bound() {
        let mut growing = Growing::new(65_535);
        let mut words = vec![u64::MAX; 1_024];
        let refused = (0..40_000_u64).find(|count| {
            words[0] = *count;
            growing.add(&words).is_err()
        });
        assert!(refused.is_some_and(|count| count > 30_000), "{refused:?}");
    }
}
