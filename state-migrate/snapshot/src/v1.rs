//! Version 1 of a record, field by field (docs/snapshot-format.md).
//!
//! What two records of a chunk share stands once in its dictionaries; what follows from other fields is written as the
//! difference. Knows this version's bytes. Never knows a chunk's frame, nor another version.

use fw_model::{Addr, Direction, FlowKey, MacAddr, OnRevoke, Protocol};

use crate::SnapshotError;
use crate::record::{Record, SavedEnd, SavedState, SavedTcp};
use crate::text::{Input, put_number};

const BY_GUEST: u8 = 1 << 3;
const DRAIN: u8 = 1 << 4;
const KEEP: u8 = 1 << 5;
const EXPECTED: u8 = 1 << 6;
const RULE: u8 = 1 << 7;

const PROTOCOLS: u8 = 0b11;
const TCP: u8 = 0;
const UDP: u8 = 1;
const ECHO: u8 = 2;
const OTHER: u8 = 3;
const VLAN: u8 = 1 << 2;
const ENDS: u8 = 1 << 3;
const FIN: [u8; 2] = [1 << 4, 1 << 5];
const RARE: u8 = 1 << 6;
const UNUSED: u8 = 1 << 7;

const PENDING: u8 = 1;
const CHALLENGED: u8 = 2;
const RESUMING: [u8; 2] = [4, 8];
const PENDING_SCALE: u8 = 0xf0;

/// No window scale, in four bits.
const NO_SCALE: u8 = 15;
/// The largest shift.
const SCALE_MAX: u8 = 14;

/// The shortest record: flags, another protocol's number, three places or lengths, an IPv4 address.
const RECORD_MIN: u64 = 2 + 1 + 1 + 4 + 1 + 1;
/// The shortest flow that is gone: flags, a protocol's number, a place, an IPv4 address.
const GONE_MIN: u64 = 1 + 1 + 1 + 4;

/// Bytes that so many records and gone flows have at least.
pub(crate) const fn length_min(records: u64, gone: u64) -> u64 {
    records.saturating_mul(RECORD_MIN).saturating_add(gone.saturating_mul(GONE_MIN))
}

/// Where a record's shared parts stand in its chunk's dictionaries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared {
    pub(crate) local: usize,
    pub(crate) mac: usize,
    pub(crate) rule: Option<usize>,
}

/// A chunk's dictionaries, for reading.
pub(crate) struct Dictionaries<'d> {
    pub(crate) locals: &'d [Addr],
    pub(crate) macs: &'d [MacAddr],
    pub(crate) rules: usize,
}

const fn pick(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn number(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Appends a record.
pub(crate) fn put_record(out: &mut Vec<u8>, record: &Record, shared: Shared) {
    let Record { flow, tcp, .. } = record;
    let on_revoke = match record.on_revoke {
        OnRevoke::Kill => 0,
        OnRevoke::Drain => DRAIN,
        OnRevoke::Keep => KEEP,
    };
    let first = record.state as u8
        | pick(record.opener == Direction::Out, BY_GUEST)
        | on_revoke
        | pick(record.expected, EXPECTED)
        | pick(shared.rule.is_some(), RULE);
    let rare = tcp.as_ref().map_or(0, rare_of);
    let [opener, answerer] = tcp.map_or([false; 2], |tcp| tcp.ends.map(|end| end.fin));
    let [fin_opener, fin_answerer] = FIN;
    let second = kind_of(flow)
        | pick(flow.vlan != 0, VLAN)
        | pick(record.ends_in_ms.is_some(), ENDS)
        | pick(opener, fin_opener)
        | pick(answerer, fin_answerer)
        | pick(rare != 0, RARE);
    out.extend_from_slice(&[first, second]);
    put_flow(out, flow, shared.local);
    put_number(out, number(shared.mac));
    if let Some(rule) = shared.rule {
        put_number(out, number(rule));
    }
    put_number(out, record.remaining_ms);
    if let Some(ends_in_ms) = record.ends_in_ms {
        put_number(out, ends_in_ms);
    }
    if let Some(tcp) = tcp {
        put_tcp(out, tcp, rare);
    }
}

/// Appends a flow whose conn is gone.
pub(crate) fn put_gone(out: &mut Vec<u8>, flow: &FlowKey, local: usize) {
    out.push(kind_of(flow) | pick(flow.vlan != 0, VLAN));
    put_flow(out, flow, local);
}

const fn kind_of(flow: &FlowKey) -> u8 {
    match flow.protocol {
        Protocol::TCP => TCP,
        Protocol::UDP => UDP,
        Protocol::ICMP if flow.local.is_v4() => ECHO,
        Protocol::ICMPV6 if !flow.local.is_v4() => ECHO,
        Protocol(_) => OTHER,
    }
}

fn put_flow(out: &mut Vec<u8>, flow: &FlowKey, local: usize) {
    if kind_of(flow) == OTHER {
        out.push(flow.protocol.0);
    } else {
        out.extend_from_slice(&flow.local_port.to_le_bytes());
        out.extend_from_slice(&flow.remote_port.to_le_bytes());
    }
    if flow.vlan != 0 {
        out.extend_from_slice(&flow.vlan.to_le_bytes());
    }
    put_number(out, number(local));
    put_addr(out, flow.remote);
}

/// Four bytes of an IPv4 address, or sixteen: which, the local address tells.
pub(crate) fn put_addr(out: &mut Vec<u8>, addr: Addr) {
    let bytes = addr.bits().to_be_bytes();
    let [.., a, b, c, d] = bytes;
    if addr.is_v4() { out.extend_from_slice(&[a, b, c, d]) } else { out.extend_from_slice(&bytes) }
}

fn rare_of(tcp: &SavedTcp) -> u8 {
    let [opener, answerer] = tcp.ends;
    let [resuming_opener, resuming_answerer] = RESUMING;
    let bits = pick(tcp.pending, PENDING)
        | pick(tcp.challenged, CHALLENGED)
        | pick(opener.resuming, resuming_opener)
        | pick(answerer.resuming, resuming_answerer);
    let waits = tcp.pending || tcp.challenged;
    if bits == 0 { 0 } else { bits | if waits { nibble(tcp.pending_scale) << 4 } else { PENDING_SCALE } }
}

fn nibble(scale: Option<u8>) -> u8 {
    scale.map_or(NO_SCALE, |scale| scale.min(SCALE_MAX))
}

fn put_tcp(out: &mut Vec<u8>, tcp: &SavedTcp, rare: u8) {
    let [opener, answerer] = tcp.ends;
    out.push(nibble(opener.scale) | nibble(answerer.scale) << 4);
    if rare != 0 {
        out.push(rare);
        if rare & (PENDING | CHALLENGED) != 0 {
            out.extend_from_slice(&tcp.awaited.to_le_bytes());
        }
    }
    for (end, other) in [(opener, answerer), (answerer, opener)] {
        out.extend_from_slice(&end.end.to_le_bytes());
        put_number(out, end.max_window.into());
        // What an end has acknowledged lags little behind what the other has sent.
        put_number(out, other.end.wrapping_sub(end.acked).into());
        // It may mostly send as far as the other's acknowledgement and largest window reach.
        put_number(out, reach(other).wrapping_sub(end.max_end).into());
    }
}

const fn reach(end: SavedEnd) -> u32 {
    end.acked.wrapping_add(end.max_window)
}

/// Reads a record.
#[inline(always)]
pub(crate) fn record(input: &mut Input<'_>, known: &Dictionaries<'_>) -> Result<Record, SnapshotError> {
    let [first, second] = input.take()?;
    if second & UNUSED != 0 || first & (DRAIN | KEEP) == DRAIN | KEEP {
        return Err(SnapshotError::Malformed("a record has flags that mean nothing"));
    }
    let state = SavedState::ALL.get(usize::from(first & 7)).copied();
    let state = state.ok_or(SnapshotError::Malformed("a record has no state"))?;
    let flow = flow(input, second, known)?;
    let mac = place(input, known.macs.len())?;
    let peer_mac = known.macs.get(mac).copied().ok_or(NO_ENTRY)?;
    let rule = if first & RULE != 0 { Some(place(input, known.rules)?) } else { None };
    let remaining_ms = input.number()?;
    let ends_in_ms = if second & ENDS != 0 { Some(input.number()?) } else { None };
    let tcp = if flow.protocol == Protocol::TCP { Some(self::tcp(input, second)?) } else { None };
    let [fin_opener, fin_answerer] = FIN;
    if tcp.is_none() && second & (fin_opener | fin_answerer | RARE) != 0 {
        return Err(SnapshotError::Malformed("a record has flags that mean nothing"));
    }
    Ok(Record {
        flow,
        opener: if first & BY_GUEST != 0 { Direction::Out } else { Direction::In },
        peer_mac,
        state,
        remaining_ms,
        ends_in_ms,
        on_revoke: match first & (DRAIN | KEEP) {
            DRAIN => OnRevoke::Drain,
            KEEP => OnRevoke::Keep,
            _ => OnRevoke::Kill,
        },
        expected: first & EXPECTED != 0,
        rule: rule.and_then(|rule| u32::try_from(rule).ok()),
        tcp,
    })
}

/// Reads a flow whose conn is gone.
pub(crate) fn gone(input: &mut Input<'_>, known: &Dictionaries<'_>) -> Result<FlowKey, SnapshotError> {
    let kind = input.u8()?;
    if kind & !(PROTOCOLS | VLAN) != 0 {
        return Err(SnapshotError::Malformed("a flow has flags that mean nothing"));
    }
    flow(input, kind, known)
}

const NO_ENTRY: SnapshotError = SnapshotError::Malformed("a record names an entry its dictionary lacks");

#[inline(always)]
fn place(input: &mut Input<'_>, entries: usize) -> Result<usize, SnapshotError> {
    usize::try_from(input.number()?).ok().filter(|place| *place < entries).ok_or(NO_ENTRY)
}

#[inline(always)]
fn flow(input: &mut Input<'_>, kind: u8, known: &Dictionaries<'_>) -> Result<FlowKey, SnapshotError> {
    let protocol = if kind & PROTOCOLS == OTHER { Some(Protocol(input.u8()?)) } else { None };
    let (local_port, remote_port) = if protocol.is_none() { (input.u16()?, input.u16()?) } else { (0, 0) };
    let vlan = if kind & VLAN != 0 { input.u16()? } else { 0 };
    if kind & VLAN != 0 && !(1..=4094).contains(&vlan) {
        return Err(SnapshotError::Malformed("a record has an impossible VLAN"));
    }
    let local = place(input, known.locals.len())?;
    let local = known.locals.get(local).copied().ok_or(NO_ENTRY)?;
    let remote = addr(input, local.is_v4())?;
    let protocol = match kind & PROTOCOLS {
        TCP => Protocol::TCP,
        UDP => Protocol::UDP,
        ECHO if local.is_v4() => Protocol::ICMP,
        ECHO => Protocol::ICMPV6,
        _ => protocol.unwrap_or(Protocol(0)),
    };
    let flow = FlowKey { local, remote, local_port, remote_port, protocol, vlan };
    if kind_of(&flow) == kind & PROTOCOLS {
        Ok(flow)
    } else {
        Err(SnapshotError::Malformed("a record spells its protocol another way"))
    }
}

#[inline(always)]
pub(crate) fn addr(input: &mut Input<'_>, v4: bool) -> Result<Addr, SnapshotError> {
    if v4 {
        return input.take().map(Addr::v4);
    }
    let addr = Addr::v6(input.take()?);
    if addr.is_v4() {
        return Err(SnapshotError::Malformed("an IPv6 address is an IPv4 one"));
    }
    Ok(addr)
}

#[inline(always)]
fn tcp(input: &mut Input<'_>, second: u8) -> Result<SavedTcp, SnapshotError> {
    let scales = input.u8()?;
    let rare = if second & RARE != 0 { Some(input.u8()?) } else { None };
    let bits = rare.unwrap_or(0) & !PENDING_SCALE;
    let waits = bits & (PENDING | CHALLENGED) != 0;
    let scale = |nibble: u8| (nibble != NO_SCALE).then_some(nibble);
    let pending_scale = rare.map_or(NO_SCALE, |rare| rare >> 4);
    if rare.is_some() && (bits == 0 || (!waits && pending_scale != NO_SCALE)) {
        return Err(SnapshotError::Malformed("a record spells a rare state that is none"));
    }
    let awaited = if waits { input.u32()? } else { 0 };
    let opener = Windows::read(input)?;
    let answerer = Windows::read(input)?;
    let [fin_opener, fin_answerer] = FIN;
    let [resuming_opener, resuming_answerer] = RESUMING;
    let opener_acked = answerer.end.wrapping_sub(opener.lag);
    let answerer_acked = opener.end.wrapping_sub(answerer.lag);
    let end = |own: Windows, acked: u32, reach: u32, nibble: u8, fin: u8, resuming: u8| SavedEnd {
        end: own.end,
        max_end: reach.wrapping_sub(own.short),
        max_window: own.max_window,
        acked,
        scale: scale(nibble),
        fin: second & fin != 0,
        resuming: bits & resuming != 0,
    };
    let opener_reach = opener_acked.wrapping_add(opener.max_window);
    let answerer_reach = answerer_acked.wrapping_add(answerer.max_window);
    Ok(SavedTcp {
        ends: [
            end(opener, opener_acked, answerer_reach, scales & 0xf, fin_opener, resuming_opener),
            end(answerer, answerer_acked, opener_reach, scales >> 4, fin_answerer, resuming_answerer),
        ],
        awaited,
        pending_scale: scale(pending_scale),
        pending: bits & PENDING != 0,
        challenged: bits & CHALLENGED != 0,
    })
}

/// One end as it is written.
#[derive(Clone, Copy)]
struct Windows {
    end: u32,
    max_window: u32,
    /// How far its acknowledgement lags behind what the other end has sent.
    lag: u32,
    /// How much less it may send than the other's acknowledgement and window would let it.
    short: u32,
}

impl Windows {
    #[inline(always)]
    fn read(input: &mut Input<'_>) -> Result<Self, SnapshotError> {
        Ok(Self {
            end: input.u32()?,
            max_window: input.number32()?,
            lag: input.number32()?,
            short: input.number32()?,
        })
    }
}
