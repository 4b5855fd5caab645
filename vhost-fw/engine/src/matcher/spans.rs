//! A line of numbers cut into spans, each with a value: which span holds a number?
//!
//! Knows sorted starts. Never knows what the numbers stand for.

/// Spans over numbers `K`, found through a static search tree whose nodes are `N` starts side by side: a few
/// neighbouring cache lines for each step of log `N`, where binary search over the same 2 million starts waits
/// for a dozen lines one after the other.
#[derive(Debug)]
pub(super) struct Spans<K, const N: usize> {
    /// The tree's upper levels, root first. Block `i` of a level lists the first starts of blocks `i * N ..` of the
    /// next; the last level does so for the leaves.
    levels: Vec<Vec<Block<K, N>>>,
    leaves: Vec<Leaf<K, N>>,
}

#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Block<K, const N: usize>([K; N]);

/// The last step and the values, which the cache fetches together.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Leaf<K, const N: usize> {
    starts: [K; N],
    values: [u32; N],
}

impl<K: Copy + Ord, const N: usize> Spans<K, N> {
    /// Spans that start where `cuts` say, in rising order, with their values. The first must start at the lowest
    /// number there is.
    pub(super) fn new(cuts: &[(K, u32)]) -> Self {
        let leaves: Vec<_> = cuts.chunks(N).filter_map(leaf).collect();
        let mut firsts: Vec<K> = leaves.iter().filter_map(|leaf| leaf.starts.first().copied()).collect();
        let mut levels = Vec::new();
        while firsts.len() > 1 {
            let level: Vec<_> = firsts.chunks(N).filter_map(block).collect();
            firsts = level.iter().filter_map(|Block(starts)| starts.first().copied()).collect();
            levels.push(level);
        }
        levels.reverse();
        Self { levels, leaves }
    }

    /// The value of the span that holds `number`; 0 if there are no spans.
    pub(super) fn find(&self, number: K) -> u32 {
        let mut at = 0;
        for level in &self.levels {
            // The last block is filled up with its last start, so a count may point beyond the end.
            at = at.min(level.len().saturating_sub(1));
            let Some(Block(starts)) = level.get(at) else { return 0 };
            at = at * N + last_reached(starts, number);
        }
        let Some(leaf) = self.leaves.get(at.min(self.leaves.len().saturating_sub(1))) else { return 0 };
        leaf.values.get(last_reached(&leaf.starts, number)).copied().unwrap_or(0)
    }
}

/// Which of the starts is the last that `number` reaches.
fn last_reached<K: Copy + Ord, const N: usize>(starts: &[K; N], number: K) -> usize {
    // All are compared, which takes less time than branching; wrapping, because checked sums cannot be done side by
    // side. N is below 256.
    let reached = starts.iter().fold(0_u8, |reached, start| reached.wrapping_add(u8::from(*start <= number)));
    usize::from(reached.saturating_sub(1))
}

fn block<K: Copy, const N: usize>(starts: &[K]) -> Option<Block<K, N>> {
    let mut block = [*starts.last()?; N];
    for (place, start) in block.iter_mut().zip(starts) {
        *place = *start;
    }
    Some(Block(block))
}

fn leaf<K: Copy, const N: usize>(cuts: &[(K, u32)]) -> Option<Leaf<K, N>> {
    let (start, value) = *cuts.last()?;
    let mut leaf = Leaf { starts: [start; N], values: [value; N] };
    for ((place, value), (start, of_cut)) in leaf.starts.iter_mut().zip(&mut leaf.values).zip(cuts) {
        (*place, *value) = (*start, *of_cut);
    }
    Some(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_finds_the_span_it_lies_in() {
        for count in (0..100).chain([255, 256, 257, 4_095, 4_096, 4_097]) {
            let cuts: Vec<(u16, u32)> = (0..count).map(|i| (i * 3, u32::from(i) + 1)).collect();
            let spans: Spans<u16, 4> = Spans::new(&cuts);
            for number in (0..=count * 3 + 3).chain([u16::MAX]) {
                let judge =
                    cuts.iter().rev().find(|(start, _)| *start <= number).map_or(0, |(_, value)| *value);
                assert_eq!(spans.find(number), judge, "{number} of {count} spans");
            }
        }
    }

    #[test]
    fn a_span_may_start_at_the_highest_number() {
        let spans: Spans<u32, 16> = Spans::new(&[(0, 7), (u32::MAX, 8)]);
        assert_eq!((spans.find(0), spans.find(u32::MAX - 1), spans.find(u32::MAX)), (7, 7, 8));
    }
}
