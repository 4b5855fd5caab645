//! Who is due: a wheel of lists, filed by deadline.
//!
//! A deadline that moves later is not re-filed: when its old place comes up, the owner looks and files it again. So
//! the path of frames only writes deadlines. Knows places and ticks of the wheel. Never knows a conn or a clock.

use crate::time::Tick;

/// Milliseconds of one tick of the wheel: how late a conn may be closed (never how late it stops being found).
const RESOLUTION_MS: u64 = 64;
/// Ticks of one turn, 524 s; later deadlines are looked at once a turn.
const SLOTS: u64 = 8192;
const WORDS: usize = 128;

/// The end of a list.
pub(super) const NONE: u32 = u32::MAX;

/// Links of one filed item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Links {
    pub(super) previous: u32,
    pub(super) next: u32,
}

impl Links {
    pub(super) const NONE: Self = Self { previous: NONE, next: NONE };
}

/// What stands before the first of a list: the list itself, marked by the top bit, which no place has.
const FIRST: u32 = 1 << 31;

/// The mark that stands before the first item of the list `slot`.
pub(super) fn first_of(slot: usize) -> u32 {
    FIRST | u32::try_from(slot).unwrap_or(0)
}

/// The list whose first item has this before it.
pub(super) fn slot_of_first(previous: u32) -> Option<usize> {
    usize::try_from(previous & !FIRST).ok().filter(|_| previous & FIRST != 0)
}

/// The heads of the wheel's lists; the links live with the items.
#[derive(Debug)]
pub(super) struct Wheel {
    heads: Vec<u32>,
    /// A bit per list that is not empty.
    occupied: [u64; WORDS],
    /// Every tick up to this one has been looked at.
    cursor: u64,
}

impl Wheel {
    pub(super) fn new() -> Self {
        let slots = usize::try_from(SLOTS).unwrap_or(0);
        Self { heads: vec![NONE; slots], occupied: [0; WORDS], cursor: 0 }
    }

    /// The list where something with this deadline belongs.
    pub(super) fn slot_for(&self, deadline: Tick) -> usize {
        let tick = deadline.0.div_ceil(RESOLUTION_MS).clamp(self.cursor + 1, self.cursor + SLOTS - 1);
        place(tick)
    }

    pub(super) fn head(&self, slot: usize) -> u32 {
        self.heads.get(slot).copied().unwrap_or(NONE)
    }

    pub(super) fn set_head(&mut self, slot: usize, head: u32) {
        if let Some(known) = self.heads.get_mut(slot) {
            *known = head;
        }
        if let Some(word) = self.occupied.get_mut(slot / 64) {
            let bit = 1 << (slot % 64);
            *word = if head == NONE { *word & !bit } else { *word | bit };
        }
    }

    /// The next list that is not empty and due at `now`; `None` once all have been looked at.
    pub(super) fn due(&mut self, now: Tick) -> Option<usize> {
        let present = now.0 / RESOLUTION_MS;
        match self.next_occupied().filter(|tick| *tick <= present) {
            Some(tick) => {
                // What is filed from here on belongs behind this tick.
                self.cursor = tick - 1;
                Some(place(tick))
            }
            None => {
                self.cursor = self.cursor.max(present);
                None
            }
        }
    }

    /// When the next list that is not empty is due.
    pub(super) fn next_due(&self) -> Option<Tick> {
        self.next_occupied().map(|tick| Tick(tick * RESOLUTION_MS))
    }

    /// The first tick after the cursor whose list is not empty.
    fn next_occupied(&self) -> Option<u64> {
        let start = place(self.cursor + 1);
        let (first_word, first_bit) = (start / 64, start % 64);
        for turn in 0..=WORDS {
            let word_place = (first_word + turn) % WORDS;
            let mut word = self.occupied.get(word_place).copied().unwrap_or(0);
            if turn == 0 {
                word &= u64::MAX << first_bit;
            } else if turn == WORDS {
                word &= !(u64::MAX << first_bit);
            }
            if word != 0 {
                let found = word_place * 64 + word.trailing_zeros() as usize;
                let slots = usize::try_from(SLOTS).unwrap_or(1);
                let distance = (found + slots - start) % slots;
                return Some(self.cursor + 1 + distance as u64);
            }
        }
        None
    }
}

fn place(tick: u64) -> usize {
    usize::try_from(tick % SLOTS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_due_when_its_tick_has_come_and_not_before() {
        let mut wheel = Wheel::new();
        let slot = wheel.slot_for(Tick(1_000));
        wheel.set_head(slot, 7);
        assert_eq!(wheel.next_due(), Some(Tick(1_024)));
        assert_eq!(wheel.due(Tick(1_023)), None);
        assert_eq!(wheel.due(Tick(1_024)), Some(slot));
        wheel.set_head(slot, NONE);
        assert_eq!((wheel.due(Tick(1_024)), wheel.next_due()), (None, None));
    }

    #[test]
    fn a_deadline_beyond_the_turn_comes_up_within_the_turn() {
        let mut wheel = Wheel::new();
        let slot = wheel.slot_for(Tick(100_000_000));
        wheel.set_head(slot, 1);
        assert_eq!(wheel.next_due(), Some(Tick((SLOTS - 1) * RESOLUTION_MS)));
    }

    #[test]
    fn time_that_jumps_meets_every_list_in_order() {
        let mut wheel = Wheel::new();
        for deadline in [70_000, 200, 3_000] {
            let slot = wheel.slot_for(Tick(deadline));
            wheel.set_head(slot, u32::try_from(deadline).unwrap());
        }
        let mut met = Vec::new();
        while let Some(slot) = wheel.due(Tick(10_000_000)) {
            met.push(wheel.head(slot));
            wheel.set_head(slot, NONE);
        }
        assert_eq!(met, [200, 3_000, 70_000]);
    }
}
