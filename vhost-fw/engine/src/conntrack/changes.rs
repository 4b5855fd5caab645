//! Which places of the table have changed, for a copy that follows it.
//!
//! Each place is noted once until it is asked for, in a list that was made at the start; while nobody follows, nothing is
//! noted. Knows places. Never knows what is there.

/// The places that changed since they were last asked for.
#[derive(Debug, Default)]
pub(super) struct Changes {
    list: Vec<u32>,
    /// A bit per place in the list.
    noted: Vec<u64>,
}

impl Changes {
    /// Begins to note, for a table with this much room.
    pub(super) fn follow(&mut self, room: usize) {
        *self = Self { list: Vec::with_capacity(room), noted: vec![0; room.div_ceil(64)] };
    }

    #[inline]
    pub(super) fn note(&mut self, place: u32) {
        let at = usize::try_from(place).unwrap_or(usize::MAX);
        let Some(word) = self.noted.get_mut(at / 64) else { return };
        let bit = 1 << (at % 64);
        if *word & bit == 0 {
            *word |= bit;
            self.list.push(place);
        }
    }

    /// A noted place; it may be noted again from now on.
    pub(super) fn take(&mut self) -> Option<u32> {
        let place = self.list.pop()?;
        let at = usize::try_from(place).unwrap_or(usize::MAX);
        if let Some(word) = self.noted.get_mut(at / 64) {
            *word &= !(1 << (at % 64));
        }
        Some(place)
    }
}
