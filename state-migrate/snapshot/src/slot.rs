//! One conn in a fixed place, for a copy that follows the table while it lives.
//!
//! Written again and again, and read only after whoever wrote it is gone, perhaps in the middle of a write: so each slot
//! has two halves, a write goes to the older one, and the newer whole one counts. Knows a half's bytes. Never knows where
//! slots are kept.

use std::hash::Hasher;

use fw_model::{Addr, Direction, FlowKey, MacAddr, OnRevoke, Protocol};
use siphasher::sip::SipHasher13;

use crate::SnapshotError;
use crate::key::Key;
use crate::record::{Record, SavedEnd, SavedState, SavedTcp};
use crate::text::Input;

/// Bytes of a half: two cache lines.
pub const SLOT_LEN: usize = 128;

/// Stands for a rule's name where there is no room for one; 0 = the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleTag(pub u64);

/// What makes a half whole: a keyed hash over it.
#[derive(Debug, Clone, Copy)]
pub struct SlotKey([u8; 16]);

/// What a half holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedSlot {
    /// Rises with every write of the slot.
    pub sequence: u64,
    /// The conn and its rule's tag; `None` if the place is empty.
    pub conn: Option<(Record, RuleTag)>,
}

const LIVING: u8 = 1;
const BY_GUEST: u8 = 2;
const EXPECTED: u8 = 4;
const DRAIN: u8 = 8;
const KEEP: u8 = 16;
const TCP: u8 = 32;

const FIN: [u8; 2] = [1, 2];
const RESUMING: [u8; 2] = [4, 8];
const PENDING: u8 = 16;
const CHALLENGED: u8 = 32;

const NO_SCALE: u8 = 0xff;
const FOREVER: u64 = u64::MAX;

impl SlotKey {
    /// The key of one copy: it follows from the cluster's, if there is one, and from the copy's own `nonce`.
    #[must_use]
    pub fn new(key: Option<&Key>, nonce: &[u8; 32]) -> Self {
        let derived = match key {
            Some(key) => key.slot_key(nonce),
            None => blake3::derive_key("portcullis 2026 crash copy v1", nonce),
        };
        let mut half = [0; 16];
        for (to, from) in half.iter_mut().zip(derived) {
            *to = from;
        }
        Self(half)
    }

    /// The tag of a rule's name.
    #[must_use]
    pub fn tag(&self, rule: &str) -> RuleTag {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(rule.as_bytes());
        RuleTag(hasher.finish().max(1))
    }

    fn sum(&self, place: u32, bytes: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write_u32(place);
        hasher.write(bytes);
        hasher.finish()
    }
}

const fn pick(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

impl SavedSlot {
    /// The half's bytes, for the slot `place`. Lifetimes are written as moments of a clock that says `now_ms`: the reader
    /// must have the same clock.
    #[must_use]
    pub fn encode(&self, key: &SlotKey, place: u32, now_ms: u64) -> [u8; SLOT_LEN] {
        let mut out = [0; SLOT_LEN];
        let mut rest = out.as_mut_slice();
        put(&mut rest, &[0; 8]);
        put(&mut rest, &self.sequence.to_le_bytes());
        if let Some((record, rule)) = &self.conn {
            put_conn(&mut rest, record, *rule, now_ms);
        }
        let sum = key.sum(place, out.get(8..).unwrap_or_default());
        put(&mut out.as_mut_slice(), &sum.to_le_bytes());
        out
    }

    /// Reads a half of the slot `place`; `None` if it is not whole.
    #[must_use]
    pub fn decode(bytes: &[u8; SLOT_LEN], key: &SlotKey, place: u32, now_ms: u64) -> Option<Self> {
        let (sum, said) = bytes.split_first_chunk()?;
        if u64::from_le_bytes(*sum) != key.sum(place, said) {
            return None;
        }
        let mut input = Input::new(said, "slot");
        Self::read(&mut input, now_ms).ok()
    }

    fn read(input: &mut Input<'_>, now_ms: u64) -> Result<Self, SnapshotError> {
        let sequence = input.u64()?;
        let [flags, state, tcp_flags, protocol] = input.take()?;
        if flags & LIVING == 0 {
            return Ok(Self { sequence, conn: None });
        }
        let unknown = SnapshotError::Malformed("a slot has no state");
        let state = SavedState::ALL.get(usize::from(state)).copied().ok_or(unknown)?;
        let rule = RuleTag(input.u64()?);
        let (deadline, ends_at) = (input.u64()?, input.u64()?);
        let flow = FlowKey {
            local: Addr::from_bits(u128::from_le_bytes(input.take()?)),
            remote: Addr::from_bits(u128::from_le_bytes(input.take()?)),
            local_port: input.u16()?,
            remote_port: input.u16()?,
            protocol: Protocol(protocol),
            vlan: input.u16()?,
        };
        let peer_mac = MacAddr(input.take()?);
        let tcp = if flags & TCP != 0 { Some(read_tcp(input, tcp_flags)?) } else { None };
        let record = Record {
            flow,
            opener: if flags & BY_GUEST != 0 { Direction::Out } else { Direction::In },
            peer_mac,
            state,
            remaining_ms: deadline.saturating_sub(now_ms),
            ends_in_ms: (ends_at != FOREVER).then(|| ends_at.saturating_sub(now_ms)),
            on_revoke: match flags & (DRAIN | KEEP) {
                DRAIN => OnRevoke::Drain,
                KEEP => OnRevoke::Keep,
                _ => OnRevoke::Kill,
            },
            expected: flags & EXPECTED != 0,
            rule: None,
            tcp,
        };
        Ok(Self { sequence, conn: Some((record, rule)) })
    }
}

/// There is room for everything by construction: what a conn takes is less than a half.
fn put(rest: &mut &mut [u8], bytes: &[u8]) {
    if let Some((to, behind)) = std::mem::take(rest).split_at_mut_checked(bytes.len()) {
        to.copy_from_slice(bytes);
        *rest = behind;
    }
}

fn put_conn(rest: &mut &mut [u8], record: &Record, rule: RuleTag, now_ms: u64) {
    let on_revoke = match record.on_revoke {
        OnRevoke::Kill => 0,
        OnRevoke::Drain => DRAIN,
        OnRevoke::Keep => KEEP,
    };
    let flags = LIVING
        | pick(record.opener == Direction::Out, BY_GUEST)
        | pick(record.expected, EXPECTED)
        | pick(record.tcp.is_some(), TCP)
        | on_revoke;
    let tcp_flags = record.tcp.as_ref().map_or(0, tcp_flags);
    let FlowKey { local, remote, local_port, remote_port, protocol, vlan } = record.flow;
    put(rest, &[flags, record.state as u8, tcp_flags, protocol.0]);
    put(rest, &rule.0.to_le_bytes());
    put(rest, &now_ms.saturating_add(record.remaining_ms).to_le_bytes());
    let ends_at = record.ends_in_ms.map_or(FOREVER, |ends_in_ms| now_ms.saturating_add(ends_in_ms));
    put(rest, &ends_at.to_le_bytes());
    put(rest, &local.bits().to_le_bytes());
    put(rest, &remote.bits().to_le_bytes());
    for number in [local_port, remote_port, vlan] {
        put(rest, &number.to_le_bytes());
    }
    put(rest, &record.peer_mac.0);
    if let Some(tcp) = &record.tcp {
        for end in tcp.ends {
            for number in [end.end, end.max_end, end.max_window, end.acked] {
                put(rest, &number.to_le_bytes());
            }
        }
        let [opener, answerer] = tcp.ends;
        let scale = |scale: Option<u8>| scale.unwrap_or(NO_SCALE);
        put(rest, &[scale(opener.scale), scale(answerer.scale), scale(tcp.pending_scale)]);
        put(rest, &tcp.awaited.to_le_bytes());
    }
}

fn tcp_flags(tcp: &SavedTcp) -> u8 {
    let [opener, answerer] = tcp.ends;
    let ([fin_opener, fin_answerer], [resuming_opener, resuming_answerer]) = (FIN, RESUMING);
    pick(opener.fin, fin_opener)
        | pick(answerer.fin, fin_answerer)
        | pick(opener.resuming, resuming_opener)
        | pick(answerer.resuming, resuming_answerer)
        | pick(tcp.pending, PENDING)
        | pick(tcp.challenged, CHALLENGED)
}

fn read_tcp(input: &mut Input<'_>, flags: u8) -> Result<SavedTcp, SnapshotError> {
    let mut read = || -> Result<[u32; 4], SnapshotError> {
        Ok([input.u32()?, input.u32()?, input.u32()?, input.u32()?])
    };
    let (opener, answerer) = (read()?, read()?);
    let [first, second, pending_scale] = input.take()?;
    let scale = |scale: u8| (scale != NO_SCALE).then_some(scale);
    let ([fin_opener, fin_answerer], [resuming_opener, resuming_answerer]) = (FIN, RESUMING);
    let end = |[end, max_end, max_window, acked]: [u32; 4], own: u8, fin: u8, resuming: u8| SavedEnd {
        end,
        max_end,
        max_window,
        acked,
        scale: scale(own),
        fin: flags & fin != 0,
        resuming: flags & resuming != 0,
    };
    Ok(SavedTcp {
        ends: [
            end(opener, first, fin_opener, resuming_opener),
            end(answerer, second, fin_answerer, resuming_answerer),
        ],
        awaited: input.u32()?,
        pending_scale: scale(pending_scale),
        pending: flags & PENDING != 0,
        challenged: flags & CHALLENGED != 0,
    })
}
