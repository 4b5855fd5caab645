//! Windows leave an engine and enter another.
//!
//! What enters was written by somebody else: windows that no living conn could have are refused. Knows what windows
//! are made of. Never knows who carries them.

use super::{CHALLENGED, End, FIN_ANSWERER, FIN_OPENER, NO_SCALE, PENDING, RESUMING, Windows, after};
use crate::conntrack::State;
use crate::portable::{PortableEnd, PortableTcp, Trust};

/// The largest shift (RFC 7323 section 2.3).
const SCALE_MAX: u8 = 14;
/// The largest window, in bytes: 65,535 shifted by it.
const WINDOW_MAX: u32 = 65_535 << SCALE_MAX;

impl Windows {
    /// The windows as they leave.
    pub(in crate::conntrack) fn portable(&self) -> PortableTcp {
        let [first, second] = self.ends;
        let [first_scale, second_scale] = self.scales;
        let end = |end: End, scale: u8, fin: u8, resuming: u8| PortableEnd {
            end: end.end,
            max_end: end.max_end,
            max_window: end.max_window,
            acked: end.acked,
            scale: (scale != NO_SCALE).then_some(scale),
            fin: self.is(fin),
            resuming: self.is(resuming),
        };
        let [resuming_first, resuming_second] = RESUMING;
        PortableTcp {
            ends: [
                end(first, first_scale, FIN_OPENER, resuming_first),
                end(second, second_scale, FIN_ANSWERER, resuming_second),
            ],
            awaited: self.awaited,
            pending_scale: (self.pending_scale != NO_SCALE).then_some(self.pending_scale),
            pending: self.is(PENDING),
            challenged: self.is(CHALLENGED),
        }
    }

    /// Windows that arrived for a conn in `state`; `None` if no living conn could have them.
    pub(in crate::conntrack) fn adopted(state: State, tcp: &PortableTcp, trust: Trust) -> Option<Self> {
        let [first, second] = tcp.ends;
        if !tcp.ends.iter().all(fits) || tcp.pending_scale.is_some_and(|scale| scale == NO_SCALE) {
            return None;
        }
        // Nobody acknowledges what was never sent; before the SYN/ACK the answerer has not spoken.
        let answered = state != State::SynSent;
        if answered && (after(first.acked, second.end) || after(second.acked, first.end)) {
            return None;
        }
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let [resuming_first, resuming_second] = RESUMING;
        let resuming = trust == Trust::Resuming && answered;
        let end = |end: PortableEnd| End {
            end: end.end,
            max_end: end.max_end,
            max_window: end.max_window,
            acked: end.acked,
        };
        Some(Self {
            ends: [end(first), end(second)],
            awaited: tcp.awaited,
            scales: [first.scale.unwrap_or(NO_SCALE), second.scale.unwrap_or(NO_SCALE)],
            pending_scale: tcp.pending_scale.unwrap_or(NO_SCALE),
            flags: flag(first.fin, FIN_OPENER)
                | flag(second.fin, FIN_ANSWERER)
                | flag(tcp.pending, PENDING)
                | flag(tcp.challenged, CHALLENGED)
                | flag(resuming || first.resuming, resuming_first)
                | flag(resuming || second.resuming, resuming_second),
        })
    }
}

/// A SYN may carry any shift; what is beyond the largest counts as the largest where it is used. Nobody may send further
/// than a window beyond what the other end has acknowledged, and that is no more than was sent.
fn fits(end: &PortableEnd) -> bool {
    let allowed = !after(end.max_end, end.end.wrapping_add(WINDOW_MAX));
    allowed && end.max_window <= WINDOW_MAX && end.scale != Some(NO_SCALE)
}
