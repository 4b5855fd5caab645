use std::collections::BTreeMap;

use fw_model::{Addr, Protocol};

use super::*;
use crate::headers::{Icmp, Tcp, TcpFlags, Udp};

const FIN: u8 = TcpFlags::FIN;
const SYN: u8 = TcpFlags::SYN;
const RST: u8 = TcpFlags::RST;
const ACK: u8 = TcpFlags::ACK;

fn flow(protocol: Protocol, remote_port: u16) -> FlowKey {
    FlowKey {
        local: Addr::v4([10, 0, 0, 10]),
        remote: Addr::v4([198, 51, 100, 7]),
        local_port: 40_000,
        remote_port,
        protocol,
        vlan: 0,
    }
}

fn segment(flags: u8, sequence: u32, acknowledgement: u32, payload: u32) -> L4 {
    L4::Tcp(Tcp {
        source_port: 40_000,
        destination_port: 443,
        sequence,
        acknowledgement,
        flags: TcpFlags(flags),
        window: 64_240,
        window_scale: (flags & SYN != 0).then_some(7),
        payload,
        header: 20,
    })
}

fn datagram() -> L4 {
    L4::Udp(Udp { source_port: 40_000, destination_port: 53, checksum: 0, dhcp: None })
}

/// A table with one flow, asked frame by frame.
struct Script {
    table: Table,
    flow: FlowKey,
    opener: Direction,
    now: Tick,
}

impl Script {
    fn new(protocol: Protocol) -> Self {
        Self {
            table: Table::new(64, 16, [9; 16]),
            flow: flow(protocol, 443),
            opener: Direction::Out,
            now: Tick(0),
        }
    }

    fn opening(&self, flow: FlowKey) -> Opening {
        Opening {
            flow,
            hash: self.table.hash(&flow),
            opener: self.opener,
            peer_mac: MacAddr([2; 6]),
            admitted: Admitted {
                rule: None,
                epoch: 1,
                on_revoke: OnRevoke::Kill,
                expected: false,
                log: false,
            },
        }
    }

    fn open(&mut self, l4: &L4) -> &mut Self {
        let opening = self.opening(self.flow);
        assert_eq!(self.table.open(&opening, l4, self.now, &Timers::DEFAULT), Ok(None));
        self
    }

    fn step(&mut self, direction: Direction, l4: &L4) -> Result<&'static str, Step> {
        self.now = self.now.after_ms(1);
        let id = self
            .table
            .find(&self.flow, self.table.hash(&self.flow), self.now)
            .ok_or(Step::Refuse(Reason::NoConn))?;
        match self.table.step(id, direction, l4, self.now, &Timers::DEFAULT) {
            Step::Pass => Ok(self.state()),
            refused @ (Step::Refuse(_) | Step::Reopen) => Err(refused),
        }
    }

    fn out(&mut self, l4: L4) -> Result<&'static str, Step> {
        self.step(Direction::Out, &l4)
    }

    fn in_(&mut self, l4: L4) -> Result<&'static str, Step> {
        self.step(Direction::In, &l4)
    }

    fn view(&self) -> Option<View> {
        let id = self.table.find(&self.flow, self.table.hash(&self.flow), self.now)?;
        self.table.info(id, self.now)
    }

    fn state(&self) -> &'static str {
        self.view().map_or("none", |view| view.state)
    }

    fn remaining_s(&self) -> u64 {
        self.view().map_or(0, |view| view.remaining_ms.div_ceil(1000))
    }

    fn established() -> Self {
        let mut script = Self::new(Protocol::TCP);
        script.open(&segment(SYN, 1000, 0, 0));
        assert_eq!(script.in_(segment(SYN | ACK, 5000, 1001, 0)), Ok("syn-received"));
        assert_eq!(script.out(segment(ACK, 1001, 5001, 0)), Ok("established"));
        script
    }
}

const STATE: Step = Step::Refuse(Reason::TcpState);
const WINDOW: Step = Step::Refuse(Reason::TcpWindow);

#[test]
fn every_state_has_its_timer() {
    let mut script = Script::new(Protocol::TCP);
    script.open(&segment(SYN, 1000, 0, 0));
    assert_eq!(script.remaining_s(), 120);
    script.in_(segment(SYN | ACK, 5000, 1001, 0)).unwrap();
    assert_eq!(script.remaining_s(), 60);
    script.out(segment(ACK, 1001, 5001, 0)).unwrap();
    assert_eq!(script.remaining_s(), 7440);
    assert_eq!(script.in_(segment(FIN | ACK, 5001, 1001, 0)), Ok("fin-wait"));
    assert_eq!(script.remaining_s(), 120);
    script.out(segment(FIN | ACK, 1001, 5002, 0)).unwrap();
    assert_eq!(script.in_(segment(ACK, 5002, 1002, 0)), Ok("time-wait"));
    assert_eq!(script.remaining_s(), 120);
    script.now = script.now.after_s(121);
    assert_eq!(script.state(), "none");
}

#[test]
fn nobody_opens_a_conn_alone() {
    let mut guest = Script::new(Protocol::TCP);
    guest.open(&segment(SYN, 1000, 0, 0));
    assert_eq!(guest.out(segment(ACK, 1001, 5001, 0)), Err(STATE));
    assert_eq!(guest.out(segment(ACK, 1001, 5001, 10)), Err(STATE));
    assert_eq!((guest.state(), guest.remaining_s()), ("syn-sent", 120));
}

#[test]
fn a_split_handshake_gets_nowhere() {
    let mut script = Script::new(Protocol::TCP);
    script.open(&segment(SYN, 1000, 0, 0));
    assert_eq!(script.in_(segment(ACK, 5000, 1001, 0)), Err(STATE));
    assert_eq!(script.in_(segment(SYN, 5000, 0, 0)), Err(STATE));
    assert_eq!(script.out(segment(SYN | ACK, 1000, 5001, 0)), Err(STATE));
    assert_eq!(script.state(), "syn-sent");
}

#[test]
fn a_challenge_in_syn_sent_is_answered_and_the_conn_opens_after_all() {
    let mut script = Script::new(Protocol::TCP);
    script.open(&segment(SYN, 1000, 0, 0));
    assert_eq!(script.in_(segment(ACK, 145_824_453, 643_160_523, 0)), Ok("syn-sent"));
    assert_eq!(script.out(segment(RST, 643_160_523, 0, 0)), Ok("syn-sent"));
    assert_eq!(script.out(segment(RST, 643_160_524, 0, 0)), Err(WINDOW));
    assert_eq!(script.out(segment(SYN, 1000, 0, 0)), Ok("syn-sent"));
    assert_eq!(script.in_(segment(SYN | ACK, 5000, 1001, 0)), Ok("syn-received"));
    assert_eq!(script.out(segment(ACK, 1001, 5001, 0)), Ok("established"));
}

#[test]
fn a_refused_opening_closes_only_by_the_right_acknowledgement() {
    let mut script = Script::new(Protocol::TCP);
    script.open(&segment(SYN, 1000, 0, 0));
    assert_eq!(script.in_(segment(RST | ACK, 0, 999, 0)), Err(WINDOW));
    assert_eq!(script.in_(segment(RST, 0, 0, 0)), Err(WINDOW));
    assert_eq!(script.in_(segment(RST | ACK, 0, 1001, 0)), Ok("close"));
    assert_eq!(script.remaining_s(), 10);
}

#[test]
fn segments_out_of_window_change_nothing() {
    let mut script = Script::established();
    let before = script.view().map(|view| (view.tcp, view.remaining_ms));
    for far in [0x4000_0000_u32, 0xc000_0000] {
        assert_eq!(script.in_(segment(ACK, 5001_u32.wrapping_add(far), 1001, 4)), Err(WINDOW));
        assert_eq!(script.in_(segment(ACK, 5001, 1001_u32.wrapping_add(far), 4)), Err(WINDOW));
        assert_eq!(script.in_(segment(RST, 5001_u32.wrapping_add(far), 0, 0)), Err(WINDOW));
    }
    let after = script.view().map(|view| (view.tcp, view.remaining_ms + 6));
    assert_eq!(before, after);
}

#[test]
fn only_an_exact_reset_ends_a_conn_at_once() {
    let mut script = Script::established();
    assert_eq!(script.in_(segment(RST, 5100, 0, 0)), Ok("established"), "in window: the guest will ask back");
    assert_eq!(script.remaining_s(), 10);
    assert_eq!(script.out(segment(ACK, 1001, 5001, 0)), Ok("established"), "the challenge restores it");
    assert_eq!(script.remaining_s(), 7440);
    assert_eq!(script.in_(segment(RST, 5001, 0, 0)), Ok("close"));
}

#[test]
fn an_opener_that_rebooted_gets_in_again() {
    let mut script = Script::established();
    assert_eq!(script.in_(segment(SYN, 777, 0, 0)), Err(STATE), "not the opener");
    assert_eq!(script.out(segment(SYN, 900_000, 0, 0)), Ok("established"));
    assert_eq!(
        script.in_(segment(ACK, 5001, 1001, 0)),
        Ok("established"),
        "a challenge: the conn is known there"
    );
    assert_eq!(script.out(segment(RST, 1001, 0, 0)), Ok("close"));
    assert_eq!(script.out(segment(SYN, 900_000, 0, 0)), Err(Step::Reopen));
}

#[test]
fn an_answerer_that_forgot_accepts_a_new_incarnation() {
    let mut script = Script::established();
    assert_eq!(script.out(segment(SYN, 900_000, 0, 0)), Ok("established"));
    assert_eq!(script.in_(segment(SYN | ACK, 70_000, 4, 0)), Err(STATE));
    assert_eq!(script.in_(segment(SYN | ACK, 70_000, 900_001, 0)), Ok("syn-received"));
    assert_eq!(script.table.store.unproven(), 1);
    assert_eq!(script.out(segment(ACK, 900_001, 70_001, 0)), Ok("established"));
    assert_eq!(script.out(segment(ACK, 900_001, 70_001, 1000)), Ok("established"));
    assert_eq!(script.table.store.unproven(), 0);
}

#[test]
fn a_time_wait_conn_takes_only_what_was_said_before() {
    let mut script = Script::established();
    script.out(segment(FIN | ACK, 1001, 5001, 0)).unwrap();
    script.in_(segment(FIN | ACK, 5001, 1002, 0)).unwrap();
    assert_eq!(script.out(segment(ACK, 1002, 5002, 0)), Ok("time-wait"));
    assert_eq!(script.in_(segment(ACK, 5002, 1002, 40)), Err(STATE));
    assert_eq!(script.in_(segment(FIN | ACK, 5001, 1002, 0)), Ok("time-wait"));
    assert_eq!(script.out(segment(SYN, 900, 0, 0)), Err(STATE), "an old SYN");
    assert_eq!(script.out(segment(SYN, 90_000, 0, 0)), Err(Step::Reopen));
}

#[test]
fn scaling_counts_only_if_both_ends_offer_it() {
    let mut script = Script::new(Protocol::TCP);
    script.open(&segment(SYN, 1000, 0, 0));
    let L4::Tcp(syn_ack) = segment(SYN | ACK, 5000, 1001, 0) else { unreachable!() };
    script.in_(L4::Tcp(Tcp { window_scale: None, ..syn_ack })).unwrap();
    script.out(segment(ACK, 1001, 5001, 0)).unwrap();
    assert_eq!(script.in_(segment(ACK, 5001 + 600_000, 1001, 4)), Err(WINDOW));
    assert_eq!(Script::established().in_(segment(ACK, 5001 + 600_000, 1001, 4)), Ok("established"));
}

#[test]
fn a_datagram_conn_is_answered_by_the_other_end() {
    let mut script = Script::new(Protocol::UDP);
    script.open(&datagram());
    assert_eq!(script.out(datagram()), Ok("asked"));
    assert_eq!((script.remaining_s(), script.table.store.unproven()), (30, 1));
    assert_eq!(script.in_(datagram()), Ok("answered"));
    assert_eq!((script.remaining_s(), script.table.store.unproven()), (120, 0));
}

#[test]
fn echoes_go_one_way_and_replies_the_other() {
    let echo = |message| L4::Icmp(Icmp { kind: 8, code: 0, message });
    let mut script = Script::new(Protocol::ICMP);
    script.open(&echo(IcmpMessage::EchoRequest { id: 7 }));
    assert_eq!(script.out(echo(IcmpMessage::EchoReply { id: 7 })), Err(Step::Refuse(Reason::NoConn)));
    assert_eq!(script.in_(echo(IcmpMessage::EchoReply { id: 7 })), Ok("answered"));
    assert_eq!(script.remaining_s(), 30);
    assert_eq!(Table::cannot_open(&echo(IcmpMessage::EchoReply { id: 7 })), Some(Reason::NoConn));
}

#[test]
fn an_error_must_quote_what_was_sent_lately() {
    let script = Script::established();
    let quote = |sequence, local_port| Quote {
        source: script.flow.local,
        destination: script.flow.remote,
        protocol: Protocol::TCP,
        source_port: local_port,
        destination_port: 443,
        sequence: Some(sequence),
    };
    let ask = |quote: Quote, direction| script.table.related(&quote, direction, 0, script.now).map(|_| ());
    assert_eq!(ask(quote(1001, 40_000), Direction::In), Ok(()));
    assert_eq!(ask(quote(1001 + 100_000_000, 40_000), Direction::In), Err(Reason::Unrelated));
    assert_eq!(ask(quote(1001_u32.wrapping_sub(100_000_000), 40_000), Direction::In), Err(Reason::Unrelated));
    assert_eq!(ask(quote(1001, 40_001), Direction::In), Err(Reason::Unrelated));
    assert_eq!(ask(quote(1001, 40_000), Direction::Out), Err(Reason::Unrelated));
    assert_eq!(
        script.table.related(&quote(1001, 40_000), Direction::In, 7, script.now),
        Err(Reason::Unrelated)
    );
}

#[test]
fn a_flood_of_first_frames_evicts_its_like_and_nothing_else() {
    let mut script = Script::established();
    for port in 1000..2000 {
        let opening = script.opening(flow(Protocol::UDP, port));
        let gone = script.table.open(&opening, &datagram(), script.now, &Timers::DEFAULT);
        assert_eq!(gone.map(|gone| gone.is_some()), Ok(port >= 1016), "16 unproven conns are kept");
        assert_eq!(script.table.len(), 1 + u32::from(port - 999).min(16));
    }
    assert_eq!(script.state(), "established");
}

#[test]
fn a_table_full_of_established_conns_refuses_the_next() {
    let mut script = Script::new(Protocol::UDP);
    for port in 0..64 {
        script.flow = flow(Protocol::UDP, 1000 + port);
        script.open(&datagram());
        script.in_(datagram()).unwrap();
    }
    let opening = script.opening(flow(Protocol::UDP, 9));
    let refused = script.table.open(&opening, &datagram(), script.now, &Timers::DEFAULT);
    assert_eq!(refused, Err(Reason::TableFull));
    assert_eq!(script.table.len(), 64);
}

#[test]
fn a_draining_conn_ends_whatever_comes() {
    let mut script = Script::established();
    let id = script.table.find(&script.flow, script.table.hash(&script.flow), script.now).unwrap();
    script.table.drain(id, script.now);
    script.now = script.now.after_s(200);
    assert_eq!(script.out(segment(ACK, 1001, 5001, 0)), Ok("established"));
    assert_eq!(script.remaining_s(), 100);
}

#[test]
fn the_table_follows_a_map_through_random_times() {
    let mut random = 1_u64;
    let mut next = |limit: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % limit
    };
    let mut script = Script::new(Protocol::UDP);
    script.table = Table::new(512, 512, [1; 16]);
    let mut map: BTreeMap<u16, u64> = BTreeMap::new();
    for _ in 0..100_000 {
        let jump = if next(50) == 0 { 60_000 } else { 40 };
        script.now = script.now.after_ms(next(jump));
        while script.table.pop_due(script.now) != Due::Nothing {}
        map.retain(|_, deadline| *deadline > script.now.0);
        let port = u16::try_from(next(400)).unwrap();
        let key = flow(Protocol::UDP, port);
        match script.table.find(&key, script.table.hash(&key), script.now) {
            Some(id) if next(4) == 0 => {
                script.table.close(id);
                assert!(map.remove(&port).is_some());
            }
            Some(id) => {
                script.table.step(id, Direction::Out, &datagram(), script.now, &Timers::DEFAULT);
                assert!(map.insert(port, script.now.0 + 30_000).is_some());
            }
            None => {
                let opening = script.opening(key);
                script.table.open(&opening, &datagram(), script.now, &Timers::DEFAULT).unwrap();
                assert!(map.insert(port, script.now.0 + 30_000).is_none());
            }
        }
        let late = u32::try_from(map.len()).unwrap();
        assert!(script.table.len() >= late && script.table.len() <= late + 64);
    }
    script.now = script.now.after_s(100);
    while script.table.pop_due(script.now) != Due::Nothing {}
    assert_eq!((script.table.len(), script.table.store.unproven(), script.table.next_due()), (0, 0, None));
}

#[test]
fn what_changed_is_told_once() {
    let mut script = Script::established();
    assert_eq!(script.table.take_changed(Follower::CrashCopy), None, "nobody follows");
    script.table.follow(Follower::CrashCopy);
    for sequence in [5001, 5001] {
        script.in_(segment(ACK, sequence, 1001, 4)).unwrap();
    }
    assert_eq!(
        (script.table.take_changed(Follower::CrashCopy), script.table.take_changed(Follower::CrashCopy)),
        (Some(0), None)
    );
    script.in_(segment(ACK, 5005, 1001, 4)).unwrap();
    assert_eq!(
        (script.table.take_changed(Follower::CrashCopy), script.table.take_changed(Follower::CrashCopy)),
        (Some(0), None)
    );
}
