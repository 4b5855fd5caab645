//! The cluster's key: what makes a snapshot ours.
//!
//! One secret, one derived key for each use. Knows BLAKE3's key derivation. Never knows where the secret is kept.

use std::fmt;

/// Bytes of a key.
pub const KEY_LEN: usize = 32;

/// The secret that authenticates snapshots; whoever has it can write one.
#[derive(Clone)]
pub struct Key {
    header: [u8; KEY_LEN],
    chunk: [u8; KEY_LEN],
    slot: [u8; KEY_LEN],
    fingerprint: [u8; 8],
}

impl Key {
    /// The keys that follow from a secret of 32 random bytes.
    #[must_use]
    pub fn new(secret: &[u8; KEY_LEN]) -> Self {
        let whole = blake3::derive_key("portcullis 2026 conn-snapshot fingerprint", secret);
        Self {
            fingerprint: whole.first_chunk().copied().unwrap_or_default(),
            header: blake3::derive_key("portcullis 2026 conn-snapshot v1 header", secret),
            chunk: blake3::derive_key("portcullis 2026 conn-snapshot v1 chunk", secret),
            slot: blake3::derive_key("portcullis 2026 crash copy v1 cluster", secret),
        }
    }

    /// Tells keys apart and says nothing of the secret: equal where the keys are.
    #[must_use]
    pub const fn fingerprint(&self) -> [u8; 8] {
        self.fingerprint
    }

    /// The code that authenticates a header.
    pub(crate) fn seal_header(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.header, bytes)
    }

    /// The key of one crash copy.
    pub(crate) fn slot_key(&self, nonce: &[u8; 32]) -> [u8; KEY_LEN] {
        *blake3::keyed_hash(&self.slot, nonce).as_bytes()
    }

    /// The code that authenticates a chunk: bound to its snapshot's header, to its place and to its length.
    pub(crate) fn seal_chunk(
        &self,
        header: &[u8; 32],
        place: u32,
        head: &[u8],
        payload: &[u8],
    ) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.chunk);
        hasher.update(header).update(&place.to_le_bytes()).update(head).update(payload);
        hasher.finalize()
    }
}

/// Says nothing of the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}
