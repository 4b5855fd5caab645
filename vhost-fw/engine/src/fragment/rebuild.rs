//! A whole datagram written as the one frame it was before it was fragmented.
//!
//! Knows the IP fields that fragmentation changes. Never knows how fragments got here.

use super::Fragments;
use super::arrival::Start;
use crate::headers::checksum;

impl Fragments {
    /// Writes the datagram in `slot` into the scratch and gives its length; `None` if it is not whole.
    pub(super) fn rebuild(&mut self, slot: usize) -> Option<usize> {
        let datagram = self.datagram_at(slot)?;
        let end = datagram.end.filter(|end| *end == datagram.received)? as usize;
        let (first, start) = datagram.start?;
        let headers_end = start.headers_end as usize;
        self.arena.read(first, 0, self.scratch.get_mut(..headers_end)?);
        if let Some(named_at) = start.named_at {
            let mut next_header = [0];
            self.arena.read(first, headers_end, &mut next_header);
            self.scratch.get_mut(named_at as usize..)?.first_chunk_mut::<1>()?.copy_from_slice(&next_header);
        }
        let ip_length = start.ip_length() as usize + end;
        let ip = self.scratch.get_mut(start.ip as usize..headers_end)?;
        write_lengths(ip, start, ip_length)?;

        let mut next = datagram.first;
        while let Some(chunk) = next {
            let piece = self.piece_at(chunk)?;
            let range = headers_end + piece.start as usize..headers_end + piece.end as usize;
            self.arena.read(chunk, piece.data_at as usize, self.scratch.get_mut(range)?);
            next = piece.next;
        }
        Some(headers_end + end)
    }
}

/// Makes the headers say that the datagram is whole: RFC 791 section 3.2, RFC 8200 section 4.5.
fn write_lengths(ip: &mut [u8], start: Start, ip_length: usize) -> Option<()> {
    if start.named_at.is_some() {
        let payload = u16::try_from(ip_length.checked_sub(40)?).ok()?;
        ip.get_mut(4..6)?.copy_from_slice(&payload.to_be_bytes());
        return Some(());
    }
    ip.get_mut(2..4)?.copy_from_slice(&u16::try_from(ip_length).ok()?.to_be_bytes());
    ip.get_mut(6..8)?.fill(0);
    let checksum = checksum::ipv4_header(ip);
    ip.get_mut(10..12)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}
