//! An ICMP error finds the conn it is about.
//!
//! Knows what an error quotes and what a conn's end has sent. Never knows the rules; changes nothing.

use fw_model::{Direction, FlowKey, Protocol, Reason};

use super::State;
use super::tcp::{Windows, after, before};
use crate::headers::Quote;

/// The flow a quoted frame belongs to: the error goes back to the frame's sender, so an error to the guest quotes
/// what the guest sent.
pub(super) fn flow(quote: &Quote, error: Direction, vlan: u16) -> FlowKey {
    let (local, local_port, remote, remote_port) = match error {
        Direction::In => (quote.source, quote.source_port, quote.destination, quote.destination_port),
        Direction::Out => (quote.destination, quote.destination_port, quote.source, quote.source_port),
    };
    FlowKey { local, remote, local_port, remote_port, protocol: quote.protocol, vlan }
}

/// Whether the conn's end that gets the error has sent what is quoted: `by_opener` says which end that is.
pub(super) fn was_sent(
    state: State,
    windows: &Windows,
    by_opener: bool,
    quote: &Quote,
) -> Result<(), Reason> {
    if quote.protocol != Protocol::TCP {
        // The answerer has sent nothing before it answered.
        return if by_opener || state == State::Answered { Ok(()) } else { Err(Reason::Unrelated) };
    }
    let [opener, answerer] = windows.ends;
    let (sender, receiver) = if by_opener { (opener, answerer) } else { (answerer, opener) };
    let answered = !matches!(state, State::SynSent);
    let Some(sequence) = quote.sequence.filter(|_| by_opener || answered) else {
        return Err(Reason::Unrelated);
    };
    // Sent, and not so long ago that it was acknowledged a whole window before (RFC 5927 section 4.1).
    let oldest =
        if answered { receiver.acked.wrapping_sub(receiver.max_window) } else { sender.end.wrapping_sub(1) };
    if after(sequence, sender.end) || before(sequence, oldest) { Err(Reason::Unrelated) } else { Ok(()) }
}
