//! A chunk: some records, and the names they refer to.
//!
//! Chunks are the unit of trust: a code over each is checked before one byte of it is decoded. Knows how a chunk is
//! framed. Never knows a record's bytes.

use fw_model::{FlowKey, RuleId};

use crate::SnapshotError;
use crate::record::Record;
use crate::text::Input;
use crate::v1;

/// Bytes before a chunk's payload.
pub const CHUNK_HEAD_LEN: usize = 12;
/// The longest payload in bytes.
pub const CHUNK_LEN_MAX: usize = 64 * 1024;
/// Bytes of the code behind a payload.
pub(crate) const CODE_LEN: usize = 32;

/// A decoded chunk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The rules its records name.
    pub rules: Vec<RuleId>,
    /// Its conns.
    pub records: Vec<Record>,
    /// Of a delta: flows whose conns are gone.
    pub gone: Vec<FlowKey>,
}

impl Chunk {
    pub(crate) fn clear(&mut self) {
        self.rules.clear();
        self.records.clear();
        self.gone.clear();
    }
}

/// What stands before a chunk's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkHead {
    pub(crate) payload: usize,
    pub(crate) records: u32,
    pub(crate) gone: u32,
}

impl ChunkHead {
    /// Of a chunk with nothing in it.
    pub(crate) const EMPTY: Self = Self { payload: 0, records: 0, gone: 0 };

    /// Reads a head, which is only a claim until its chunk's code is checked.
    ///
    /// # Errors
    /// It is cut short, or claims more than a chunk can have.
    pub fn read(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let mut input = Input::new(bytes, "head of a chunk");
        let (length, records, gone) = (input.u32()?, input.u32()?, input.u32()?);
        let payload = usize::try_from(length).unwrap_or(usize::MAX);
        if payload > CHUNK_LEN_MAX {
            let limit = CHUNK_LEN_MAX as u64;
            return Err(SnapshotError::TooMany { what: "bytes of a chunk", found: length.into(), limit });
        }
        Ok(Self { payload, records, gone })
    }

    /// Bytes that follow the head: the payload and its code.
    #[must_use]
    pub const fn rest_len(&self) -> usize {
        self.payload + CODE_LEN
    }

    /// Whether the payload can hold what the head counts: only then is any of it read.
    pub(crate) fn require_room(&self) -> Result<(), SnapshotError> {
        let payload = u64::try_from(self.payload).unwrap_or(u64::MAX);
        if v1::length_min(self.records.into(), self.gone.into()) > payload {
            return Err(SnapshotError::Malformed("a chunk counts more than it has room for"));
        }
        Ok(())
    }

    pub(crate) fn bytes(self) -> [u8; CHUNK_HEAD_LEN] {
        let length = u32::try_from(self.payload).unwrap_or(u32::MAX);
        let [a, b, c, d] = length.to_le_bytes();
        let [e, f, g, h] = self.records.to_le_bytes();
        let [i, j, k, l] = self.gone.to_le_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}
