//! The handovers this NIC took, kept beside its conns: a copy of one is known as such by the next process too.
//!
//! A ring of entries in the header's page, each sealed for itself, so that one half written is none. Knows an entry's
//! bytes. Never knows what a handover is.

use conn_snapshot::{RuleTag, SlotKey};
use fw_model::HandoverId;

/// Handovers that are remembered.
pub(crate) const TAKEN_MAX: usize = 64;
/// Bytes of an entry: its number, the id, a seal over both.
pub(super) const ENTRY: usize = 32;
/// Where the ring begins: the second half of the page.
pub(super) const RING: usize = 2048;

/// The ids in a header's page, oldest first.
pub(super) fn read(header: &[u8], key: &SlotKey) -> Vec<HandoverId> {
    let ring = header.get(RING..RING + TAKEN_MAX * ENTRY).unwrap_or_default();
    let (entries, _) = ring.as_chunks::<ENTRY>();
    let mut taken: Vec<(u64, HandoverId)> = entries
        .iter()
        .filter_map(|entry| entry_of(entry).filter(|(number, id)| *entry == bytes(*number, *id, key)))
        .collect();
    taken.sort_unstable_by_key(|(number, _)| *number);
    taken.into_iter().map(|(_, id)| id).collect()
}

fn entry_of(entry: &[u8; ENTRY]) -> Option<(u64, HandoverId)> {
    let (number, rest) = entry.split_first_chunk()?;
    Some((u64::from_le_bytes(*number), HandoverId(*rest.first_chunk()?)))
}

/// The entry of the handover that was taken as number `number`.
pub(super) fn bytes(number: u64, id: HandoverId, key: &SlotKey) -> [u8; ENTRY] {
    let RuleTag(seal) = key.tag(&format!("taken {number} {id}"));
    let mut entry = [0; ENTRY];
    let said = number.to_le_bytes().into_iter().chain(id.0).chain(seal.to_le_bytes());
    for (to, from) in entry.iter_mut().zip(said) {
        *to = from;
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_read_in_their_order_and_a_torn_one_is_none() {
        let key = SlotKey::new(None, &[1; 32]);
        let mut page = vec![0; 4096];
        let id = |number: u64| HandoverId([u8::try_from(number % 200).unwrap() + 1; 16]);
        for number in 0..100 {
            let at = RING + usize::try_from(number).unwrap() % TAKEN_MAX * ENTRY;
            page[at..at + ENTRY].copy_from_slice(&bytes(number, id(number), &key));
        }
        assert_eq!(read(&page, &key), (36..100).map(id).collect::<Vec<_>>());
        page[RING + 40 * ENTRY + 9] ^= 1;
        let left: Vec<_> = (36..100).filter(|number| number % 64 != 40).map(id).collect();
        assert_eq!(read(&page, &key), left);
        assert_eq!(read(&page, &SlotKey::new(None, &[2; 32])), [], "another file's");
        assert_eq!(read(&[0; 100], &key), []);
    }
}
