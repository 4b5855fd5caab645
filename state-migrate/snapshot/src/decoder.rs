//! A snapshot becomes records again, or is refused with what is wrong with it.
//!
//! Total: whatever the bytes, the answer is records or an error; nothing is decoded before its code is checked, and room
//! is made only for what is really there. Knows the order of things in a snapshot. Never knows where the bytes come from.

use std::collections::HashSet;
use std::hash::Hash;

use fw_model::{Addr, MacAddr, RuleId};

use crate::SnapshotError;
use crate::chunk::{CHUNK_HEAD_LEN, CODE_LEN, Chunk, ChunkHead};
use crate::header::{HEADER_LEN, Header, Kind, Sealed};
use crate::key::Key;
use crate::text::Input;
use crate::v1::{self, Dictionaries};

/// Reads one snapshot, chunk after chunk.
#[derive(Debug)]
pub struct Decoder {
    key: Key,
    sealed: Sealed,
    place: u32,
    records: u64,
    bytes: u64,
}

impl Decoder {
    /// Begins with a header, which must be authentic and count no more than `records_max` records.
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
        Ok(Self { key: key.clone(), sealed, place: 0, records: 0, bytes: 0 })
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
        chunk.rules.clear();
        chunk.records.clear();
        chunk.gone.clear();
        let decoded = self.check_chunk(head, rest).and_then(|payload| self.payload(head, payload, chunk));
        if decoded.is_err() {
            *chunk = Chunk::default();
        }
        decoded
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

    /// Reads a whole snapshot: everything is checked first, and only then does `visit` get the chunks, in their order.
    ///
    /// # Errors
    /// See [`SnapshotError`]; nothing was visited then.
    pub fn read_all(
        bytes: &[u8],
        key: &Key,
        records_max: u64,
        mut visit: impl FnMut(&Chunk),
    ) -> Result<Header, SnapshotError> {
        Self::walk(bytes, key, records_max, |_| {})?;
        Self::walk(bytes, key, records_max, |chunk| visit(chunk))
    }

    fn walk(
        bytes: &[u8],
        key: &Key,
        records_max: u64,
        mut visit: impl FnMut(&Chunk),
    ) -> Result<Header, SnapshotError> {
        let mut decoder = Self::new(bytes, key, records_max)?;
        let mut input = Input::new(bytes, "body");
        input.slice(HEADER_LEN)?;
        let mut chunk = Chunk::default();
        while decoder.has_more() {
            let head = ChunkHead::read(input.slice(CHUNK_HEAD_LEN)?)?;
            decoder.chunk(head, input.slice(head.rest_len())?, &mut chunk)?;
            visit(&chunk);
        }
        decoder.finish(u64::try_from(input.left()).unwrap_or(u64::MAX))
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
        let length = CHUNK_HEAD_LEN + head.rest_len();
        self.bytes = self.bytes.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        if self.records > self.sealed.header.records {
            return Err(SnapshotError::Malformed("the body has more records than the header counts"));
        }
        if head.gone > 0 && self.sealed.header.kind != Kind::Delta {
            return Err(SnapshotError::Malformed("only a delta says that conns are gone"));
        }
        Ok(payload)
    }

    fn payload(&self, head: ChunkHead, payload: &[u8], chunk: &mut Chunk) -> Result<(), SnapshotError> {
        let mut input = Input::new(payload, "chunk");
        let locals: Vec<Addr> = entries(&mut input, |input| match input.u8()? {
            0 => v1::addr(input, true),
            1 => v1::addr(input, false),
            _ => Err(SnapshotError::Malformed("an address is of no family")),
        })?;
        let macs: Vec<MacAddr> = entries(&mut input, |input| input.take().map(MacAddr))?;
        chunk.rules = entries(&mut input, |input| {
            let length = input.u8()?;
            let name = std::str::from_utf8(input.slice(length.into())?).ok();
            let rule: Option<RuleId> = name.and_then(|name| name.parse().ok());
            rule.ok_or(SnapshotError::Malformed("a rule's name is none"))
        })?;
        let known = Dictionaries { locals: &locals, macs: &macs, rules: chunk.rules.len() };
        // A record has more bytes than one: no count makes room for what is not there.
        for _ in 0..head.records {
            chunk.records.push(v1::record(&mut input, &known)?);
        }
        for _ in 0..head.gone {
            chunk.gone.push(v1::gone(&mut input, &known)?);
        }
        if input.is_empty() { Ok(()) } else { Err(SnapshotError::Malformed("a chunk has bytes left over")) }
    }
}

/// A dictionary: no entry twice.
fn entries<T: Clone + Eq + Hash>(
    input: &mut Input<'_>,
    mut read: impl FnMut(&mut Input<'_>) -> Result<T, SnapshotError>,
) -> Result<Vec<T>, SnapshotError> {
    let count = input.number()?;
    let mut list = Vec::new();
    let mut seen = HashSet::new();
    for _ in 0..count {
        let entry = read(input)?;
        if !seen.insert(entry.clone()) {
            return Err(SnapshotError::Malformed("a dictionary has an entry twice"));
        }
        list.push(entry);
    }
    Ok(list)
}
