//! Which places of the table have changed, for a copy that follows it.
//!
//! Each place is noted once until it is asked for, in a list that was made at the start; while nobody follows, nothing is
//! noted. Knows places and who follows. Never knows what is there.

/// Who follows the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follower {
    /// The copy that outlives a crash.
    CrashCopy,
    /// A table that is being sent ahead of its VM.
    Handover,
}

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

    /// Ends it, and gives back what noting took.
    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// All noted places at once; each may be noted again from now on. `spare` is the next list, so that none is made.
    pub(super) fn take_all(&mut self, mut spare: Vec<u32>) -> Vec<u32> {
        spare.clear();
        self.noted.fill(0);
        std::mem::replace(&mut self.list, spare)
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
