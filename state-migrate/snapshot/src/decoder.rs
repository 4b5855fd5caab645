//! A snapshot becomes records again, or is refused with what is wrong with it.
//!
//! Total: whatever the bytes, the answer is records or an error; nothing is decoded before its code is checked, and room
//! is made only for what is really there. Knows the order of things in a snapshot. Never knows where the bytes come from.

use crate::SnapshotError;
use crate::checked::Checked;
use crate::chunk::{CHUNK_HEAD_LEN, CODE_LEN, Chunk, ChunkHead};
use crate::header::{HEADER_LEN, Header, Kind, Sealed};
use crate::key::Key;
use crate::payload::{Nobody, Reader, Taker};
use crate::text::Input;

/// Reads one snapshot, chunk after chunk; [`Decoder::check`] reads one that is here whole.
#[derive(Debug)]
pub struct Decoder {
    key: Key,
    sealed: Sealed,
    records_max: u64,
    reader: Reader,
    place: u32,
    records: u64,
    gone: u64,
    bytes: u64,
}

impl Decoder {
    /// Begins with a header, which must be authentic, count no more than `records_max` records, and no more than its body
    /// has room for.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn new(header: &[u8], key: &Key, records_max: u64) -> Result<Self, SnapshotError> {
        let sealed = Sealed::read(header)?;
        sealed.check(key)?;
        let found = sealed.header.records;
        if found > records_max {
            return Err(SnapshotError::TooMany { what: "conns", found, limit: records_max });
        }
        sealed.header.require_room()?;
        let reader = Reader::default();
        Ok(Self { key: key.clone(), sealed, records_max, reader, place: 0, records: 0, gone: 0, bytes: 0 })
    }

    /// Checks a whole snapshot in one walk: every code, every record, every count.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn check<'b>(bytes: &'b [u8], key: &Key, records_max: u64) -> Result<Checked<'b>, SnapshotError> {
        let mut decoder = Self::new(bytes, key, records_max)?;
        let mut input = Input::new(bytes, "body");
        input.slice(HEADER_LEN)?;
        let mut chunks = Vec::new();
        while decoder.has_more() {
            let head = ChunkHead::read(input.slice(CHUNK_HEAD_LEN)?)?;
            let payload = decoder.take(head, input.slice(head.rest_len())?, &mut Nobody)?;
            chunks.push((head, payload));
        }
        let (code, gone) = (decoder.sealed.code, decoder.gone);
        let header = decoder.finish(u64::try_from(input.left()).unwrap_or(u64::MAX))?;
        Ok(Checked { header, code, gone, chunks })
    }

    /// What the header says.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.sealed.header
    }

    /// The header's code, by which a delta names its base.
    #[must_use]
    pub const fn code(&self) -> &[u8; 32] {
        &self.sealed.code
    }

    /// Whether another chunk follows.
    #[must_use]
    pub const fn has_more(&self) -> bool {
        self.place < self.sealed.header.chunks
    }

    /// Decodes the next chunk into `chunk`: `rest` is what follows `head`, [`ChunkHead::rest_len`] bytes.
    ///
    /// # Errors
    /// It is not authentic, not the next one, or holds what it cannot. `chunk` is empty then.
    pub fn chunk(&mut self, head: ChunkHead, rest: &[u8], chunk: &mut Chunk) -> Result<(), SnapshotError> {
        chunk.clear();
        self.take(head, rest, chunk).map(drop).inspect_err(|_| chunk.clear())
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// Chunks are missing, or `trailing` bytes followed.
    pub fn finish(self, trailing: u64) -> Result<Header, SnapshotError> {
        if self.has_more() {
            return Err(SnapshotError::CutShort("body"));
        }
        if trailing > 0 {
            return Err(SnapshotError::Trailing(trailing));
        }
        let header = &self.sealed.header;
        if self.records != header.records || self.bytes != header.body_len {
            return Err(SnapshotError::Malformed("the header counts otherwise than the body"));
        }
        Ok(self.sealed.header)
    }

    /// Checks the next chunk, tells `taker` what is in it, and answers with its payload.
    fn take<'b>(
        &mut self,
        head: ChunkHead,
        rest: &'b [u8],
        taker: &mut impl Taker,
    ) -> Result<&'b [u8], SnapshotError> {
        let payload = self.check_chunk(head, rest)?;
        self.reader.read(head, payload, taker)?;
        Ok(payload)
    }

    fn check_chunk<'b>(&mut self, head: ChunkHead, rest: &'b [u8]) -> Result<&'b [u8], SnapshotError> {
        let cut_short = SnapshotError::CutShort("chunk");
        if rest.len() != head.rest_len() {
            return Err(cut_short);
        }
        let (payload, code) = rest.split_last_chunk::<CODE_LEN>().ok_or(cut_short)?;
        let sealed = self.key.seal_chunk(&self.sealed.code, self.place, &head.bytes(), payload);
        if !self.has_more() || sealed != blake3::Hash::from_bytes(*code) {
            return Err(SnapshotError::NotAuthentic("chunk"));
        }
        self.place += 1;
        self.records = self.records.saturating_add(head.records.into());
        self.gone = self.gone.saturating_add(head.gone.into());
        let length = CHUNK_HEAD_LEN + head.rest_len();
        self.bytes = self.bytes.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        if self.records > self.sealed.header.records {
            return Err(SnapshotError::Malformed("the body has more records than the header counts"));
        }
        if head.gone > 0 && self.sealed.header.kind != Kind::Delta {
            return Err(SnapshotError::Malformed("only a delta says that conns are gone"));
        }
        if self.gone > self.records_max {
            let (found, limit) = (self.gone, self.records_max);
            return Err(SnapshotError::TooMany { what: "conns that are gone", found, limit });
        }
        head.require_room()?;
        Ok(payload)
    }
}
