//! A conn table that goes ahead of its VM: two firewalls, a VM that runs at one of them, and everything that can go wrong
//! between.
#![cfg(test)]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use conn_snapshot::{ANSWER_HEAD_LEN, Answer, HEADER_LEN, Header, Key, Kind, Sealed};
use fw_control::Request;
use fw_model::{Arrived, HandoverId, Reason};
use fw_tests::device::{Bench, CLOSED, PLAIN, prepared, udp};
use fw_tests::guest::{Guest, Layout, PATIENCE, Vmm};
use vhost_fw::handover::{HandoverOptions, Restore};
use vhost_fw::worker::Command;

const ID: HandoverId = HandoverId([7; 16]);

fn options(restore: Restore, key: u8) -> HandoverOptions {
    HandoverOptions { nic: "web-1".parse().unwrap(), key: Key::new(&[key; 32]), restore, conns: 4096 }
}

fn host() -> Bench {
    Bench::moving(options(Restore::Revalidate, 1))
}

/// A datagram of the guest that opens a conn of its own.
fn ask(from: u16) -> Vec<u8> {
    let mut frame = udp(true, 53, b"");
    frame[34..36].copy_from_slice(&from.to_be_bytes());
    // No checksum: IPv4 allows that (RFC 768).
    frame[40..42].fill(0);
    frame
}

/// Opens a conn for each of these ports.
fn open(bench: &Bench, guest: &mut Guest, ports: std::ops::Range<u16>) {
    for port in ports {
        guest.send(PLAIN, &ask(port), Layout::Linear).unwrap();
        bench.arrives();
    }
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::yield_now();
    }
}

/// Both ends joined without anybody between.
fn join(source: &Bench, target: &Bench) {
    let (near, far) = UnixStream::pair().unwrap();
    target.expect(ID);
    target.hand_over(Request::ReceiveAhead(ID), far);
    source.hand_over(Request::SendAhead(ID), near);
}

/// Both ends joined through us.
struct Between {
    source: UnixStream,
    target: UnixStream,
}

impl Between {
    fn new(source: &Bench, target: &Bench) -> Self {
        let (ours, near) = UnixStream::pair().unwrap();
        let (also_ours, far) = UnixStream::pair().unwrap();
        for stream in [&ours, &also_ours] {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        target.expect(ID);
        target.hand_over(Request::ReceiveAhead(ID), far);
        source.hand_over(Request::SendAhead(ID), near);
        Self { source: ours, target: also_ours }
    }

    /// The next snapshot of the source.
    fn snapshot(&mut self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        self.source.read_exact(&mut bytes).unwrap();
        let rest = usize::try_from(header(&bytes).body_len).unwrap();
        bytes.resize(HEADER_LEN + rest, 0);
        self.source.read_exact(&mut bytes[HEADER_LEN..]).unwrap();
        bytes
    }

    /// The target's answer to a snapshot.
    fn give(&mut self, snapshot: &[u8]) -> Answer {
        self.target.write_all(snapshot).unwrap();
        let mut head = [0; ANSWER_HEAD_LEN];
        self.target.read_exact(&mut head).unwrap();
        let mut rest = vec![0; Answer::rest_len(head).unwrap()];
        self.target.read_exact(&mut rest).unwrap();
        Answer::read(head, &rest).unwrap()
    }

    /// One round, taken and answered.
    fn pass_on(&mut self) -> Header {
        let snapshot = self.snapshot();
        let answer = self.give(&snapshot);
        self.source.write_all(&answer.bytes()).unwrap();
        assert!(matches!(answer, Answer::Taken(_)), "{answer:?}");
        header(&snapshot)
    }
}

fn header(bytes: &[u8]) -> Header {
    Sealed::read(bytes).unwrap().header
}

fn moved(target: &Bench) -> (u64, u64, u64) {
    let Some(Arrived::Adopted(adoption)) = target.stats().arrived else {
        panic!("{:?}", target.stats().arrived)
    };
    (adoption.kept, adoption.judged_again, adoption.refused())
}

#[test]
fn only_what_changed_leaves_with_the_vm() {
    for vmm in [Vmm::CloudHypervisor, Vmm::Qemu] {
        let (source, target) = (host(), host());
        let mut guest = Guest::boot(&source.socket, vmm, &[]).unwrap();
        open(&source, &mut guest, 1000..1100);
        join(&source, &target);
        until("the table comes ahead", || target.stats().conns == 100);
        open(&source, &mut guest, 1100..1110);
        until("so does what is new", || target.stats().conns == 110);
        source.worker.ask(Command::Kill(port(1005))).unwrap();
        until("and what is gone goes", || target.stats().conns == 109);
        guest.stop().unwrap();
        let state = guest.save().unwrap();
        let said = header(&state);
        assert_eq!((said.kind, said.handover), (Kind::Delta, ID));
        assert!(said.records < 100 && state.len() < 4096, "{} records, {} bytes", said.records, state.len());
        let guest = guest.land(&target.socket, &state).unwrap();
        assert_eq!(moved(&target), (109, 0, 0));
        drop(guest);
    }
}

fn port(port: u16) -> fw_model::ConnFilter {
    fw_model::ConnFilter { port: Some(port), ..fw_model::ConnFilter::default() }
}

#[test]
fn nothing_is_lost_of_what_changes_while_the_vm_stops() {
    let (source, target) = (host(), host());
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    open(&source, &mut guest, 1000..1010);
    let mut between = Between::new(&source, &target);
    assert_eq!(between.pass_on().kind, Kind::Bulk);
    // A round that the source sends and nobody passes on; then more happens.
    open(&source, &mut guest, 1010..1020);
    let lost = between.snapshot();
    source.worker.ask(Command::Kill(port(1003))).unwrap();
    source.worker.ask(Command::Kill(port(1013))).unwrap();
    open(&source, &mut guest, 1020..1030);
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    assert_eq!(header(&state).base, header(&lost).base, "it builds on what was surely taken");
    let _guest = guest.land(&target.socket, &state).unwrap();
    assert_eq!(moved(&target), (28, 0, 0));
}

#[test]
fn a_round_that_was_taken_without_the_source_knowing_does_no_harm() {
    let (source, target) = (host(), host());
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    open(&source, &mut guest, 1000..1010);
    let mut between = Between::new(&source, &target);
    between.pass_on();
    open(&source, &mut guest, 1010..1020);
    let round = between.snapshot();
    assert!(matches!(between.give(&round), Answer::Taken(_)));
    source.worker.ask(Command::Kill(port(1015))).unwrap();
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    let _guest = guest.land(&target.socket, &state).unwrap();
    assert_eq!(moved(&target), (19, 0, 0));
    assert_eq!(target.stats().conns, 19);
}

#[test]
fn a_table_that_nobody_took_leaves_whole() {
    let (source, target) = (host(), host());
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    open(&source, &mut guest, 1000..1010);
    let mut between = Between::new(&source, &target);
    between.snapshot();
    drop(between);
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    assert_eq!((header(&state).kind, header(&state).records), (Kind::Whole, 10));
    let _guest = guest.land(&target.socket, &state).unwrap();
    assert_eq!(moved(&target), (10, 0, 0));
}

#[test]
fn a_move_that_is_given_up_leaves_the_source_as_it_was_and_may_be_tried_again() {
    let (source, target) = (host(), host());
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    open(&source, &mut guest, 1000..1010);
    join(&source, &target);
    until("the table comes ahead", || target.stats().conns == 10);
    guest.stop().unwrap();
    guest.save().unwrap();
    guest.activate().unwrap();
    source.cancel();
    target.cancel();
    assert_eq!((source.stats().conns, target.stats().conns), (10, 0));
    open(&source, &mut guest, 1010..1020);
    join(&source, &target);
    until("the table comes again", || target.stats().conns == 20);
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    assert_eq!(header(&state).kind, Kind::Delta);
    let _guest = guest.land(&target.socket, &state).unwrap();
    assert_eq!(moved(&target), (20, 0, 0));
}

/// The state of a VM whose table went ahead, and the VM.
fn sent_ahead(source: &Bench, target: &Bench) -> (Guest, Vec<u8>) {
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    open(source, &mut guest, 1000..1010);
    join(source, target);
    until("the table comes ahead", || target.stats().conns == 10);
    open(source, &mut guest, 1010..1012);
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    assert_eq!(header(&state).kind, Kind::Delta);
    (guest, state)
}

/// The target's process was another one in between, or its table was cancelled.
#[test]
fn a_missing_table_is_refused_or_done_without_as_configured() {
    let (source, target) = (host(), Bench::moving(options(Restore::Refuse, 1)));
    let (guest, state) = sent_ahead(&source, &target);
    target.cancel();
    target.expect(ID);
    let Err(_) = guest.land(&target.socket, &state) else { panic!("it was taken") };
    until("it is refused", || matches!(target.stats().arrived, Some(Arrived::Refused(_))));
    let Some(Arrived::Refused(cause)) = target.stats().arrived else { panic!() };
    assert!(cause.contains("sent ahead"), "{cause}");

    let (source, target) = (host(), host());
    let (guest, state) = sent_ahead(&source, &target);
    let changed = header(&state).records;
    target.cancel();
    target.expect(ID);
    let _guest = guest.land(&target.socket, &state).unwrap();
    assert_eq!(moved(&target), (changed, 0, 0), "what is in the state is taken, the rest is lost");
}

/// Its rules changed meanwhile: what they forbid dies without a word, for the VM still speaks from elsewhere.
#[test]
fn a_table_that_waits_says_nothing() {
    let (source, target) = (host(), host());
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    open(&source, &mut guest, 1000..1010);
    guest.send(PLAIN, &syn(), Layout::Linear).unwrap();
    source.arrives();
    join(&source, &target);
    until("the table comes ahead", || target.stats().conns == 11);
    target.worker.ask(Command::Install(prepared(CLOSED, 7))).unwrap();
    until("the sweep is done", || target.stats().conns == 0);
    target.nothing_arrives();
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    let _guest = guest.land(&target.socket, &state).unwrap();
    assert_eq!(target.stats().conns, 0);
}

fn syn() -> Vec<u8> {
    use fw_tests::device::{GUEST, GUEST_MAC, PEER, PEER_MAC};
    let mut frame = Vec::new();
    let builder = etherparse::PacketBuilder::ethernet2(GUEST_MAC, PEER_MAC).ipv4(GUEST, PEER, 64);
    builder.tcp(5000, 80, 1, 64_000).syn().write(&mut frame, &[]).unwrap();
    frame
}

#[test]
fn a_vm_that_runs_without_its_state_finds_an_empty_table() {
    let (source, target) = (host(), host());
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    open(&source, &mut guest, 1000..1010);
    join(&source, &target);
    until("the table comes ahead", || target.stats().conns == 10);
    let _other = Guest::boot(&target.socket, Vmm::Qemu, &[]).unwrap();
    until("it is forgotten", || target.stats().conns == 0);
    guest.stop().unwrap();
    assert_eq!(source.stats().conns, 10);
}

#[test]
fn what_comes_ahead_must_be_expected_authentic_and_in_order() {
    let (source, target) = (host(), host());
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    open(&source, &mut guest, 1000..1010);
    let mut between = Between::new(&source, &target);
    let table = between.snapshot();
    let refused = |target: &Bench, bytes: &[u8], cause: &str| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        target.hand_over(Request::ReceiveAhead(ID), theirs);
        ours.write_all(bytes).unwrap();
        ours.shutdown(Shutdown::Write).unwrap();
        let mut told = Vec::new();
        ours.read_to_end(&mut told).unwrap();
        let (head, rest) = told.split_first_chunk().unwrap();
        let Answer::Refused(why) = Answer::read(*head, rest).unwrap() else { panic!("taken: {cause}") };
        assert!(why.contains(cause), "{why}");
        assert_eq!(target.stats().conns, 0);
    };
    let other_key = Bench::moving(options(Restore::Revalidate, 2));
    other_key.expect(ID);
    refused(&other_key, &table, "not authentic");
    let expects_another = host();
    expects_another.expect(HandoverId([8; 16]));
    refused(&expects_another, &table, "is expected, and this is");
    refused(&host(), &table, "is expected, and this is");
    let mut altered = table.clone();
    *altered.last_mut().unwrap() ^= 1;
    refused(&target, &altered, "not authentic");
    // What is new, without what it builds on.
    assert!(matches!(between.give(&table), Answer::Taken(_)));
    between.source.write_all(&Answer::Taken(Sealed::read(&table).unwrap().code).bytes()).unwrap();
    open(&source, &mut guest, 1010..1011);
    let news = between.snapshot();
    let without = host();
    without.expect(ID);
    refused(&without, &news, "sent ahead");
    // A table while a VM is served.
    let busy = host();
    busy.expect(ID);
    let _vm = Guest::boot(&busy.socket, Vmm::Qemu, &[]).unwrap();
    refused(&busy, &table, "the rings run");
    assert_eq!(target.drops(Reason::HandoverRefused), 0);
}

#[test]
fn a_table_is_exported_and_imported_at_rest() {
    let (source, target) = (host(), host());
    let mut guest = Guest::boot(&source.socket, Vmm::Qemu, &[]).unwrap();
    open(&source, &mut guest, 1000..1010);
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    source.hand_over(Request::Export, theirs);
    let mut table = Vec::new();
    ours.read_to_end(&mut table).unwrap();
    assert_eq!((header(&table).kind, header(&table).records), (Kind::Whole, 10));
    let import = |target: &Bench| {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        target.hand_over(Request::Import, theirs);
        ours.write_all(&table).unwrap();
        let mut told = Vec::new();
        ours.read_to_end(&mut told).unwrap();
        let (head, rest) = told.split_first_chunk().unwrap();
        Answer::read(*head, rest).unwrap()
    };
    assert!(matches!(import(&target), Answer::Taken(_)));
    assert_eq!(moved(&target), (10, 0, 0));
    let Answer::Refused(why) = import(&source) else { panic!("taken while the VM runs") };
    assert!(why.contains("the rings run"), "{why}");
    assert_eq!(source.stats().conns, 10);
}
