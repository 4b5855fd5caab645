//! Records become a snapshot.
//!
//! Takes records one by one and closes a chunk when it is full; the header, which counts them, is written last and stands
//! first. Knows chunks and their dictionaries. Never knows who reads them.

use std::collections::HashMap;
use std::hash::Hash;

use fw_model::{Addr, FlowKey, MacAddr, RuleId};

use crate::chunk::{CHUNK_HEAD_LEN, CHUNK_LEN_MAX, CODE_LEN, ChunkHead};
use crate::header::{HEADER_LEN, Header};
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
    /// The snapshot as far as it has come; its codes are blank, for they depend on the header.
    bytes: Vec<u8>,
    heads: Vec<ChunkHead>,
    records: Vec<u8>,
    gone: Vec<u8>,
    head: ChunkHead,
    locals: Dictionary<Addr>,
    macs: Dictionary<MacAddr>,
    rules: RuleDictionary,
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
            bytes: vec![0; HEADER_LEN],
            heads: Vec::new(),
            records: Vec::with_capacity(CHUNK_LEN_MAX),
            gone: Vec::new(),
            head: ChunkHead::EMPTY,
            locals: Dictionary::new(),
            macs: Dictionary::new(),
            rules: RuleDictionary::default(),
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
            rule: rule.map(|(rule, name)| {
                let (place, is_new) = self.rules.place_of(rule);
                self.names_len += if is_new { 1 + name.as_str().len() } else { 0 };
                place
            }),
        };
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
        let header = Header {
            records: self.heads.iter().map(|head| u64::from(head.records)).sum(),
            chunks: u32::try_from(self.heads.len()).unwrap_or(u32::MAX),
            body_len: count(self.bytes.len() - HEADER_LEN),
            ..header
        };
        let (sealed, code) = header.seal(key);
        let mut rest = self.bytes.as_mut_slice();
        put(&mut rest, &sealed);
        for (place, head) in (0_u32..).zip(&self.heads) {
            let head_bytes = head.bytes();
            let payload = rest.get(CHUNK_HEAD_LEN..CHUNK_HEAD_LEN + head.payload).unwrap_or_default();
            let chunk_code = key.seal_chunk(&code, place, &head_bytes, payload);
            put(&mut rest, &head_bytes);
            skip(&mut rest, head.payload);
            put(&mut rest, chunk_code.as_bytes());
        }
        Snapshot { header, bytes: self.bytes, code }
    }

    /// Bytes the chunk would have if it were closed now, and a little more.
    fn length(&self) -> usize {
        let dictionaries = 16 + self.locals.list.len() * 17 + self.macs.list.len() * 6 + self.names_len;
        self.records.len() + self.gone.len() + dictionaries
    }

    fn close(&mut self, names: &[RuleId]) {
        let out = &mut self.bytes;
        out.extend_from_slice(&[0; CHUNK_HEAD_LEN]);
        let start = out.len();
        put_number(out, count(self.locals.list.len()));
        for addr in &self.locals.list {
            out.push(u8::from(!addr.is_v4()));
            v1::put_addr(out, *addr);
        }
        put_number(out, count(self.macs.list.len()));
        for mac in &self.macs.list {
            out.extend_from_slice(&mac.0);
        }
        put_number(out, count(self.rules.list.len()));
        for rule in &self.rules.list {
            let name = usize::try_from(*rule).ok().and_then(|rule| names.get(rule));
            let name = name.map_or("", RuleId::as_str).as_bytes();
            out.push(u8::try_from(name.len()).unwrap_or(0));
            out.extend_from_slice(name);
        }
        out.append(&mut self.records);
        out.append(&mut self.gone);
        self.heads.push(ChunkHead { payload: out.len() - start, ..self.head });
        out.extend_from_slice(&[0; CODE_LEN]);
        self.head = ChunkHead::EMPTY;
        self.locals.clear();
        self.macs.clear();
        self.rules.clear();
        self.names_len = 0;
    }
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Writes over the next bytes of the snapshot, which are there.
fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    if let Some((to, behind)) = std::mem::take(rest).split_at_mut_checked(bytes.len()) {
        to.copy_from_slice(bytes);
        *rest = behind;
    }
}

fn skip(rest: &mut &mut [u8], length: usize) {
    *rest = std::mem::take(rest).split_at_mut_checked(length).map(|(_, behind)| behind).unwrap_or_default();
}

/// Values that records of a chunk share. Neighbours in a table are much alike, so the last one is tried first.
#[derive(Debug)]
struct Dictionary<T> {
    list: Vec<T>,
    places: HashMap<T, usize>,
    last: Option<(T, usize)>,
}

impl<T: Copy + Eq + Hash> Dictionary<T> {
    fn new() -> Self {
        Self { list: Vec::new(), places: HashMap::new(), last: None }
    }

    fn place_of(&mut self, value: T) -> usize {
        if let Some((_, place)) = self.last.filter(|(last, _)| *last == value) {
            return place;
        }
        let next = self.list.len();
        let place = *self.places.entry(value).or_insert(next);
        if place == next {
            self.list.push(value);
        }
        self.last = Some((value, place));
        place
    }

    fn clear(&mut self) {
        self.list.clear();
        self.places.clear();
        self.last = None;
    }
}

/// The rules of a chunk, by their places among the snapshot's names.
#[derive(Debug, Default)]
struct RuleDictionary {
    list: Vec<u32>,
    /// Where each rule stands in the list, plus one; 0 = not yet.
    places: Vec<usize>,
}

impl RuleDictionary {
    /// Where the rule stands, and whether it does only since now.
    fn place_of(&mut self, rule: u32) -> (usize, bool) {
        let at = usize::try_from(rule).unwrap_or(usize::MAX);
        if at >= self.places.len() {
            self.places.resize(at.saturating_add(1), 0);
        }
        let next = self.list.len();
        match self.places.get_mut(at) {
            Some(place) if *place == 0 => {
                *place = next + 1;
                self.list.push(rule);
                (next, true)
            }
            known => (known.map_or(0, |place| *place - 1), false),
        }
    }

    fn clear(&mut self) {
        for rule in self.list.drain(..) {
            if let Some(place) = usize::try_from(rule).ok().and_then(|rule| self.places.get_mut(rule)) {
                *place = 0;
            }
        }
    }
}
