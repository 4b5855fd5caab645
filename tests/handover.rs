//! The conn table moves with the VM, inside the VMM's own stream: message by message, as Cloud Hypervisor and QEMU send
//! them, and as nobody should.
#![cfg(test)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use conn_snapshot::{HEADER_LEN, Key, Sealed};
use fw_control::Reply;
use fw_model::{Adoption, Arrived, HandoverId, Reason};
use fw_tests::device::{Bench, CLOSED, PLAIN, dns, prepared, udp};
use fw_tests::guest::{Guest, Layout, PATIENCE, Vmm};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostTransferStateDirection::{LOAD, SAVE};
use vhost_fw::handover::{HandoverOptions, Restore};
use vhost_fw::worker::Command;

const ID: HandoverId = HandoverId([7; 16]);

fn key() -> Key {
    Key::new(&[1; 32])
}

fn options(restore: Restore) -> HandoverOptions {
    HandoverOptions { nic: "web-1".parse().unwrap(), key: key(), restore, conns: 4096 }
}

fn host() -> Bench {
    Bench::moving(options(Restore::Revalidate))
}

/// The peer's answer to [`dns`]: it needs a living conn.
fn answer(payload: &[u8]) -> Vec<u8> {
    let mut frame = udp(false, 4000, payload);
    // From the port that was asked.
    frame[34..36].copy_from_slice(&53_u16.to_be_bytes());
    let mut headers = etherparse::PacketHeaders::from_ethernet_slice(&frame).unwrap();
    let checksum = match (&headers.net, &mut headers.transport) {
        (Some(etherparse::NetHeaders::Ipv4(ip, _)), Some(etherparse::TransportHeader::Udp(udp))) => {
            udp.calc_checksum_ipv4(ip, payload).unwrap()
        }
        other => panic!("{other:?}"),
    };
    frame[40..42].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// A guest that asked and waits for the answer.
fn asking(bench: &Bench, vmm: Vmm) -> Guest {
    let mut guest = Guest::boot(&bench.socket, vmm, &[]).unwrap();
    guest.post_buffers(8, 2048).unwrap();
    assert_eq!(guest.send(PLAIN, &dns(b"who is it?"), Layout::Linear).unwrap(), 0);
    bench.arrives();
    guest
}

/// The answer reaches the guest: its conn lives.
fn is_answered(bench: &Bench, guest: &mut Guest) {
    let frame = answer(b"it is me");
    bench.far().send(fw_engine::VnetHeader::NONE, &frame).unwrap();
    assert_eq!(guest.receive().unwrap().1, frame);
}

/// Takes everything a moved guest announces off the wire: five times RARP, ARP and its link-local address.
fn is_announced(bench: &Bench) {
    for _ in 0..15 {
        let (_, frame) = bench.arrives();
        let ethertype = u16::from_be_bytes([frame[12], frame[13]]);
        assert!([0x0806, 0x8035, 0x86dd].contains(&ethertype), "{ethertype:#x}");
    }
}

fn arrived(bench: &Bench) -> Option<Arrived> {
    bench.stats().arrived
}

fn adopted(kept: u64) -> Option<Arrived> {
    Some(Arrived::Adopted(Adoption { kept, ..Adoption::default() }))
}

#[test]
fn a_conn_goes_on_at_the_new_host_in_either_vmms_order() {
    for vmm in [Vmm::CloudHypervisor, Vmm::Qemu] {
        let (source, target) = (host(), host());
        let mut guest = asking(&source, vmm);
        let log = guest.start_log().unwrap();
        guest.stop().unwrap();
        let state = guest.save().unwrap();
        let mut guest = guest.land(&target.socket, &state).unwrap();
        assert_eq!(arrived(&target), adopted(1));
        is_answered(&target, &mut guest);
        is_announced(&target);
        source.nothing_arrives();
        drop(log);
    }
}

/// MIG-016: until the rings are enabled here the VM may run there.
#[test]
fn nobody_is_announced_before_the_vm_goes_on_here() {
    let (source, target) = (host(), host());
    let mut guest = asking(&source, Vmm::Qemu);
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    let mut arriving = Guest::boot(&target.socket, Vmm::Qemu, &[]).unwrap();
    arriving.stop().unwrap();
    arriving.load(&state).unwrap();
    assert_eq!(arrived(&target), adopted(1));
    std::thread::sleep(std::time::Duration::from_millis(100));
    target.nothing_arrives();
    arriving.activate().unwrap();
    is_announced(&target);
}

#[test]
fn a_vm_that_never_ran_has_a_table_too() {
    let (source, target) = (host(), host());
    let guest = Guest::boot(&source.socket, Vmm::CloudHypervisor, &[]).unwrap();
    drop(guest);
    let mut fresh = Guest::boot(&source.socket, Vmm::CloudHypervisor, &[]).unwrap();
    fresh.stop().unwrap();
    let state = fresh.save().unwrap();
    assert_eq!(state.len(), HEADER_LEN);
    fresh.land(&target.socket, &state).unwrap();
    assert_eq!(arrived(&target), adopted(0));
}

/// Cloud Hypervisor's local migration: the same process sees it go and come.
#[test]
fn a_table_may_come_back_to_where_it_left() {
    let bench = host();
    let mut guest = asking(&bench, Vmm::CloudHypervisor);
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    let mut guest = guest.land(&bench.socket, &state).unwrap();
    assert_eq!(arrived(&bench), adopted(1));
    is_answered(&bench, &mut guest);
}

/// MIG-013: the VMM takes it back after everything was saved.
#[test]
fn an_aborted_migration_leaves_the_source_as_it_was() {
    for vmm in [Vmm::CloudHypervisor, Vmm::Qemu] {
        let bench = host();
        let mut guest = asking(&bench, vmm);
        guest.start_log().unwrap();
        let bases = guest.stop().unwrap();
        let used = [0, 1].map(|ring| u32::from(guest.ring(ring).used_index(&guest.memory)));
        assert_eq!(bases, used, "what was taken was given back");
        guest.save().unwrap();
        guest.activate().unwrap();
        guest.stop_log().unwrap();
        assert_eq!(arrived(&bench), None);
        is_answered(&bench, &mut guest);
    }
}

#[test]
fn what_arrives_is_judged_by_the_rules_here() {
    let (source, target) = (host(), host());
    let mut guest = asking(&source, Vmm::Qemu);
    let Reply::Enforced(_) = target.worker.ask(Command::Install(prepared(CLOSED, 7))).unwrap() else {
        panic!("refused")
    };
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    guest.land(&target.socket, &state).unwrap();
    let refused = [(Reason::Revoked, 1)].into();
    assert_eq!(arrived(&target), Some(Arrived::Adopted(Adoption { refused, ..Adoption::default() })));
    assert_eq!(target.stats().conns, 0);
}

#[test]
fn a_saved_header_says_whose_conns_these_are_and_under_which_rules() {
    let bench = host();
    let mut guest = asking(&bench, Vmm::CloudHypervisor);
    guest.stop().unwrap();
    let sealed = Sealed::read(&guest.save().unwrap()).unwrap();
    sealed.check(&key()).unwrap();
    assert_eq!((sealed.header.nic.as_str(), sealed.header.records), ("web-1", 1));
    assert_eq!((sealed.header.generation, sealed.header.handover), (1, HandoverId::NONE));
}

/// A guest and the state of one that asked.
fn state_of_one() -> (Bench, Guest, Vec<u8>) {
    let source = host();
    let mut guest = asking(&source, Vmm::CloudHypervisor);
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    (source, guest, state)
}

/// A refused table closes the NIC, until its VMM has gone.
fn is_refused(target: &Bench, state: &[u8], cause: &str) {
    let mut guest = Guest::boot(&target.socket, Vmm::CloudHypervisor, &[]).unwrap();
    guest.stop().unwrap();
    assert!(guest.load(state).is_err(), "{cause}");
    let Some(Arrived::Refused(told)) = arrived(target) else { panic!("{:?}", arrived(target)) };
    assert!(told.contains(cause), "{told}");
    // A VMM that goes on all the same finds it closed.
    guest.activate().unwrap();
    let before = target.drops(Reason::HandoverRefused);
    guest.send(PLAIN, &dns(b"anybody?"), Layout::Linear).unwrap();
    assert_eq!(target.drops(Reason::HandoverRefused), before + 1);
    target.nothing_arrives();
    drop(guest);
    let mut next = Guest::boot(&target.socket, Vmm::CloudHypervisor, &[]).unwrap();
    target.all_is_well(&mut next);
}

/// MIG-001, 002, 003 through the device; the codec's own tests try every place.
#[test]
fn cut_altered_and_forged_tables_are_refused() {
    let (_source, _guest, state) = state_of_one();
    let target = host();
    is_refused(&target, &[], "failed to fill");
    is_refused(&target, &state[..HEADER_LEN - 1], "failed to fill");
    is_refused(&target, &state[..state.len() - 1], "ends within");
    let longer = [&state[..], &[0]].concat();
    is_refused(&target, &longer, "1 bytes follow");
    for place in [0, 8, 20, HEADER_LEN - 1, HEADER_LEN + 3, state.len() - 1] {
        let mut altered = state.clone();
        altered[place] ^= 1;
        is_refused(&target, &altered, "");
    }
    let other = Bench::moving(HandoverOptions { key: Key::new(&[2; 32]), ..options(Restore::Revalidate) });
    is_refused(&other, &state, "not authentic");
}

#[test]
fn another_nics_table_is_refused() {
    let (_source, _guest, state) = state_of_one();
    let other = HandoverOptions { nic: "web-2".parse().unwrap(), ..options(Restore::Revalidate) };
    is_refused(&Bench::moving(other), &state, "these are the conns of `web-1`");
}

/// MIG-018: more than there is room for, and a stream that never ends.
#[test]
fn a_table_larger_than_ours_is_refused() {
    let source = host();
    let mut guest = asking(&source, Vmm::CloudHypervisor);
    for port in [5_001_u16, 5_002, 5_003] {
        let mut frame = dns(b"another");
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame[40..42].copy_from_slice(&[0, 0]);
        guest.send(PLAIN, &frame, Layout::Linear).unwrap();
        source.arrives();
    }
    guest.stop().unwrap();
    let state = guest.save().unwrap();
    let small = HandoverOptions { conns: 3, ..options(Restore::Revalidate) };
    is_refused(&Bench::moving(small), &state, "at most 3 are accepted");
}

#[test]
fn an_announced_handover_is_taken_once_and_no_other_is() {
    let source = host();
    let mut guest = asking(&source, Vmm::CloudHypervisor);
    guest.stop().unwrap();
    let unannounced = guest.save().unwrap();
    source.announce(ID);
    let state = guest.save().unwrap();
    assert_eq!(Sealed::read(&state).unwrap().header.handover, ID);
    assert_eq!(Sealed::read(&guest.save().unwrap()).unwrap().header.handover, HandoverId::NONE);

    let target = Bench::moving(options(Restore::Refuse));
    is_refused(&target, &unannounced, "--restore refuse");
    is_refused(&target, &state, "--restore refuse");
    target.expect(ID);
    is_refused(&target, &unannounced, "is expected");
    let mut guest = guest.land(&target.socket, &state).unwrap();
    assert_eq!(arrived(&target), adopted(1));
    is_answered(&target, &mut guest);
    is_announced(&target);
    drop(guest);
    // A copy of it: the VM may not be in two places.
    is_refused(&target, &state, "taken before");
}

/// Its copy would put the VM in two places, and that nobody expected it here makes it no better.
#[test]
fn an_unexpected_handover_is_taken_once_too() {
    let source = host();
    let mut guest = asking(&source, Vmm::CloudHypervisor);
    guest.stop().unwrap();
    source.announce(ID);
    let state = guest.save().unwrap();
    let target = host();
    let mut guest = guest.land(&target.socket, &state).unwrap();
    assert_eq!(arrived(&target), adopted(1));
    is_answered(&target, &mut guest);
    is_announced(&target);
    drop(guest);
    is_refused(&target, &state, "taken before");
}

#[test]
fn a_clone_may_begin_with_an_empty_table() {
    let (_source, guest, state) = state_of_one();
    let target = Bench::moving(options(Restore::Empty));
    let mut guest = guest.land(&target.socket, &state).unwrap();
    assert_eq!(arrived(&target), Some(Arrived::Emptied));
    is_announced(&target);
    let frame = answer(b"too late");
    target.far().send(fw_engine::VnetHeader::NONE, &frame).unwrap();
    // Before anything else is asked: a question of the guest's would open this very flow again.
    let end = Instant::now() + PATIENCE;
    while target.drops(Reason::DefaultDrop) < 1 {
        assert!(Instant::now() < end, "{:?}", target.stats());
    }
    target.all_is_well(&mut guest);
}

#[test]
fn without_a_key_nothing_of_this_is_offered() {
    let bench = Bench::new();
    let mut guest = Guest::boot(&bench.socket, Vmm::CloudHypervisor, &[]).unwrap();
    assert_eq!(guest.frontend.get_features().unwrap() & 1 << 26, 0);
    let offered = guest.frontend.get_protocol_features().unwrap();
    assert!(
        !format!("{offered:?}").contains("DEVICE_STATE") && !format!("{offered:?}").contains("LOG_SHMFD")
    );
    guest.stop().unwrap();
    assert!(guest.save().is_err());
}

/// VHU-013: what a VMM should not do with a transfer ends that transfer, and the NIC goes on.
#[test]
fn a_transfer_misused_is_refused_and_the_nic_goes_on() {
    let bench = host();
    let mut guest = asking(&bench, Vmm::CloudHypervisor);
    // While rings run.
    assert!(guest.save().is_err());
    assert!(guest.load(&[0; 300]).is_err());
    // Asked about none.
    assert!(guest.frontend.check_device_state().is_err());
    guest.stop().unwrap();
    // Two at once.
    let (_ours, theirs) = UnixStream::pair().unwrap();
    guest.begin(LOAD, theirs.into()).unwrap();
    let (_other, second) = UnixStream::pair().unwrap();
    assert!(guest.begin(SAVE, second.into()).is_err());
    drop(_ours);
    assert!(guest.frontend.check_device_state().is_err());
    // Descriptors that are no pipes, and one that reads nothing.
    for path in ["/dev/null", "/dev/full"] {
        guest.begin(LOAD, File::open(path).unwrap().into()).unwrap();
        let checked = guest.frontend.check_device_state();
        assert!(checked.is_err(), "{path}");
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    guest.begin(SAVE, full.into()).unwrap();
    assert!(guest.frontend.check_device_state().is_err());
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    guest.begin(SAVE, theirs.into()).unwrap();
    assert!(guest.frontend.check_device_state().is_err());
    // What it should do still works, and the source has lost nothing.
    assert!(guest.save().unwrap().len() > HEADER_LEN);
    drop(guest);
    let mut guest = Guest::boot(&bench.socket, Vmm::CloudHypervisor, &[]).unwrap();
    guest.post_buffers(8, 2048).unwrap();
    is_answered(&bench, &mut guest);
}

/// A VMM that goes amid a transfer leaves nothing of it to the next.
#[test]
fn a_transfer_ends_with_its_connection() {
    for direction in [SAVE, LOAD] {
        let (_source, _guest, state) = state_of_one();
        let bench = host();
        let mut guest = asking(&bench, Vmm::CloudHypervisor);
        guest.stop().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        guest.begin(direction, theirs.into()).unwrap();
        if direction == LOAD {
            ours.write_all(&state).unwrap();
        }
        drop(guest);
        drop(ours);
        let mut next = Guest::boot(&bench.socket, Vmm::CloudHypervisor, &[]).unwrap();
        next.stop().unwrap();
        assert!(next.frontend.check_device_state().is_err(), "it began none");
        assert_eq!(arrived(&bench), None);
        assert!(next.save().unwrap().len() > HEADER_LEN);
    }
}

/// A VMM that reads its state byte by byte gets all of it.
#[test]
fn a_slow_reader_gets_everything() {
    let bench = host();
    let mut guest = asking(&bench, Vmm::Qemu);
    guest.stop().unwrap();
    let whole = guest.save().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    guest.begin(SAVE, theirs.into()).unwrap();
    let mut slow = Vec::new();
    let mut byte = [0];
    while ours.read(&mut byte).unwrap() == 1 {
        slow.push(byte[0]);
    }
    guest.frontend.check_device_state().unwrap();
    assert_eq!(slow.len(), whole.len());
    // And one that writes it so is heard to the end.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    guest.begin(LOAD, theirs.into()).unwrap();
    for byte in &slow {
        ours.write_all(std::slice::from_ref(byte)).unwrap();
    }
    drop(ours);
    guest.frontend.check_device_state().unwrap();
    assert_eq!(arrived(&bench), adopted(1));
}

/// A SAVE that failed, or that nobody asked about, keeps the name for the next try.
#[test]
fn a_name_is_used_up_by_the_table_that_left_whole() {
    let bench = host();
    let mut guest = asking(&bench, Vmm::CloudHypervisor);
    guest.stop().unwrap();
    bench.announce(ID);
    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(ours);
    guest.begin(SAVE, theirs.into()).unwrap();
    assert!(guest.frontend.check_device_state().is_err(), "nobody read it");
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    guest.begin(SAVE, theirs.into()).unwrap();
    let mut unasked = Vec::new();
    ours.read_to_end(&mut unasked).unwrap();
    assert_eq!(Sealed::read(&unasked).unwrap().header.handover, ID);
    guest.frontend.check_device_state().unwrap();
    assert_eq!(Sealed::read(&guest.save().unwrap()).unwrap().header.handover, HandoverId::NONE);
}

/// The firewall that took a table dies, and the one after it knows: a copy would put the VM in two places.
#[test]
fn a_table_is_taken_once_though_its_firewall_starts_anew() {
    let (source, state) = (host(), tempfile::tempdir().unwrap());
    let state = state.path().join("state");
    let mut guest = asking(&source, Vmm::CloudHypervisor);
    guest.stop().unwrap();
    source.announce(ID);
    let table = guest.save().unwrap();
    let target = Bench::keeping(&state, options(Restore::Revalidate));
    drop(guest.land(&target.socket, &table).unwrap());
    assert_eq!(arrived(&target), adopted(1));
    drop(target);
    let again = Bench::keeping(&state, options(Restore::Revalidate));
    is_refused(&again, &table, "taken before");
    // Without a copy nobody knows: the documented limit.
    let forgetful = host();
    let fresh = Guest::boot(&source.socket, Vmm::CloudHypervisor, &[]).unwrap();
    drop(fresh.land(&forgetful.socket, &table).unwrap());
    assert_eq!(arrived(&forgetful), adopted(1));
}
