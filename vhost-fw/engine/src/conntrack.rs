//! The bounded table of conns: find, open, step, close, evict.
//!
//! The only place that knows how conns are stored. Knows keys, states and deadlines. Never knows the rules, nor
//! why a conn was allowed; the rule a conn remembers is a number to it.

mod changes;
mod conn;
mod datagram;
mod handover;
mod index;
mod related;
mod store;
mod tcp;
mod timer;

use std::hash::Hasher;
use std::hint::black_box;

use fw_model::{Direction, FlowKey, MacAddr, OnRevoke, Reason, Timers};
use siphasher::sip::SipHasher13;

use crate::headers::{IcmpMessage, L4, Quote};
use crate::time::Tick;
use crate::verdict::RuleSlot;
pub use changes::Follower;
use conn::Conn;
pub(crate) use conn::Key;
pub(crate) use conn::State;
use index::Index;
use store::Store;
use tcp::{Moved, Windows};

/// A living conn's place in the table. It may be stale after any `&mut self` call that can close conns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConnId(u32);

/// A place in the table where a conn was seen, to be looked at before it is believed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Likely(u32);

/// What a first frame that was allowed opens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opening {
    pub(crate) flow: FlowKey,
    pub(crate) hash: u64,
    pub(crate) opener: Direction,
    pub(crate) peer_mac: MacAddr,
    pub(crate) admitted: Admitted,
}

/// By what a conn is allowed, as of an epoch of the rules. (An epoch is the engine's own count: every install and
/// every rule that expires starts one.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted {
    pub(crate) rule: Option<RuleSlot>,
    pub(crate) epoch: u32,
    pub(crate) on_revoke: OnRevoke,
    /// Admitted by `reply-from`, so judged again by that and not by the rule's remote.
    pub(crate) expected: bool,
    /// Log its frames' refusals.
    pub(crate) log: bool,
}

/// What a frame does to its conn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It passes.
    Pass,
    /// It is refused, and the conn stays as it was.
    Refuse(Reason),
    /// A new incarnation may start here (RFC 9293 section 3.6.1, RFC 6191): close the conn and judge the frame as
    /// a first one.
    Reopen,
}

/// A conn that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed {
    pub(crate) rule: Option<RuleSlot>,
}

/// What looking at the timers gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A conn's time was over.
    Closed(Closed),
    /// A conn was looked at and lives on.
    Lives,
    /// Nothing is due.
    Nothing,
}

/// A conn, to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) flow: FlowKey,
    pub(crate) opener: Direction,
    pub(crate) state: &'static str,
    pub(crate) admitted: Admitted,
    pub(crate) remaining_ms: u64,
    pub(crate) peer_mac: MacAddr,
    /// Of a TCP conn that got an answer and has not ended.
    pub(crate) tcp: Option<ResetView>,
}

/// Where a reset must stand to be believed by each end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ResetView {
    /// For the guest: what it acknowledged last, and the next number it will send.
    pub(crate) guest_sequence: u32,
    pub(crate) guest_ack: u32,
    /// The same for the other end.
    pub(crate) peer_sequence: u32,
    pub(crate) peer_ack: u32,
}

/// A conn being drained lives this much longer at most (CONTRACT 4).
const DRAIN_S: u32 = 300;

/// The table. Its memory is reserved at the start and touched as it fills.
#[derive(Debug)]
pub(crate) struct Table {
    store: Store,
    index: Index,
    hash_key: [u64; 2],
    limit: u32,
    unproven_limit: u32,
    /// Until then segments may come that were sent before the last conns were taken in.
    settled: Tick,
}

impl Table {
    /// Room for `capacity` conns, `half_open` of them never answered or half open.
    pub(crate) fn new(capacity: u32, half_open: u32, hash_key: [u8; 16]) -> Self {
        let slots = capacity.clamp(1, u32::MAX / 2);
        Self {
            store: Store::new(slots),
            index: Index::new(slots),
            hash_key: halves(hash_key),
            limit: slots,
            unproven_limit: half_open.clamp(1, slots),
            settled: Tick(0),
        }
    }

    /// New limits, within what was reserved. Conns beyond them live on; new ones wait.
    pub(crate) fn set_limits(&mut self, conns: u32, half_open: u32) {
        self.limit = conns.clamp(1, self.store.room());
        self.unproven_limit = half_open.clamp(1, self.limit);
    }

    pub(crate) fn hash(&self, flow: &FlowKey) -> u64 {
        self.hash_of(&Key::of(flow))
    }

    #[inline(always)]
    pub(crate) fn hash_of(&self, key: &Key) -> u64 {
        // Word by word: bytes cost twice as much. IPv4 takes two words, IPv6 five; the hash knows how many there were.
        let [low, high] = self.hash_key;
        let mut hasher = SipHasher13::new_with_keys(low, high);
        let Key { local: [a, b], remote: [c, d], rest } = *key;
        if key.is_v4() {
            hasher.write_u64(a << 32 | c & 0xffff_ffff);
        } else {
            hasher.write_u64(a);
            hasher.write_u64(b);
            hasher.write_u64(c);
            hasher.write_u64(d);
        }
        hasher.write_u64(rest);
        hasher.finish()
    }

    /// Loads the index line of `hash`, so that a batch waits for memory once.
    pub(crate) fn warm(&self, hash: u64) -> u64 {
        self.index.warm(hash)
    }

    /// The conn of `flow`, unless its time is over at `now`.
    pub(crate) fn find(&self, flow: &FlowKey, hash: u64, now: Tick) -> Option<ConnId> {
        self.look_for(&Key::of(flow), hash, now)
    }

    #[inline(never)]
    fn look_for(&self, key: &Key, hash: u64, now: Tick) -> Option<ConnId> {
        self.index.find(hash, |place| self.is_at(place, key, now)).map(ConnId)
    }

    /// Where the conn with this hash most likely is, and loads its lines.
    pub(crate) fn likely(&self, hash: u64) -> Option<Likely> {
        let place = self.index.likely(hash)?;
        black_box(self.store.touch(place));
        Some(Likely(place))
    }

    /// The conn of `flow`, looked for first where it was likely to be: the frames of a batch before this one may have
    /// closed or opened it.
    #[inline]
    pub(crate) fn find_at(&self, likely: Option<Likely>, key: &Key, hash: u64, now: Tick) -> Option<ConnId> {
        match likely {
            Some(Likely(place)) if self.is_at(place, key, now) => Some(ConnId(place)),
            _ => self.look_for(key, hash, now),
        }
    }

    /// By what the conn is allowed.
    #[inline]
    pub(crate) fn admitted(&self, id: ConnId) -> Option<Admitted> {
        self.store.at(id.0).map(Conn::admitted)
    }

    pub(crate) fn flow(&self, id: ConnId) -> Option<(FlowKey, Direction)> {
        self.store.at(id.0).map(|conn| (conn.flow(), conn.opener()))
    }

    /// Why this frame may not open a conn, if it may not: asked before the rules.
    pub(crate) fn cannot_open(l4: &L4) -> Option<Reason> {
        match l4 {
            L4::Tcp(tcp) => (!tcp.flags.syn() || tcp.flags.ack()).then_some(Reason::NoConn),
            L4::Icmp(icmp) => match icmp.message {
                IcmpMessage::EchoReply { .. } => Some(Reason::NoConn),
                IcmpMessage::Error(_) => Some(Reason::Unrelated),
                IcmpMessage::EchoRequest { .. }
                | IcmpMessage::Redirect
                | IcmpMessage::Nd(_)
                | IcmpMessage::Other => None,
            },
            L4::Udp(_) | L4::Group(_) | L4::Other | L4::Fragment => None,
        }
    }

    /// Opens a conn with its first frame. `Ok` names what had to go for it: a conn of the same flow whose time was over,
    /// or the oldest that was never answered.
    pub(crate) fn open(
        &mut self,
        opening: &Opening,
        l4: &L4,
        now: Tick,
        timers: &Timers,
    ) -> Result<Option<Closed>, Reason> {
        let Opening { flow, hash, opener, peer_mac, ref admitted } = *opening;
        let overdue =
            self.index.find(hash, |place| self.store.at(place).is_some_and(|conn| conn.is_of(&flow)));
        let gone = match overdue {
            Some(place) => self.close(ConnId(place)),
            None => self.make_room(self.store.unproven() >= self.unproven_limit)?,
        };
        let (state, windows) = match l4 {
            L4::Tcp(syn) => (State::SynSent, tcp::open(syn)),
            L4::Udp(_) | L4::Icmp(_) | L4::Group(_) | L4::Other | L4::Fragment => {
                (State::Asked, Windows::default())
            }
        };
        let mut conn = Conn::new(&flow, opener, peer_mac, admitted, state, windows);
        conn.deadline = now.after_s(state.life_s(flow.protocol, timers));
        let place = self.store.place(conn).ok_or(Reason::TableFull)?;
        self.index.insert(hash, place);
        Ok(gone)
    }

    /// Room for one conn more: if the table (or the pool it belongs to) is full, the oldest never answered goes.
    fn make_room(&mut self, pool_full: bool) -> Result<Option<Closed>, Reason> {
        if !pool_full && self.store.len() < self.limit {
            return Ok(None);
        }
        self.close(ConnId(self.store.oldest_unproven())).ok_or(Reason::TableFull).map(Some)
    }

    #[inline]
    pub(crate) fn step(
        &mut self,
        id: ConnId,
        direction: Direction,
        l4: &L4,
        now: Tick,
        timers: &Timers,
    ) -> Step {
        let Some(conn) = self.store.at_mut(id.0) else { return Step::Refuse(Reason::NoConn) };
        let by_opener = direction == conn.opener();
        let before = conn.state;
        let moved = match l4 {
            L4::Tcp(segment) => tcp::step(before, &mut conn.windows, by_opener, segment, now < self.settled),
            L4::Udp(_) | L4::Icmp(_) | L4::Group(_) | L4::Other | L4::Fragment => {
                datagram::step(before, by_opener, l4).map_or_else(Moved::Refuse, Moved::To)
            }
        };
        let protocol = conn.flow().protocol;
        let step = match moved {
            Moved::To(state) => {
                conn.state = state;
                conn.deadline = now.after_s(state.life_s(protocol, timers)).min(conn.ends_at);
                Step::Pass
            }
            Moved::Keep => Step::Pass,
            Moved::Doubt => {
                conn.deadline = conn.deadline.min(now.after_s(timers.close));
                Step::Pass
            }
            Moved::Refuse(reason) => return Step::Refuse(reason),
            Moved::Reopen => return Step::Reopen,
        };
        // A deadline that moved later is found when its old place comes up; one that moved nearer is filed anew.
        self.store.moved(id.0, before, moved == Moved::Doubt);
        step
    }

    /// Whether an ICMP error that goes `direction` and quotes this may pass: it quotes a frame of a living conn
    /// that went the other way, and its sequence number is in window. Changes nothing.
    pub(crate) fn related(
        &self,
        quote: &Quote,
        direction: Direction,
        vlan: u16,
        now: Tick,
    ) -> Result<ConnId, Reason> {
        let flow = related::flow(quote, direction, vlan);
        let id = self.find(&flow, self.hash(&flow), now).ok_or(Reason::Unrelated)?;
        let conn = self.store.at(id.0).ok_or(Reason::Unrelated)?;
        // The end that gets the error is the one that sent what it quotes.
        let by_opener = conn.opener() != direction;
        related::was_sent(conn.state, &conn.windows, by_opener, quote)?;
        Ok(id)
    }

    /// Stamps a conn that was judged again and is still allowed.
    pub(crate) fn readmit(&mut self, id: ConnId, admitted: Admitted) {
        if let Some(conn) = self.store.at_mut(id.0) {
            conn.admit(&admitted);
        }
        self.store.mark(id.0);
    }

    /// Lets a conn live [`DRAIN_S`] more at most.
    pub(crate) fn drain(&mut self, id: ConnId, now: Tick) {
        if let Some(conn) = self.store.at_mut(id.0) {
            conn.ends_at = conn.ends_at.min(now.after_s(DRAIN_S));
            conn.deadline = conn.deadline.min(conn.ends_at);
        }
        self.store.refile(id.0);
        self.store.mark(id.0);
    }

    pub(crate) fn close(&mut self, id: ConnId) -> Option<Closed> {
        let conn = self.store.at(id.0)?;
        let (flow, rule) = (conn.flow(), conn.admitted().rule);
        self.index.remove(self.hash(&flow), id.0);
        self.store.take(id.0);
        Some(Closed { rule })
    }

    /// Conns that live, those whose time has just run out included.
    pub(crate) const fn len(&self) -> u32 {
        self.store.len()
    }

    /// Places there have ever been conns in: all that a walk must visit.
    pub(crate) fn slots(&self) -> u32 {
        self.store.slots()
    }

    pub(crate) fn id_at(&self, slot: u32) -> Option<ConnId> {
        self.store.at(slot).map(|_| ConnId(slot))
    }

    /// The conn, to be shown; `None` if its time is over.
    pub(crate) fn info(&self, id: ConnId, now: Tick) -> Option<View> {
        let conn = self.store.at(id.0).filter(|conn| conn.deadline > now)?;
        let flow = conn.flow();
        let opener = conn.opener();
        let [first, second] = conn.windows.ends;
        // Whether the SYN/ACK has reached the opener nobody has said yet. If it has, the next byte is expected; if not,
        // any number is right (RFC 9293 section 3.10.7.3).
        let first_expects = if conn.state == State::SynReceived { second.end } else { first.acked };
        let (first, second) = ((first_expects, first.end), (second.acked, second.end));
        let (guest, peer) = if opener == Direction::Out { (first, second) } else { (second, first) };
        let tcp = conn.state.can_be_reset().then_some(ResetView {
            guest_sequence: guest.0,
            guest_ack: guest.1,
            peer_sequence: peer.0,
            peer_ack: peer.1,
        });
        Some(View {
            flow,
            opener,
            state: conn.state.name(),
            admitted: conn.admitted(),
            remaining_ms: conn.deadline.since_ms(now),
            peer_mac: conn.peer_mac(),
            tcp,
        })
    }

    /// When the timers must be looked at next.
    pub(crate) fn next_due(&self) -> Option<Tick> {
        self.store.next_due()
    }

    /// Looks at one conn whose timer has come up.
    pub(crate) fn pop_due(&mut self, now: Tick) -> Due {
        let Some(place) = self.store.due(now) else { return Due::Nothing };
        match self.store.at(place) {
            Some(conn) if conn.deadline <= now => self.close(ConnId(place)).map_or(Due::Lives, Due::Closed),
            _ => {
                self.store.refile(place);
                Due::Lives
            }
        }
    }

    fn is_at(&self, place: u32, key: &Key, now: Tick) -> bool {
        self.store.at(place).is_some_and(|conn| conn.has(key) && conn.deadline > now)
    }
}

fn halves(key: [u8; 16]) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, rest @ ..] = key;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from_le_bytes(rest)]
}

#[cfg(test)]
mod tests;
