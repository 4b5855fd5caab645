//! Snapshots by hand: whatever payload, counts and header a test wants, under a valid seal.
//!
//! Written after docs/snapshot-format.md and not with the product's encoder: what is refused here is refused behind the
//! seal. It may know the format's bytes. It must never know what a record means.

use std::ops::Range;

/// The cluster's secret of these tests.
pub const SECRET: [u8; 32] = [7; 32];
/// The NIC they are about.
pub const NIC: &str = "web-1";
/// A header's bytes.
pub const HEADER_LEN: usize = 200;
const SAID: usize = 168;

/// A chunk as it is to be written: what its head says, and its payload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Records, as the head counts them.
    pub records: u32,
    /// Gone flows, as the head counts them.
    pub gone: u32,
    /// The payload.
    pub payload: Vec<u8>,
}

/// A header with nothing wrong about it, for these chunks; kind 0 is a whole table, 2 a delta.
#[must_use]
pub fn header(kind: u16, chunks: &[Chunk]) -> [u8; HEADER_LEN] {
    let records: u64 = chunks.iter().map(|chunk| u64::from(chunk.records)).sum();
    let body: usize = chunks.iter().map(|chunk| 12 + chunk.payload.len() + 32).sum();
    let mut bytes = [0; HEADER_LEN];
    let fields = b"PCconns\n".iter().copied();
    let fields = fields.chain([1, 1, 200, kind].into_iter().flat_map(u16::to_le_bytes));
    let fields = fields.chain(u32::try_from(chunks.len()).unwrap_or(0).to_le_bytes());
    let fields = fields.chain(u32::try_from(NIC.len()).unwrap_or(0).to_le_bytes());
    let fields =
        fields.chain([records, body as u64, 7, 1_795_000_000_000].into_iter().flat_map(u64::to_le_bytes));
    for (to, from) in bytes.iter_mut().zip(fields) {
        *to = from;
    }
    put(&mut bytes, 104, NIC.as_bytes());
    bytes
}

/// Writes over some bytes; what does not fit is left out.
pub fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(new) {
        *to = *from;
    }
}

/// The snapshot with this header, which is sealed here, and these chunks.
#[must_use]
pub fn sealed(header: [u8; HEADER_LEN], chunks: &[Chunk]) -> Vec<u8> {
    let said = header.get(..SAID).unwrap_or_default();
    let header_key = blake3::derive_key("portcullis 2026 conn-snapshot v1 header", &SECRET);
    let code = blake3::keyed_hash(&header_key, said);
    let mut bytes = said.to_vec();
    bytes.extend_from_slice(code.as_bytes());
    let chunk_key = blake3::derive_key("portcullis 2026 conn-snapshot v1 chunk", &SECRET);
    for (place, chunk) in (0_u32..).zip(chunks) {
        let length = u32::try_from(chunk.payload.len()).unwrap_or(u32::MAX);
        let head: Vec<u8> =
            [length, chunk.records, chunk.gone].into_iter().flat_map(u32::to_le_bytes).collect();
        let mut hasher = blake3::Hasher::new_keyed(&chunk_key);
        hasher.update(code.as_bytes()).update(&place.to_le_bytes()).update(&head).update(&chunk.payload);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&chunk.payload);
        bytes.extend_from_slice(hasher.finalize().as_bytes());
    }
    bytes
}

/// The chunks of a snapshot that is one.
#[must_use]
pub fn chunks(snapshot: &[u8]) -> Vec<Chunk> {
    let mut rest = snapshot.get(HEADER_LEN..).unwrap_or_default();
    let mut chunks = Vec::new();
    while let Some((head, behind)) = rest.split_at_checked(12) {
        let number = |range: Range<usize>| {
            let bytes = head.get(range).and_then(|bytes| bytes.try_into().ok());
            u32::from_le_bytes(bytes.unwrap_or_default())
        };
        let Some((payload, behind)) = behind.split_at_checked(number(0..4) as usize) else { break };
        chunks.push(Chunk { records: number(4..8), gone: number(8..12), payload: payload.to_vec() });
        rest = behind.get(32..).unwrap_or_default();
    }
    chunks
}
