//! What becomes of a snapshot that may be anything: refused whole, or conns that could live.
//!
//! The way is LOAD's: checked, decoded, adopted by an engine with rules. It may know the promises of that way. It must
//! never know how the bytes came to be.

use std::sync::Arc;

use conn_snapshot::{Decoder, Key, SnapshotError};
use fw_engine::{Answers, Arrival, Config, ConnState, Engine, PortableConn, PreparedRules, Tick, Trust};
use fw_model::{Adoption, FlowKey, Protocol, RuleId};
use vhost_fw::handover::arrival;

use crate::sealing::SECRET;

/// Room of either table.
pub const ROOM: u32 = 64;
const NOW: Tick = Tick(1_000_000);
/// Longer than any conn lives without a frame.
const LATER_S: u32 = 20_000;
/// Its addresses.
const OWN: [&str; 2] = ["10.0.0.10", "2001:db8:0:1::10"];
const RULES: &str = "nic: {id: web-1, mac: \"52:54:00:00:00:01\", addresses: [10.0.0.10, \"2001:db8:0:1::10\"]}\n\
                     defaults: {out: drop, in: drop}\n\
                     limits: {half_open: 32}\n\
                     rules:\n\
                     - {id: web, direction: in, action: allow, protocol: any}\n\
                     - {id: db, direction: out, action: allow, protocol: any, on_revoke: drain}\n";

/// Two engines: one that takes what comes, and one that takes what the first has.
pub struct Landing {
    key: Key,
    first: Engine,
    second: Engine,
    answers: Answers,
    now: Tick,
}

/// What became of a snapshot.
#[derive(Debug)]
pub enum Landed {
    /// It was refused before the table was touched.
    Refused(SnapshotError),
    /// Each record found its end.
    Taken(Adoption),
}

impl Landing {
    /// Both engines with rules and no conn.
    ///
    /// # Panics
    /// The rules are none.
    #[must_use]
    #[expect(clippy::unwrap_used, reason = "rules of this file")]
    pub fn new() -> Self {
        let rules = vhost_fw::rules_file::parse(RULES, "rules", 0).unwrap();
        let rules = Arc::new(PreparedRules::new(rules).unwrap());
        let engine = |hash_key| {
            let mut engine = Engine::new(Config { conns: ROOM, fragments: 1 << 16, hash_key, mtu: 1500 });
            engine.install(Arc::clone(&rules), NOW);
            engine
        };
        let answers = Answers::with_capacity(1, 1 << 16);
        Self { key: Key::new(&SECRET), first: engine([1; 16]), second: engine([2; 16]), answers, now: NOW }
    }

    /// Takes a snapshot, or not.
    ///
    /// # Panics
    /// A promise is broken: a record that is neither adopted nor refused, a conn that could not live, one that never ends.
    pub fn take(&mut self, bytes: &[u8]) -> Landed {
        let checked = match Decoder::check(bytes, &self.key, u64::from(ROOM)) {
            Ok(checked) => checked,
            Err(refused) => return Landed::Refused(refused),
        };
        self.first.prepare(ROOM / 2);
        let mut adoption = Adoption::default();
        let mut records = 0;
        checked.visit(|chunk| {
            let arrivals: Vec<Arrival> = chunk.records.iter().map(arrival).collect();
            let piece = self.first.adopt(&arrivals, &chunk.rules, Trust::Exact, self.now);
            records += arrivals.len() as u64;
            adoption.kept += piece.kept;
            adoption.judged_again += piece.judged_again;
            for (reason, count) in piece.refused {
                *adoption.refused.entry(reason).or_default() += count;
            }
        });
        assert_eq!(records, checked.header().records, "a record that was checked was not met again");
        let adopted = adoption.kept + adoption.judged_again;
        assert_eq!(adopted + adoption.refused(), records, "{adoption:?}");
        self.hold_to_invariants(adopted);
        Landed::Taken(adoption)
    }

    fn hold_to_invariants(&mut self, adopted: u64) {
        let living = u64::from(self.first.living());
        // Never answered or half open, the oldest may have gone for a later one.
        assert!(living <= adopted && living <= u64::from(ROOM), "{living} live of {adopted}");
        let (arrivals, names) = export(&self.first, self.now);
        for Arrival { conn, .. } in &arrivals {
            assert!(could_live(conn), "this could not live: {conn:?}");
        }
        let again = self.second.adopt(&arrivals, &names, Trust::Exact, self.now);
        assert!(again.refused.is_empty(), "what lives here could not live there: {again:?} of {arrivals:?}");
        let (back, _) = export(&self.second, self.now);
        assert_eq!(arrivals, back, "a conn changed on its way");
        self.forget();
    }

    /// Everything ends: by its timers now and then, by being forgotten else.
    fn forget(&mut self) {
        if self.first.living() > 0 && self.now.0.is_multiple_of(64) {
            let later = self.now.after_s(LATER_S);
            for _ in 0..u32::from(u16::MAX) {
                if self.first.next_due().is_none_or(|due| due > later) {
                    break;
                }
                self.first.expire(later, &mut self.answers);
                self.answers.for_each_emission(|_, _, _| {});
            }
            assert_eq!(self.first.living(), 0, "a conn never ends");
            // The table's own clock never goes back.
            self.now = later;
        }
        self.first.forget_conns();
        self.second.forget_conns();
        assert_eq!(self.first.living() + self.second.living(), 0, "a conn was not forgotten");
        self.now = self.now.after_ms(1);
    }
}

impl Default for Landing {
    fn default() -> Self {
        Self::new()
    }
}

fn export(engine: &Engine, now: Tick) -> (Vec<Arrival>, Vec<RuleId>) {
    let names: Vec<RuleId> = engine
        .rules()
        .map(|rules| rules.rules.iter().map(|rule| rule.id.clone()).collect())
        .unwrap_or_default();
    let mut arrivals = Vec::new();
    engine.export(0..engine.slots(), now, |_, conn, rule| {
        let id = rule.and_then(|slot| engine.rule_id(slot));
        let rule = id.and_then(|id| names.iter().position(|name| name == id));
        arrivals.push(Arrival { conn: *conn, rule });
    });
    arrivals.sort_unstable_by_key(|arrival| arrival.conn.flow);
    (arrivals, names)
}

/// What a conn of this NIC is at least, said once more and apart from the engine: its own address, a peer of the same
/// family, ports as its protocol has them, a state of its protocol, no longer life than its state has, and windows
/// in which nobody acknowledges what was never sent.
fn could_live(conn: &PortableConn) -> bool {
    let FlowKey { local, remote, local_port, remote_port, protocol, vlan } = conn.flow;
    let own = OWN.iter().any(|own| *own == local.to_string());
    let is_tcp = protocol == Protocol::TCP;
    let ports = match (protocol, local.is_v4()) {
        (Protocol::TCP | Protocol::UDP, _) => local_port > 0 && remote_port > 0,
        (Protocol::ICMP, true) | (Protocol::ICMPV6, false) => local_port == 0 || remote_port == 0,
        (Protocol::ICMP, false) | (Protocol::ICMPV6, true) => false,
        _ => (local_port, remote_port) == (0, 0),
    };
    let (of_tcp, life_s) = match conn.state {
        ConnState::SynSent => (true, 120),
        ConnState::SynReceived => (true, 60),
        ConnState::Established => (true, 7_440),
        ConnState::FinWait | ConnState::TimeWait => (true, 120),
        ConnState::Close => (true, 10),
        ConnState::Asked => (false, 30),
        ConnState::Answered => (false, 120),
    };
    let ends_first = conn.ends_in_ms.is_none_or(|ends_in_ms| conn.remaining_ms <= ends_in_ms);
    let peer = remote != local && local.is_v4() == remote.is_v4();
    let mac = conn.peer_mac.0;
    let windows = conn.tcp.is_none_or(|tcp| {
        let [first, second] = tcp.ends;
        // The difference of two numbers is behind if its top bit is set (RFC 9293 section 3.4).
        let is_behind = |a: u32, b: u32| a == b || a.wrapping_sub(b) >> 31 == 1;
        let acked = is_behind(first.acked, second.end) && is_behind(second.acked, first.end);
        let small = tcp.ends.iter().all(|end| end.max_window <= 65_535 << 14);
        (acked || conn.state == ConnState::SynSent) && small
    });
    own && peer
        && vlan == 0
        && ports
        && of_tcp == is_tcp
        && conn.tcp.is_some() == is_tcp
        && windows
        && conn.remaining_ms <= life_s * 1_000
        && ends_first
        && mac[0] & 1 == 0
        && mac != [0x52, 0x54, 0, 0, 0, 1]
}
