//! Room for held frames: chunks of one size, chained.
//!
//! Knows bytes. Never knows what they are.

/// Bytes of a chunk: a frame of 1,514 bytes wastes 22.
pub(super) const CHUNK: usize = 256;

/// A chunk's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk(u32);

impl Chunk {
    pub(super) const fn place(self) -> usize {
        self.0 as usize
    }
}

#[derive(Debug)]
pub(super) struct Arena {
    bytes: Vec<[u8; CHUNK]>,
    /// The chunk that follows in a frame, or among the free ones.
    next: Vec<Option<Chunk>>,
    first_free: Option<Chunk>,
    free: usize,
}

impl Arena {
    pub(super) fn new(bytes: usize) -> Self {
        let count = u32::try_from(bytes / CHUNK).unwrap_or(u32::MAX);
        let next = (1..=count).map(|next| (next < count).then_some(Chunk(next))).collect();
        Self {
            bytes: vec![[0; CHUNK]; count as usize],
            next,
            first_free: (count > 0).then_some(Chunk(0)),
            free: count as usize,
        }
    }

    /// How many chunks there are.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many of them are free.
    pub(super) const fn free(&self) -> usize {
        self.free
    }

    pub(super) const fn chunks_for(length: usize) -> usize {
        length.div_ceil(CHUNK)
    }

    /// Keeps a copy; gives its first chunk and how many there are. `None` if there is no room, or nothing to keep.
    pub(super) fn store(&mut self, frame: &[u8]) -> Option<(Chunk, usize)> {
        let count = Self::chunks_for(frame.len());
        if self.free < count {
            return None;
        }
        let first = self.first_free?;
        let mut last = None;
        for part in frame.chunks(CHUNK) {
            let chunk = self.first_free?;
            self.first_free = self.next.get(chunk.place()).copied().flatten();
            self.bytes.get_mut(chunk.place())?.get_mut(..part.len())?.copy_from_slice(part);
            self.free -= 1;
            last = Some(chunk);
        }
        *self.next.get_mut(last?.place())? = None;
        Some((first, count))
    }

    /// Fills `out` with a kept frame's bytes from `offset` on.
    pub(super) fn read(&self, first: Chunk, offset: usize, out: &mut [u8]) {
        let mut next = Some(first);
        for _ in 0..offset / CHUNK {
            next = next.and_then(|chunk| self.next.get(chunk.place()).copied().flatten());
        }
        let mut from = offset % CHUNK;
        let mut filled = 0;
        while let Some((chunk, out)) = next.zip(out.get_mut(filled..).filter(|rest| !rest.is_empty())) {
            let part = self.bytes.get(chunk.place()).and_then(|bytes| bytes.get(from..)).unwrap_or_default();
            for (to, byte) in out.iter_mut().zip(part) {
                *to = *byte;
            }
            filled += part.len();
            from = 0;
            next = self.next.get(chunk.place()).copied().flatten();
        }
    }

    /// Frees a kept frame.
    pub(super) fn free_from(&mut self, first: Chunk) {
        let mut next = Some(first);
        while let Some((chunk, link)) =
            next.and_then(|chunk| Some((chunk, self.next.get_mut(chunk.place())?)))
        {
            next = link.take();
            *link = self.first_free;
            self.first_free = Some(chunk);
            self.free += 1;
        }
    }
}
