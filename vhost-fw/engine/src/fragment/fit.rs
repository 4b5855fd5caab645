//! Whether a fragment fits what is held of its datagram.
//!
//! Knows ranges and bytes of one datagram. Never knows quotas or time.

use fw_model::Reason;

use super::arena::Chunk;
use super::arrival::Arrival;
use super::{Datagram, Fragments, Piece};

/// How a fragment fits its datagram.
pub(super) enum Fit {
    New,
    /// The very same data is held already.
    Duplicate,
    /// The datagram can no longer be trusted.
    Clash(Reason),
}

impl Fragments {
    /// How a fragment fits what is held of its datagram. Data beyond the last fragment is malformed; any overlap ends
    /// the datagram, unless it is the very same data once more.
    pub(super) fn fit(&mut self, datagram: &Datagram, arrival: &Arrival, bytes: &[u8]) -> Fit {
        let agrees =
            arrival.protocol == datagram.protocol && arrival.destination_mac == datagram.destination_mac;
        let beyond = datagram.end.is_some_and(|end| arrival.end > end)
            || (!arrival.more && datagram.furthest > arrival.end);
        if !agrees || beyond {
            return Fit::Clash(Reason::FragmentMalformed);
        }
        let mut next = datagram.first;
        while let Some((chunk, piece)) = next.and_then(|chunk| Some((chunk, self.piece_at(chunk)?))) {
            if arrival.start < piece.end && piece.start < arrival.end {
                let same = (arrival.start, arrival.end, arrival.more) == (piece.start, piece.end, piece.more)
                    && self.holds_same_data(chunk, &piece, bytes.get(arrival.data_at as usize..));
                return if same { Fit::Duplicate } else { Fit::Clash(Reason::FragmentOverlap) };
            }
            next = piece.next;
        }
        Fit::New
    }

    fn holds_same_data(&mut self, chunk: Chunk, piece: &Piece, data: Option<&[u8]>) -> bool {
        let Some(held) = self.scratch.get_mut(..(piece.end - piece.start) as usize) else { return false };
        self.arena.read(chunk, piece.data_at as usize, held);
        data == Some(&*held)
    }
}
