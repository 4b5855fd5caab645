//! Records become a snapshot.
//!
//! Takes records one by one and closes a chunk when it is full; the header, which counts them, is written last and stands
//! first. Knows chunks and their dictionaries. Never knows who reads them.

use std::collections::HashMap;
use std::hash::Hash;

use fw_model::{Addr, FlowKey, MacAddr, RuleId};

use crate::chunk::{CHUNK_LEN_MAX, ChunkHead};
use crate::header::Header;
use crate::key::Key;
use crate::record::Record;
use crate::text::put_number;
use crate::v1::{self, Shared};

/// A chunk is closed when its records and dictionaries have come this far; the longest record and its entries fit in
/// what is left.
const FULL: usize = CHUNK_LEN_MAX - 1024;

/// What a snapshot is made of.
#[derive(Debug)]
pub struct Snapshot {
    /// What the header says.
    pub header: Header,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The header's code, which a delta names as its base.
    pub code: [u8; 32],
}

/// Makes a snapshot.
#[derive(Debug)]
pub struct Encoder {
    /// Payloads of closed chunks, with their heads.
    closed: Vec<(ChunkHead, Vec<u8>)>,
    records: Vec<u8>,
    gone: Vec<u8>,
    head: ChunkHead,
    locals: Dictionary<Addr>,
    macs: Dictionary<MacAddr>,
    rules: Dictionary<u32>,
    names_len: usize,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Encoder {
    /// An empty snapshot.
    #[must_use]
    pub fn new() -> Self {
        Self {
            closed: Vec::new(),
            records: Vec::with_capacity(CHUNK_LEN_MAX),
            gone: Vec::new(),
            head: ChunkHead { payload: 0, records: 0, gone: 0 },
            locals: Dictionary::new(),
            macs: Dictionary::new(),
            rules: Dictionary::new(),
            names_len: 0,
        }
    }

    /// Adds a conn. `names` are the rules its place refers to; one it does not reach counts as the default.
    pub fn push(&mut self, record: &Record, names: &[RuleId]) {
        let rule = record.rule.and_then(|rule| {
            let name = names.get(usize::try_from(rule).ok()?)?;
            Some((rule, name))
        });
        let shared = Shared {
            local: self.locals.place_of(record.flow.local),
            mac: self.macs.place_of(record.peer_mac),
            rule: rule.map(|(rule, _)| self.rules.place_of(rule)),
        };
        if let Some((_, name)) = rule.filter(|_| self.rules.grew()) {
            self.names_len += 1 + name.as_str().len();
        }
        v1::put_record(&mut self.records, record, shared);
        self.head.records += 1;
        if self.length() >= FULL {
            self.close(names);
        }
    }

    /// Adds a flow whose conn is gone; only a delta says so.
    pub fn push_gone(&mut self, flow: &FlowKey, names: &[RuleId]) {
        let local = self.locals.place_of(flow.local);
        v1::put_gone(&mut self.gone, flow, local);
        self.head.gone += 1;
        if self.length() >= FULL {
            self.close(names);
        }
    }

    /// The snapshot. What `header` says of counts and lengths is put right.
    #[must_use]
    pub fn finish(mut self, header: Header, names: &[RuleId], key: &Key) -> Snapshot {
        if self.head.records > 0 || self.head.gone > 0 {
            self.close(names);
        }
        let body_len: usize =
            self.closed.iter().map(|(head, _)| crate::CHUNK_HEAD_LEN + head.rest_len()).sum();
        let header = Header {
            records: self.closed.iter().map(|(head, _)| u64::from(head.records)).sum(),
            chunks: u32::try_from(self.closed.len()).unwrap_or(u32::MAX),
            body_len: u64::try_from(body_len).unwrap_or(u64::MAX),
            ..header
        };
        let (sealed, code) = header.seal(key);
        let mut bytes = Vec::with_capacity(sealed.len() + body_len);
        bytes.extend_from_slice(&sealed);
        for (place, (head, payload)) in (0_u32..).zip(&self.closed) {
            let head = head.bytes();
            bytes.extend_from_slice(&head);
            bytes.extend_from_slice(payload);
            bytes.extend_from_slice(key.seal_chunk(&code, place, &head, payload).as_bytes());
        }
        Snapshot { header, bytes, code }
    }

    /// Bytes the chunk would have if it were closed now, and a little more.
    fn length(&self) -> usize {
        let dictionaries = 16 + self.locals.list.len() * 17 + self.macs.list.len() * 6 + self.names_len;
        self.records.len() + self.gone.len() + dictionaries
    }

    fn close(&mut self, names: &[RuleId]) {
        let mut payload = Vec::with_capacity(self.length());
        put_number(&mut payload, count(self.locals.list.len()));
        for addr in &self.locals.list {
            payload.push(u8::from(!addr.is_v4()));
            v1::put_addr(&mut payload, *addr);
        }
        put_number(&mut payload, count(self.macs.list.len()));
        for mac in &self.macs.list {
            payload.extend_from_slice(&mac.0);
        }
        put_number(&mut payload, count(self.rules.list.len()));
        for rule in &self.rules.list {
            let name = usize::try_from(*rule).ok().and_then(|rule| names.get(rule));
            let name = name.map_or("", RuleId::as_str).as_bytes();
            payload.push(u8::try_from(name.len()).unwrap_or(0));
            payload.extend_from_slice(name);
        }
        payload.append(&mut self.records);
        payload.append(&mut self.gone);
        self.head.payload = payload.len();
        self.closed.push((self.head, payload));
        self.head = ChunkHead { payload: 0, records: 0, gone: 0 };
        self.locals.clear();
        self.macs.clear();
        self.rules.clear();
        self.names_len = 0;
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Values that records of a chunk share. Neighbours in a table are much alike, so the last one is tried first.
#[derive(Debug)]
struct Dictionary<T> {
    list: Vec<T>,
    places: HashMap<T, usize>,
    last: Option<(T, usize)>,
    grew: bool,
}

impl<T: Copy + Eq + Hash> Dictionary<T> {
    fn new() -> Self {
        Self { list: Vec::new(), places: HashMap::new(), last: None, grew: false }
    }

    fn place_of(&mut self, value: T) -> usize {
        self.grew = false;
        if let Some((_, place)) = self.last.filter(|(last, _)| *last == value) {
            return place;
        }
        let next = self.list.len();
        let place = *self.places.entry(value).or_insert(next);
        if place == next {
            self.list.push(value);
            self.grew = true;
        }
        self.last = Some((value, place));
        place
    }

    /// Whether the last value was a new one.
    const fn grew(&self) -> bool {
        self.grew
    }

    fn clear(&mut self) {
        self.list.clear();
        self.places.clear();
        self.last = None;
    }
}
