//! What a million conns cost a VM that stops, when they went ahead of it.
//!
//! Two devices and a VMM played by hand, message by message. It may know a VMM's messages and what a conn is made of. It
//! must never know how a table travels.
#![expect(clippy::unwrap_used, reason = "a panic here ends the bench with its cause")]

use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use conn_snapshot::Key;
use fw_control::Request;
use fw_engine::{Arrival, ConnState, PortableConn, Trust};
use fw_model::{Addr, Direction, FlowKey, HandoverId, MacAddr, OnRevoke, Protocol, RuleId};
use vhost_fw::handover::{HandoverOptions, Restore};
use vhost_fw::worker::boot_time;

use super::{Rounds, quiet};
use crate::device::{Bench, GUEST, PEER_MAC, PLAIN, dns, engine};
use crate::guest::{Guest, Layout, Vmm};

const MILLION: u32 = 1_000_000;
const ID: HandoverId = HandoverId([7; 16]);
/// How long a table may take to go ahead.
const PATIENCE: Duration = Duration::from_secs(60);
/// Frames of the VM just before it stops.
const LAST_FRAMES: usize = 100;

/// From GET_VRING_BASE to CHECK at the source, and from the connection to the set-up rings at the target.
pub(super) fn stop_1m() -> Result<Rounds> {
    quiet::take_turns(|| Ok(moved(MILLION)?.stopped_ms), || Ok(moved(0)?.stopped_ms))
}

/// What the VM's own state has of it.
pub(super) fn blob_1m() -> Result<Rounds> {
    quiet::take_turns(|| Ok(moved(MILLION)?.blob_kib), || whole_kib(MILLION))
}

struct Moved {
    stopped_ms: f64,
    blob_kib: f64,
}

fn moved(conns: u32) -> Result<Moved> {
    let (source, target) = (host(conns), host(0));
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    join(&source, &target);
    wait_for("the table", || target.stats().conns == u64::from(conns))?;
    for _ in 0..LAST_FRAMES {
        guest.send(PLAIN, &dns(b"still here"), Layout::Linear).unwrap();
        source.arrives();
    }
    let start = Instant::now();
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    let guest = guest.land(&target.socket, &state).unwrap();
    let stopped_ms = start.elapsed().as_secs_f64() * 1000.0;
    let living = target.stats().conns;
    ensure!(living == u64::from(conns) + 1, "{living} conns arrived");
    drop(guest);
    Ok(Moved { stopped_ms, blob_kib: kib(state.len()) })
}

/// The table without anything ahead.
fn whole_kib(conns: u32) -> Result<f64> {
    let source = host(conns);
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    ensure!(state.len() > usize::try_from(conns)?, "{} bytes are no table of {conns} conns", state.len());
    Ok(kib(state.len()))
}

fn kib(bytes: usize) -> f64 {
    u32::try_from(bytes).map_or(f64::INFINITY, f64::from) / 1024.0
}

fn join(source: &Bench, target: &Bench) {
    let (near, far) = UnixStream::pair().unwrap();
    target.expect(ID);
    target.hand_over(Request::ReceiveAhead(ID), far);
    source.hand_over(Request::SendAhead(ID), near);
}

fn wait_for(what: &str, is: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !is() {
        ensure!(start.elapsed() < PATIENCE, "{what} does not come");
        thread::sleep(Duration::from_millis(20));
    }
    // A round more: what there was to say is said.
    thread::sleep(Duration::from_millis(150));
    Ok(())
}

/// A host with room for a million conns and more, and so many living.
fn host(conns: u32) -> Bench {
    let room = MILLION + 1000;
    let mut engine = engine(room);
    let names: [RuleId; 1] = ["dns".parse().unwrap()];
    let arrivals: Vec<Arrival> = (0..conns).map(arrival).collect();
    let adoption = engine.adopt(&arrivals, &names, Trust::Exact, boot_time());
    assert_eq!(adoption.kept, u64::from(conns), "{adoption}");
    let key = Key::new(&[7; 32]);
    let nic = "web-1".parse().unwrap();
    Bench::holding(engine, HandoverOptions { nic, key, restore: Restore::Revalidate, conns: room })
}

/// A conn of datagrams to one of a thousand resolvers.
fn arrival(number: u32) -> Arrival {
    let [_, _, high, low] = (number / 1000).to_be_bytes();
    let flow = FlowKey {
        local: Addr::v4(GUEST),
        remote: Addr::v4([198, 18, high, low]),
        local_port: u16::try_from(number % 1000 + 10_000).unwrap(),
        remote_port: 53,
        protocol: Protocol::UDP,
        vlan: 0,
    };
    let conn = PortableConn {
        flow,
        opener: Direction::Out,
        peer_mac: MacAddr(PEER_MAC),
        state: ConnState::Answered,
        remaining_ms: 110_000,
        ends_in_ms: None,
        on_revoke: OnRevoke::Kill,
        expected: false,
        tcp: None,
    };
    Arrival { conn, rule: Some(0) }
}
