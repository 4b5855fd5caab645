//! One TCP step: a state and a segment give the next state.
//!
//! Knows sequence numbers, windows and flags. Never knows the table, the clock, the rules.
//!
//! Windows are tracked as van Rooij describes ("Real Stateful TCP Packet Filtering in IP Filter", 2001): what an end
//! may send is bounded by what the other end has acknowledged and advertised. Read with RFC 9293 section 3.10.7, RFC
//! 7323 (scaling) and RFC 5961 (blind attacks).

mod portable;

use fw_model::Reason;

use super::State;
use crate::headers::Tcp;

/// What is remembered of one end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct End {
    /// Highest sequence number it has sent, plus one.
    pub(super) end: u32,
    /// Highest sequence number it may send: the other end's acknowledgement plus its window.
    pub(super) max_end: u32,
    /// Largest window it has advertised, in bytes; at least 1.
    pub(super) max_window: u32,
    /// Highest acknowledgement it has sent.
    pub(super) acked: u32,
}

/// What is remembered of a TCP conn: both ends, opener first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Windows {
    pub(super) ends: [End; 2],
    /// With `PENDING`: what would acknowledge an opener's SYN on a living conn; the opener may have rebooted, and the
    /// answerer will say. With `CHALLENGED`: where the opener's reset will stand that answers a challenge ACK.
    awaited: u32,
    scales: [u8; 2],
    pending_scale: u8,
    flags: u8,
}

const FIN_OPENER: u8 = 1;
const FIN_ANSWERER: u8 = 2;
const PENDING: u8 = 4;
const CHALLENGED: u8 = 8;
/// Opener's and answerer's: what is known of this end is a moment old ([`Windows::catch_up`]).
const RESUMING: [u8; 2] = [16, 32];
const NO_SCALE: u8 = 0xff;

/// Acknowledgements this far behind are still believed, whatever the window (as netfilter's `MAXACKWINCONST`): a late
/// duplicate does no harm.
const ACK_SLACK: u32 = 66_000;

/// How far ahead of what is known a resuming end's first segment may lie at least, in bytes; a larger window of its
/// receiver allows more. What is known is written down anew before an end has gone this far, so a conn that lives is
/// found again, and a stranger who guesses gains this step and no more.
const RESUME_STEP: u32 = 4 << 20;

/// What a segment does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// It passes and the conn is in this state now, its timer started anew.
    To(State),
    /// It passes and the conn stays as it was, its timer too.
    Keep,
    /// It passes and may have ended the conn: the conn lives on shortly, and any answer restores it.
    Doubt,
    /// It is refused.
    Refuse(Reason),
    /// A new incarnation may start.
    Reopen,
}

/// A conn opened by this SYN.
pub(super) fn open(syn: &Tcp) -> Windows {
    let mut windows = Windows { scales: [NO_SCALE; 2], pending_scale: NO_SCALE, ..Windows::default() };
    windows.greet(0, syn);
    windows
}

/// Moves a conn by one segment. While the table is `settling`, segments that were under way when a resuming conn was
/// taken in may still come: no end's first segment is its newest then.
#[inline]
pub(super) fn step(
    state: State,
    windows: &mut Windows,
    by_opener: bool,
    segment: &Tcp,
    settling: bool,
) -> Moved {
    match state {
        State::SynSent => windows.syn_sent(by_opener, segment),
        State::SynReceived => windows.syn_received(by_opener, segment, settling),
        State::Established | State::FinWait => windows.open_conn(state, by_opener, segment, settling),
        State::TimeWait | State::Close => windows.ended(state, by_opener, segment, settling),
        State::Asked | State::Answered => Moved::Refuse(Reason::TcpState),
    }
}

impl Windows {
    fn syn_sent(&mut self, by_opener: bool, segment: &Tcp) -> Moved {
        let flags = segment.flags;
        let [opener, _] = self.ends;
        match (by_opener, flags.syn(), flags.ack(), flags.rst()) {
            (true, true, false, false) => {
                // A retransmission, or a new attempt with another initial number.
                self.greet(0, segment);
                Moved::To(State::SynSent)
            }
            (true, false, _, true) if segment.sequence == opener.end => Moved::To(State::Close),
            (true, false, _, true) if self.is(CHALLENGED) && segment.sequence == self.awaited => Moved::Keep,
            (false, true, true, false) if segment.acknowledgement == opener.end => {
                self.answer(segment);
                Moved::To(State::SynReceived)
            }
            (false, _, true, true) if segment.acknowledgement == opener.end => Moved::To(State::Close),
            // An answer to another incarnation: the opener will reset it (RFC 9293 section 3.5.1, RFC 5961 section 4).
            (false, _, true, false)
                if segment.acknowledgement != opener.end && segment.payload == 0 && !flags.fin() =>
            {
                self.awaited = segment.acknowledgement;
                self.flags |= CHALLENGED;
                Moved::Keep
            }
            (_, _, _, true) => Moved::Refuse(Reason::TcpWindow),
            _ => Moved::Refuse(Reason::TcpState),
        }
    }

    fn syn_received(&mut self, by_opener: bool, segment: &Tcp, settling: bool) -> Moved {
        let flags = segment.flags;
        let [opener, answerer] = self.ends;
        match (by_opener, flags.syn(), flags.rst()) {
            (true, true, false) if !flags.ack() => {
                if segment_end(segment) == opener.end {
                    return Moved::To(State::SynReceived);
                }
                self.remember(segment);
                Moved::Keep
            }
            (false, true, false) if flags.ack() => {
                if segment.acknowledgement == opener.end {
                    self.answer(segment);
                    return Moved::To(State::SynReceived);
                }
                self.answer_to_pending(segment).unwrap_or(Moved::Keep)
            }
            (true, false, true) if segment.sequence == opener.end => Moved::To(State::Close),
            (false, false, true)
                if segment.sequence == answerer.end
                    || (flags.ack() && segment.acknowledgement == opener.end) =>
            {
                Moved::To(State::Close)
            }
            (_, _, true) => Moved::Refuse(Reason::TcpWindow),
            (true, false, false) if flags.ack() && segment.acknowledgement == answerer.end => {
                self.open_conn(State::Established, true, segment, settling)
            }
            (false, false, false) if flags.ack() && segment.payload == 0 && !flags.fin() => {
                match self.fits(1, segment) {
                    Ok(()) => Moved::Keep,
                    Err(reason) => Moved::Refuse(reason),
                }
            }
            (true, false, false) if flags.ack() => Moved::Refuse(Reason::TcpWindow),
            _ => Moved::Refuse(Reason::TcpState),
        }
    }

    #[inline]
    fn open_conn(&mut self, state: State, by_opener: bool, segment: &Tcp, settling: bool) -> Moved {
        let (sender, flags) = (usize::from(!by_opener), segment.flags);
        if flags.syn() {
            return self.syn_on_open_conn(by_opener, segment);
        }
        if flags.rst() {
            return self.reset(sender, segment);
        }
        if let Err(moved) = self.segment(sender, segment, settling) {
            return moved;
        }
        match self.ends {
            [opener, answerer] if self.is(FIN_OPENER) && self.is(FIN_ANSWERER) => {
                let both = opener.acked == answerer.end && answerer.acked == opener.end;
                Moved::To(if both { State::TimeWait } else { State::FinWait })
            }
            _ if self.is(FIN_OPENER) || self.is(FIN_ANSWERER) => Moved::To(State::FinWait),
            _ => Moved::To(state),
        }
    }

    /// A SYN on an open conn never changes it by itself: whether the sender rebooted, the other end says (RFC 5961
    /// section 4).
    fn syn_on_open_conn(&mut self, by_opener: bool, segment: &Tcp) -> Moved {
        match (by_opener, segment.flags.ack()) {
            (true, false) => {
                self.remember(segment);
                Moved::Keep
            }
            (false, true) => self.answer_to_pending(segment).unwrap_or_else(|| {
                let again = !after(segment_end(segment), self.ends[1].end);
                match self.fits(1, segment) {
                    Ok(()) if again => Moved::Keep,
                    _ => Moved::Refuse(Reason::TcpState),
                }
            }),
            _ => Moved::Refuse(Reason::TcpState),
        }
    }

    /// After both FINs or a reset: retransmissions pass, nothing new does, and a new incarnation may start.
    fn ended(&mut self, state: State, by_opener: bool, segment: &Tcp, settling: bool) -> Moved {
        let (sender, flags) = (usize::from(!by_opener), segment.flags);
        if flags.syn() && !flags.ack() {
            // RFC 6191: beyond the old numbers there is no doubt which incarnation it belongs to.
            let beyond = after(segment.sequence, self.end_of(sender).end);
            if state == State::Close || beyond {
                return Moved::Reopen;
            }
            return Moved::Refuse(Reason::TcpState);
        }
        if flags.syn() {
            return self
                .answer_to_pending(segment)
                .filter(|_| !by_opener)
                .unwrap_or(Moved::Refuse(Reason::TcpState));
        }
        if flags.rst() {
            return match self.reset(sender, segment) {
                Moved::Refuse(reason) => Moved::Refuse(reason),
                Moved::To(_) | Moved::Keep | Moved::Doubt | Moved::Reopen => Moved::Keep,
            };
        }
        if after(segment_end(segment), self.end_of(sender).end) {
            return Moved::Refuse(Reason::TcpState);
        }
        match self.segment(sender, segment, settling) {
            Ok(()) => Moved::Keep,
            Err(moved) => moved,
        }
    }

    /// A reset counts at once only where the receiver expects the next byte; elsewhere in its window the receiver asks
    /// back, and only then is it known (RFC 5961 section 3).
    fn reset(&self, sender: usize, segment: &Tcp) -> Moved {
        let (from, to) = (self.end_of(sender), self.end_of(1 - sender));
        let in_window =
            !before(segment.sequence, to.acked) && !after(segment.sequence, from.max_end.max_seq(from.end));
        let acks_sent = !segment.flags.ack() || !after(segment.acknowledgement, to.end);
        match (in_window && acks_sent, segment.sequence == to.acked) {
            (false, _) => Moved::Refuse(Reason::TcpWindow),
            (true, true) => Moved::To(State::Close),
            (true, false) => Moved::Doubt,
        }
    }

    /// A segment without SYN and RST: checked, and if it fits, what both ends may do next.
    #[inline]
    fn segment(&mut self, sender: usize, segment: &Tcp, settling: bool) -> Result<(), Moved> {
        if !segment.flags.ack() {
            return Err(Moved::Refuse(Reason::TcpState));
        }
        if self.is(resuming(sender)) {
            self.catch_up(sender, segment, settling).map_err(Moved::Refuse)?;
        } else {
            self.fits(sender, segment).map_err(Moved::Refuse)?;
        }
        let fin = if sender == 0 { FIN_OPENER } else { FIN_ANSWERER };
        let end = segment_end(segment);
        if self.is(fin) && after(end, self.end_of(sender).end) {
            return Err(Moved::Refuse(Reason::TcpState));
        }
        if segment.flags.fin() {
            self.flags |= fin;
        }
        let window = u32::from(segment.window) << self.scale(sender);
        self.advance(sender, end, segment.acknowledgement, window);
        Ok(())
    }

    /// A resuming end's segment: what is known of both ends follows it, by one bounded step, if it then fits. Once nothing
    /// sent before the conn was taken in can be under way, this end is exact again. Until then its first segment proves
    /// little: it may be an old one that waited in a ring, and a newer behind it acknowledges more.
    #[cold]
    fn catch_up(&mut self, sender: usize, segment: &Tcp, settling: bool) -> Result<(), Reason> {
        let (from, to) = (self.end_of(sender), self.end_of(1 - sender));
        let within = |number: u32, known: u32, window: u32| {
            !after(number, known.wrapping_add(window.max(RESUME_STEP)))
        };
        if !within(segment.sequence, from.max_end, to.max_window)
            || !within(segment.acknowledgement, to.end, from.max_window)
        {
            return Err(Reason::TcpWindow);
        }
        let mut ahead = *self;
        let [opener, answerer] = &mut ahead.ends;
        let (from, to) = if sender == 0 { (opener, answerer) } else { (answerer, opener) };
        from.max_end = from.max_end.max_seq(segment.sequence);
        to.end = to.end.max_seq(segment.acknowledgement);
        to.max_end = to.max_end.max_seq(to.end);
        if !settling {
            ahead.flags &= !resuming(sender);
        }
        ahead.fits(sender, segment)?;
        *self = ahead;
        Ok(())
    }

    /// Whether a segment lies where its sender may send, and acknowledges what was sent.
    #[inline]
    fn fits(&self, sender: usize, segment: &Tcp) -> Result<(), Reason> {
        let (from, to) = (self.end_of(sender), self.end_of(1 - sender));
        let not_above = !after(segment.sequence, from.max_end);
        let not_below = !before(segment_end(segment), from.end.wrapping_sub(to.max_window).wrapping_sub(1));
        let slack = from.max_window.max(ACK_SLACK);
        let acks_sent = !after(segment.acknowledgement, to.end);
        let acks_lately = !before(segment.acknowledgement, to.end.wrapping_sub(slack).wrapping_sub(1));
        if not_above && not_below && acks_sent && acks_lately { Ok(()) } else { Err(Reason::TcpWindow) }
    }

    #[inline]
    fn advance(&mut self, sender: usize, end: u32, acknowledgement: u32, window: u32) {
        let [opener, answerer] = &mut self.ends;
        let (from, to) = if sender == 0 { (opener, answerer) } else { (answerer, opener) };
        from.end = from.end.max_seq(end);
        from.max_window = from.max_window.max(window).max(1);
        from.acked = from.acked.max_seq(acknowledgement);
        to.max_end = to.max_end.max_seq(acknowledgement.wrapping_add(window));
    }

    /// Starts an end with its SYN.
    fn greet(&mut self, sender: usize, syn: &Tcp) {
        let end = segment_end(syn);
        let window = u32::from(syn.window).max(1);
        if let (Some(place), Some(scale)) = (self.ends.get_mut(sender), self.scales.get_mut(sender)) {
            *place = End { end, max_end: end, max_window: window, acked: syn.acknowledgement };
            *scale = syn.window_scale.unwrap_or(NO_SCALE);
        }
    }

    /// The answerer's SYN/ACK to the opener's SYN.
    fn answer(&mut self, segment: &Tcp) {
        self.greet(1, segment);
        let [opener, answerer] = &mut self.ends;
        opener.max_end = segment.acknowledgement.wrapping_add(answerer.max_window);
        opener.acked = answerer.end.wrapping_sub(1);
        self.flags = 0;
    }

    /// Remembers an opener's SYN on a living conn.
    fn remember(&mut self, syn: &Tcp) {
        self.awaited = segment_end(syn);
        self.pending_scale = syn.window_scale.unwrap_or(NO_SCALE);
        self.flags |= PENDING;
    }

    /// The answerer accepts the remembered SYN: it knew no such conn any more, and a new incarnation has begun.
    fn answer_to_pending(&mut self, segment: &Tcp) -> Option<Moved> {
        if !self.is(PENDING) || segment.acknowledgement != self.awaited {
            return None;
        }
        let end = self.awaited;
        self.ends[0] = End { end, max_end: end, max_window: u16::MAX.into(), acked: 0 };
        self.scales[0] = self.pending_scale;
        self.answer(segment);
        Some(Moved::To(State::SynReceived))
    }

    /// The shift of a sender's windows: in force only if both SYNs carried the option (RFC 7323 section 2.2).
    #[inline]
    fn scale(&self, sender: usize) -> u32 {
        let [opener, answerer] = self.scales;
        if opener == NO_SCALE || answerer == NO_SCALE {
            return 0;
        }
        u32::from(if sender == 0 { opener } else { answerer }).min(14)
    }

    const fn end_of(&self, sender: usize) -> End {
        let [opener, answerer] = self.ends;
        if sender == 0 { opener } else { answerer }
    }

    const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

const fn resuming(sender: usize) -> u8 {
    let [opener, answerer] = RESUMING;
    if sender == 0 { opener } else { answerer }
}

/// The sequence number behind a segment: SYN and FIN count one each.
pub(super) fn segment_end(segment: &Tcp) -> u32 {
    let flags = u32::from(segment.flags.syn()) + u32::from(segment.flags.fin());
    segment.sequence.wrapping_add(segment.payload).wrapping_add(flags)
}

/// Sequence numbers compare modulo 2^32 (RFC 9293 section 3.4).
pub(super) const fn after(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) >= 0x8000_0000 && a != b
}

pub(super) const fn before(a: u32, b: u32) -> bool {
    after(b, a)
}

trait MaxSeq {
    fn max_seq(self, other: Self) -> Self;
}

impl MaxSeq for u32 {
    fn max_seq(self, other: Self) -> Self {
        if after(other, self) { other } else { self }
    }
}
