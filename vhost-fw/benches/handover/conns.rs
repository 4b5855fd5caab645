//! Conns as a busy NIC has them, over the rules of the engine's benches.
//!
//! Nine of ten are established TCP conns with scaled windows and bytes in flight, the tenth is UDP. Knows what a conn is made of.
//! It must never know what is timed.

use fw_engine::{
    Arrival, Config, ConnState, Engine, PortableConn, PortableEnd, PortableTcp, PreparedRules, Tick, Trust,
};
use fw_model::{Addr, Direction, FlowKey, MacAddr, OnRevoke, Protocol, RuleId, RuleSet};

use crate::rules::{GUEST, SETS, Shuffled, port_of_rule, remote};

/// Rules, and addresses in their sets.
const RULES: u32 = 1_000;
const PREFIXES: u32 = 10_000;
const LOCAL_PORTS: u32 = 64_000;
/// MAC addresses the conns' other ends have: neighbours, and mostly a router.
const NEIGHBOURS: u32 = 20;

/// The rules, made ready.
pub(crate) fn rules() -> Result<RuleSet, String> {
    crate::rules::rules(RULES, PREFIXES)
}

/// An engine of `room` conns with the rules in force and no conn.
pub(crate) fn empty(rules: &std::sync::Arc<PreparedRules>, room: u32, hash_key: [u8; 16]) -> Engine {
    let config = Config { conns: room, fragments: Config::FRAGMENTS, hash_key, mtu: 1500 };
    let mut engine = Engine::new(config);
    engine.install(std::sync::Arc::clone(rules), Tick(0));
    engine
}

/// Fills an engine with `count` conns.
pub(crate) fn fill(engine: &mut Engine, names: &[RuleId], count: u32, now: Tick) -> Result<(), String> {
    let mut random = Shuffled { count: u32::MAX, state: 7 };
    let arrivals: Vec<Arrival> = (0..count).map(|number| arrival(number, &mut random)).collect();
    let adoption = engine.adopt(&arrivals, names, Trust::Exact, now);
    if adoption.kept == u64::from(count) { Ok(()) } else { Err(format!("{count} conns, but {adoption:?}")) }
}

fn arrival(number: u32, random: &mut Shuffled) -> Arrival {
    // Scattered, and no two conns of one local port at one address.
    let address = (number.wrapping_mul(7_919) % PREFIXES + number / LOCAL_PORTS) % PREFIXES;
    // Rules of one set name different ports.
    let rule = address % SETS + SETS * (number % (RULES / SETS));
    let protocol = if number.is_multiple_of(10) { Protocol::UDP } else { Protocol::TCP };
    let is_tcp = protocol == Protocol::TCP;
    let flow = FlowKey {
        local: Addr::v4(GUEST),
        remote: Addr::v4(remote(address)),
        local_port: u16::try_from(1_024 + number % LOCAL_PORTS).unwrap_or(u16::MAX),
        remote_port: port_of_rule(rule),
        protocol,
        vlan: 0,
    };
    let neighbour = u8::try_from(random.below() % NEIGHBOURS).unwrap_or(0);
    let conn = PortableConn {
        flow,
        opener: Direction::Out,
        peer_mac: MacAddr([0x52, 0x54, 0, 0, 1, if number.is_multiple_of(4) { neighbour } else { 0 }]),
        state: if is_tcp { ConnState::Established } else { ConnState::Answered },
        remaining_ms: u64::from(random.below()) % if is_tcp { 7_440_000 } else { 120_000 } + 1,
        ends_in_ms: None,
        on_revoke: OnRevoke::Kill,
        expected: false,
        tcp: is_tcp.then(|| tcp(random)),
    };
    Arrival { conn, rule: usize::try_from(rule).ok() }
}

fn tcp(random: &mut Shuffled) -> PortableTcp {
    let ends = [random.below(), random.below()];
    let flights = [random.below() % 3_000, random.below() % 60_000];
    let windows = [random.below(), random.below()].map(|window| 65_536 + window % 2_000_000);
    let [own, peer] = ends;
    let [own_flight, peer_flight] = flights;
    let [own_window, peer_window] = windows;
    let end = |end, acked, max_window, max_end| PortableEnd {
        end,
        max_end,
        max_window,
        acked,
        scale: Some(7),
        fin: false,
        resuming: false,
    };
    let own_acked = peer.wrapping_sub(peer_flight);
    let peer_acked = own.wrapping_sub(own_flight);
    PortableTcp {
        ends: [
            end(own, own_acked, own_window, peer_acked.wrapping_add(peer_window)),
            end(peer, peer_acked, peer_window, own_acked.wrapping_add(own_window)),
        ],
        awaited: 0,
        pending_scale: None,
        pending: false,
        challenged: false,
    }
}
