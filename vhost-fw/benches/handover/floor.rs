//! What no handover of conns can leave out: copy each, hash the bytes on either side, put each where its key belongs.
//!
//! Conns are plain structs of one size, trusted as they are: nothing is encoded, checked or judged. Knows how many bytes a
//! conn has here. It must never be mistaken for a codec.

use std::hint::black_box;

use siphasher::sip::SipHasher13;

/// Words of a conn, its key first.
const CONN: usize = 14;
const KEY: usize = 40;
/// Bytes that are hashed together, as a chunk's are.
const CHUNK: usize = 64 * 1024 / (CONN * 8) * (CONN * 8);
const SECRET: [u8; 32] = [7; 32];

/// A table that hands its conns over.
pub(crate) struct Floor {
    conns: Vec<[u64; CONN]>,
    hasher: SipHasher13,
}

impl Floor {
    pub(crate) fn new(conns: u32) -> Self {
        let conn = |number: u32| {
            let mut words = [u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15); CONN];
            words[0] = number.into();
            words
        };
        Self { conns: (0..conns).map(conn).collect(), hasher: SipHasher13::new_with_key(b"a key of a bench") }
    }

    /// Out, sealed, checked, in: how many conns found a place in a table with room for `room`.
    pub(crate) fn hand_over(&self, room: u32) -> usize {
        let mut bytes = Vec::new();
        for conn in &self.conns {
            for word in conn {
                bytes.extend_from_slice(&word.to_le_bytes());
            }
        }
        let seals: Vec<_> = bytes.chunks(CHUNK).map(|chunk| blake3::keyed_hash(&SECRET, chunk)).collect();
        let sealed = bytes.chunks(CHUNK).zip(&seals);
        if sealed.filter(|(chunk, seal)| blake3::keyed_hash(&SECRET, chunk) != **seal).count() > 0 {
            return 0;
        }
        let room = room as usize;
        let mut index = vec![0_u64; room * 2];
        let mut table: Vec<[u64; 16]> = Vec::with_capacity(room);
        let mut placed = 0;
        for conn in bytes.as_chunks::<{ CONN * 8 }>().0 {
            let hash = self.hasher.hash(conn.get(..KEY).unwrap_or(conn));
            let at = usize::try_from(((hash & 0xffff_ffff) * index.len() as u64) >> 32).unwrap_or(0);
            if let Some(entry) = index.get_mut(at) {
                *entry = hash;
                placed += 1;
            }
            let mut words = [0; 16];
            for (word, bytes) in words.iter_mut().zip(conn.as_chunks::<8>().0) {
                *word = u64::from_le_bytes(*bytes);
            }
            table.push(words);
        }
        black_box((&index, &table));
        placed
    }
}
