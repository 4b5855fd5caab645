//! One remembered flow, in two cache lines.
//!
//! Knows what a conn is made of. Never knows where it is stored, nor how it moves.

use fw_model::{Addr, Direction, FlowKey, MacAddr, OnRevoke, Protocol, Timers};

use super::Admitted;
use super::tcp::Windows;
use super::timer::Links;
pub(crate) use crate::conn_state::ConnState as State;
use crate::time::Tick;
use crate::verdict::RuleSlot;

impl State {
    /// Whether the conn was never answered or is half open: such conns live in a pool of their own.
    pub(super) const fn is_unproven(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived | Self::Asked)
    }

    /// Whether a reset has anything to end at both ends. What has ended is left to its own timers (RFC 1337).
    pub(super) const fn can_be_reset(self) -> bool {
        matches!(self, Self::SynReceived | Self::Established | Self::FinWait)
    }

    /// How long it lives without a frame, in seconds.
    pub(super) fn life_s(self, protocol: Protocol, timers: &Timers) -> u32 {
        match self {
            Self::SynSent => timers.tcp_syn_sent,
            Self::SynReceived => timers.syn_received,
            Self::Established => timers.established,
            Self::FinWait => timers.fin_wait,
            Self::TimeWait => timers.time_wait,
            Self::Close => timers.close,
            Self::Asked | Self::Answered if matches!(protocol, Protocol::ICMP | Protocol::ICMPV6) => {
                timers.icmp
            }
            Self::Asked => timers.udp,
            Self::Answered => timers.udp_replied,
        }
    }
}

const NO_RULE: u32 = u32::MAX;
const BY_GUEST: u8 = 1;
const EXPECTED: u8 = 2;
const LOG: u8 = 4;
const LIVING: u8 = 8;
const DRAIN: u8 = 16;
const KEEP: u8 = 32;

/// A conn. The key and what every frame touches come first.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(super) struct Conn {
    local: [u64; 2],
    remote: [u64; 2],
    /// Ports, VLAN and protocol.
    rest: u64,
    pub(super) deadline: Tick,
    pub(super) windows: Windows,
    epoch: u32,
    rule: u32,
    pub(super) state: State,
    flags: u8,
    peer_mac: MacAddr,
    /// It ends then, whatever comes; the end of time if nothing says so.
    pub(super) ends_at: Tick,
    pub(super) timer: Links,
    pub(super) pool: Links,
}

const _: () = assert!(size_of::<Conn>() <= 128, "a conn is two cache lines");

impl Conn {
    /// None.
    pub(super) fn blank() -> Self {
        Self {
            local: [0; 2],
            remote: [0; 2],
            rest: 0,
            deadline: Tick(0),
            windows: Windows::default(),
            epoch: 0,
            rule: NO_RULE,
            state: State::Close,
            flags: 0,
            peer_mac: MacAddr([0; 6]),
            ends_at: Tick(u64::MAX),
            timer: Links::NONE,
            pool: Links::NONE,
        }
    }

    pub(super) fn new(
        flow: &FlowKey,
        opener: Direction,
        peer_mac: MacAddr,
        admitted: &Admitted,
        state: State,
        windows: Windows,
    ) -> Self {
        let Key { local, remote, rest } = Key::of(flow);
        let flags = LIVING | if opener == Direction::Out { BY_GUEST } else { 0 };
        let mut conn = Self { local, remote, rest, windows, state, flags, peer_mac, ..Self::blank() };
        conn.admit(admitted);
        conn
    }

    pub(super) fn is_of(&self, flow: &FlowKey) -> bool {
        self.has(&Key::of(flow))
    }

    #[inline]
    pub(super) fn has(&self, key: &Key) -> bool {
        let Key { local: [a, b], remote: [c, d], rest } = *key;
        let ([e, f], [g, h]) = (self.local, self.remote);
        // Without a branch between: nearly always all of it is the same.
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) | (rest ^ self.rest) == 0
    }

    pub(super) const fn is_living(&self) -> bool {
        self.flags & LIVING != 0
    }

    pub(super) const fn bury(&mut self) {
        self.flags &= !LIVING;
    }

    pub(super) fn flow(&self) -> FlowKey {
        let [low, high] = self.local;
        let local = Addr::from_bits(u128::from(low) | u128::from(high) << 64);
        let [low, high] = self.remote;
        let remote = Addr::from_bits(u128::from(low) | u128::from(high) << 64);
        let [a, b, c, d, e, f, protocol, _] = self.rest.to_be_bytes();
        FlowKey {
            local,
            remote,
            local_port: u16::from_be_bytes([a, b]),
            remote_port: u16::from_be_bytes([c, d]),
            protocol: Protocol(protocol),
            vlan: u16::from_be_bytes([e, f]),
        }
    }

    pub(super) const fn opener(&self) -> Direction {
        if self.flags & BY_GUEST != 0 { Direction::Out } else { Direction::In }
    }

    pub(super) const fn peer_mac(&self) -> MacAddr {
        self.peer_mac
    }

    pub(super) fn admitted(&self) -> Admitted {
        Admitted {
            rule: Some(RuleSlot(self.rule)).filter(|_| self.rule != NO_RULE),
            epoch: self.epoch,
            on_revoke: match self.flags & (DRAIN | KEEP) {
                DRAIN => OnRevoke::Drain,
                KEEP => OnRevoke::Keep,
                _ => OnRevoke::Kill,
            },
            expected: self.flags & EXPECTED != 0,
            log: self.flags & LOG != 0,
        }
    }

    pub(super) fn admit(&mut self, admitted: &Admitted) {
        self.rule = admitted.rule.map_or(NO_RULE, |slot| slot.0);
        self.epoch = admitted.epoch;
        let on_revoke = match admitted.on_revoke {
            OnRevoke::Kill => 0,
            OnRevoke::Drain => DRAIN,
            OnRevoke::Keep => KEEP,
        };
        let expected = if admitted.expected { EXPECTED } else { 0 };
        let log = if admitted.log { LOG } else { 0 };
        self.flags = self.flags & (BY_GUEST | LIVING) | on_revoke | expected | log;
    }
}

/// A flow's key as words: both addresses, then ports, VLAN and protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    pub(super) local: [u64; 2],
    pub(super) remote: [u64; 2],
    pub(super) rest: u64,
}

impl Key {
    /// Of no flow; to be written over.
    pub(crate) const BLANK: Self = Self { local: [0; 2], remote: [0; 2], rest: 0 };

    #[inline]
    pub(crate) fn of(flow: &FlowKey) -> Self {
        let words = |addr: Addr| {
            let bits = addr.bits();
            [u64::try_from(bits & u128::from(u64::MAX)).unwrap_or(0), u64::try_from(bits >> 64).unwrap_or(0)]
        };
        let ports = u64::from(flow.local_port) << 48 | u64::from(flow.remote_port) << 32;
        let rest = ports | u64::from(flow.vlan) << 16 | u64::from(flow.protocol.0) << 8;
        Self { local: words(flow.local), remote: words(flow.remote), rest }
    }

    /// Whether both addresses are IPv4's, in mapped form.
    #[inline]
    pub(super) const fn is_v4(&self) -> bool {
        let ([a, b], [c, d]) = (self.local, self.remote);
        b | d == 0 && a >> 32 == 0xffff && c >> 32 == 0xffff
    }
}
