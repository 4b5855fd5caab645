//! What no stateful firewall can leave out: hash each frame's key, load one line of an index and one of a conn.
//!
//! The tables are as large as the engine's, and a batch loads its lines side by side.

use fw_engine::HEAD_LEN;
use siphasher::sip::SipHasher13;

use crate::bed::BATCH;

/// Conns that share a line of the index.
const PER_LINE: usize = 8;

pub(crate) struct Floor {
    hasher: SipHasher13,
    index: Vec<[u64; 8]>,
    conns: Vec<[u64; 16]>,
}

impl Floor {
    pub(crate) fn new(conns: u32) -> Self {
        let conns = conns as usize;
        // Not zero, so that every page is there before the first round.
        let index = vec![[1; 8]; conns.div_ceil(PER_LINE)];
        Self { hasher: SipHasher13::new_with_key(b"a key of a bench"), index, conns: vec![[1; 16]; conns] }
    }

    /// A sum over the lines that were loaded for a batch.
    pub(crate) fn touch<'a>(&self, heads: impl Iterator<Item = &'a [u8; HEAD_LEN]>) -> u64 {
        let mut hashes = [0; BATCH];
        let mut sum = 0_u64;
        for (hash, head) in hashes.iter_mut().zip(heads) {
            *hash = self.hasher.hash(head.get(14..54).unwrap_or(head));
        }
        // Loops of their own, so that a batch's loads are all under way at once.
        for hash in hashes {
            sum = sum.wrapping_add(line(&self.index, hash));
        }
        for hash in hashes {
            sum = sum.wrapping_add(line(&self.conns, hash.rotate_left(32)));
        }
        sum
    }
}

fn line<const N: usize>(table: &[[u64; N]], hash: u64) -> u64 {
    // The hash's lower half as a fraction of the table, which needs no division.
    let place = usize::try_from(((hash & 0xffff_ffff) * table.len() as u64) >> 32).unwrap_or(0);
    table.get(place).and_then(|line| line.first()).copied().unwrap_or(0)
}
