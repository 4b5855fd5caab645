//! Frames of our own making: the answer to a rejected frame, and the resets that end a revoked conn.
//!
//! The only place that writes frames. Knows how they are written. Never knows why one is sent, nor how often.

use fw_model::{FlowKey, MacAddr};

use crate::headers::Headers;

/// Room every reply fits in, in bytes.
pub(crate) const REPLY_LEN_MAX: usize = 1294;

/// Writes the answer to a rejected frame: TCP RST for TCP (RFC 9293 section 3.10.7.1), else ICMP destination
/// unreachable, administratively prohibited (RFC 1812 section 5.2.7.1; RFC 4443 section 3.1). Its source is the
/// refused destination. Says how many bytes it has; `None` where no answer is due: to RST, to ICMP errors, to and
/// from group addresses, to anything that is not IP.
pub(crate) fn refusal(_headers: &Headers, _frame: &[u8], _out: &mut [u8; REPLY_LEN_MAX]) -> Option<usize> {
    todo!("H2")
}

/// What a reset needs to know of the conn it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reset {
    pub(crate) flow: FlowKey,
    pub(crate) guest_mac: MacAddr,
    pub(crate) peer_mac: MacAddr,
    /// The receiver's next expected sequence number: what it acknowledged last.
    pub(crate) sequence: u32,
    /// The next sequence number the receiver will send, as far as it was seen.
    pub(crate) acknowledgement: u32,
}

/// Writes the RST+ACK that tells the guest.
pub(crate) fn reset_guest(_reset: &Reset, _out: &mut [u8; REPLY_LEN_MAX]) -> Option<usize> {
    todo!("H2")
}

/// Writes the RST+ACK that tells the other end.
pub(crate) fn reset_peer(_reset: &Reset, _out: &mut [u8; REPLY_LEN_MAX]) -> Option<usize> {
    todo!("H2")
}
