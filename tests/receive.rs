//! Frames on their way to the guest: into which of its buffers they go, when they wait, and what never gets there.

use fw_control::Reply;
use fw_engine::VnetHeader;
use fw_model::Reason;
use fw_tests::device::{Bench, CLOSED, PLAIN, dns, echo, payload, prepared, udp};
use fw_tests::guest::{BUFFERS, Descriptor, Guest, HOLE, Layout, NEXT, RX, Vmm, WRITE};
use vhost_fw::worker::Command;
use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use vm_memory::{Bytes, GuestAddress};

/// VIO-083.
#[test]
fn nothing_but_header_and_frame_is_written_and_the_length_is_exact() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    guest.memory.write_slice(&[0xee; 2048], GuestAddress(BUFFERS)).unwrap();
    guest.post_buffers(1, 2048).unwrap();
    let frame = echo(&payload(100));
    bench.far().send(VnetHeader::NONE, &frame).unwrap();
    let (header, got) = guest.receive().unwrap();
    assert_eq!((header.as_slice(), got), ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0].as_slice(), frame.clone()));
    let mut beyond = vec![0; 2048 - 12 - frame.len()];
    guest.memory.read_slice(&mut beyond, GuestAddress(BUFFERS + 12 + frame.len() as u64)).unwrap();
    assert!(beyond.iter().all(|byte| *byte == 0xee));
}

#[test]
fn a_refused_payload_never_touches_guest_memory() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    guest.memory.write_slice(&[0xee; 2048], GuestAddress(BUFFERS)).unwrap();
    guest.post_buffers(1, 2048).unwrap();
    bench.far().send(VnetHeader::NONE, &udp(false, 22, &payload(100))).unwrap();
    assert!(guest.stays_quiet(RX).unwrap());
    assert_eq!(bench.drops(Reason::DefaultDrop), 1);
    let mut bytes = vec![0; 2048];
    guest.memory.read_slice(&mut bytes, GuestAddress(BUFFERS)).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0xee));
    bench.far().send(VnetHeader::NONE, &echo(b"good")).unwrap();
    assert_eq!(guest.receive().unwrap().1, echo(b"good"));
}

/// VIO-081.
#[test]
fn a_frame_is_merged_over_small_buffers_and_waits_until_there_are_enough() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    let frame = echo(&payload(1200));
    guest.post_buffers(3, 128).unwrap();
    bench.far().send(VnetHeader::NONE, &frame).unwrap();
    assert!(guest.stays_quiet(RX).unwrap());
    for index in 3..9 {
        guest.post_buffer(index, 128).unwrap();
        guest.kick(RX).unwrap();
    }
    assert!(guest.stays_quiet(RX).unwrap(), "nine of ten buffers");
    guest.post_buffer(9, 128).unwrap();
    guest.kick(RX).unwrap();
    let (header, got) = guest.receive().unwrap();
    assert_eq!((&header[10..], got), ([10, 0].as_slice(), frame));
    bench.all_is_well(&mut guest);
}

/// VIO-080.
#[test]
fn without_merging_a_frame_too_big_for_its_buffer_is_dropped_and_the_buffer_kept() {
    let bench = Bench::new();
    let mut guest = Guest::boot(&bench.socket, Vmm::CloudHypervisor, &[VIRTIO_NET_F_MRG_RXBUF]).unwrap();
    guest.post_buffers(1, 100).unwrap();
    bench.far().send(VnetHeader::NONE, &echo(&payload(47))).unwrap();
    assert!(guest.stays_quiet(RX).unwrap());
    assert_eq!(bench.drops(Reason::RxBufferTooSmall), 1);
    bench.far().send(VnetHeader::NONE, &echo(&payload(46))).unwrap();
    let (header, frame) = guest.receive().unwrap();
    assert_eq!((header.len(), frame), (12, echo(&payload(46))));
}

#[test]
fn bad_receive_buffers_are_retired_and_the_frame_takes_the_next() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    guest.post_buffer(9, 2048).unwrap();
    let bad = [
        Descriptor { address: BUFFERS, length: 2048, flags: 0, next: 0 },
        Descriptor { address: HOLE - 1, length: 2048, flags: WRITE, next: 0 },
        Descriptor { address: BUFFERS, length: 16, flags: WRITE | NEXT, next: 2 },
        Descriptor { address: BUFFERS, length: 0, flags: WRITE, next: 0 },
    ];
    for (index, descriptor) in (0_u16..).zip(bad) {
        descriptor.write(&guest.memory, guest.ring(RX).descriptors + 16 * u64::from(index)).unwrap();
        guest.post(RX, index).unwrap();
    }
    guest.post(RX, 999).unwrap();
    guest.post_buffer(8, 2048).unwrap();
    guest.kick(RX).unwrap();
    bench.far().send(VnetHeader::NONE, &echo(b"one")).unwrap();
    assert_eq!(guest.receive().unwrap().1, echo(b"one"));
    bench.far().send(VnetHeader::NONE, &echo(b"two")).unwrap();
    let used = guest.wait_used(RX, 6).unwrap();
    let length = u32::try_from(12 + echo(b"two").len()).unwrap();
    assert_eq!(used, [(0, 0), (1, 0), (2, 0), (3, 0), (999, 0), (8, length)]);
    assert_eq!(bench.drops(Reason::BadDescriptor), 5);
    bench.all_is_well(&mut guest);
}

/// VIO-084.
#[test]
fn a_guest_without_buffers_leaves_frames_in_the_wire_and_still_sends() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    for number in 0..20 {
        bench.far().send(VnetHeader::NONE, &echo(&[number])).unwrap();
    }
    for _ in 0..50 {
        guest.send(PLAIN, &dns(b"out"), Layout::Linear).unwrap();
        bench.arrives();
    }
    assert_eq!(bench.stats().frames.in_, 0);
    for number in 0..20 {
        guest.post_buffers(1, 2048).unwrap();
        assert_eq!(guest.receive().unwrap().1, echo(&[number]));
    }
    assert_eq!(bench.stats().drops.len(), 0);
}

#[test]
fn a_frame_that_waits_for_buffers_is_judged_by_the_rules_of_its_delivery() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    guest.post_buffers(2, 128).unwrap();
    bench.far().send(VnetHeader::NONE, &echo(&payload(1200))).unwrap();
    assert!(guest.stays_quiet(RX).unwrap());
    let reply = bench.worker.ask(Command::Install(prepared(CLOSED, 1))).unwrap();
    assert!(matches!(reply, Reply::Enforced(2)));
    for index in 2..40 {
        guest.post_buffer(index, 128).unwrap();
    }
    guest.kick(RX).unwrap();
    assert!(guest.stays_quiet(RX).unwrap());
}
