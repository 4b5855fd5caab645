//! A snapshot that holds what it says, to its last byte.
//!
//! Whoever has one was told already whatever could be wrong with it, so taking its conns cannot fail half way. Knows where
//! its chunks lie. Never knows how they were checked.

use std::convert::Infallible;

use crate::chunk::{Chunk, ChunkHead};
use crate::header::Header;
use crate::payload::Reader;

/// A snapshot that was checked whole; [`Decoder::check`](crate::Decoder::check) makes it, and nothing else.
#[derive(Debug)]
pub struct Checked<'b> {
    pub(crate) header: Header,
    pub(crate) code: [u8; 32],
    pub(crate) gone: u64,
    /// Each chunk's head and payload.
    pub(crate) chunks: Vec<(ChunkHead, &'b [u8])>,
}

impl Checked<'_> {
    /// What the header says. Its records are those that [`Checked::visit`] meets, no more and no fewer.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The header's code, by which a delta names its base.
    #[must_use]
    pub const fn code(&self) -> &[u8; 32] {
        &self.code
    }

    /// Flows that are gone, of a delta.
    #[must_use]
    pub const fn gone(&self) -> u64 {
        self.gone
    }

    /// Hands every chunk to `visit`, in their order.
    pub fn visit(&self, mut visit: impl FnMut(&Chunk)) {
        let Ok(()) = self.try_visit(|chunk| {
            visit(chunk);
            Ok::<_, Infallible>(())
        });
    }

    /// As [`Checked::visit`], ending with the visitor's own error.
    ///
    /// # Errors
    /// The visitor's.
    pub fn try_visit<E>(&self, mut visit: impl FnMut(&Chunk) -> Result<(), E>) -> Result<(), E> {
        let (mut reader, mut chunk) = (Reader::default(), Chunk::default());
        for (head, payload) in &self.chunks {
            chunk.clear();
            // The same code has read the same bytes before: it says what it said then.
            if reader.read(*head, payload, &mut chunk).is_ok() {
                visit(&chunk)?;
            }
        }
        Ok(())
    }
}
