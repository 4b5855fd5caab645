//! The whole device against a guest and a VMM played by hand, with a wire in this process.
//!
//! Each hostile act is followed by a good frame that must pass: an attack costs its own frame, not the NIC.
#![expect(clippy::unwrap_used, reason = "a panic here is the report")]

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self};

use etherparse::PacketBuilder;
use fw_control::Reply;
use fw_engine::VnetHeader;
use fw_model::{Reason, VerdictName};
use fw_tests::device::{
    Bench, CLOSED, GUEST, GUEST_MAC, NEEDS_CSUM, PEER, PEER_MAC, PLAIN, dns, echo, prepared, udp,
};
use fw_tests::guest::{
    BORDER, BUFFER_STRIDE, BUFFERS, Descriptor, FRAMES, GRACE, Guest, HOLE, INDIRECT, Layout, NEXT, PLUGGED,
    RX, TABLES, TX, Vmm, WRITE,
};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost_fw::serve::{Endpoint, ServeError};
use vhost_fw::uplink::Unix;
use vhost_fw::worker::Command;
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vm_memory::{Bytes, GuestAddress};

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 253).unwrap()).collect()
}

#[test]
fn frames_pass_both_ways_in_either_vmms_order() {
    for vmm in [Vmm::CloudHypervisor, Vmm::Qemu] {
        let bench = Bench::new();
        let mut guest = Guest::boot(&bench.socket, vmm, &[]).unwrap();
        for _ in 0..600 {
            bench.all_is_well(&mut guest);
        }
        let frames = bench.stats().frames;
        assert_eq!((frames.out, frames.in_), (600, 600));
        assert_eq!(bench.stats().drops.values().sum::<u64>(), 0);
    }
}

#[test]
fn the_configuration_space_shows_mac_link_and_mtu() {
    let bench = Bench::new();
    let config = bench.boot().config().unwrap();
    assert_eq!(config, [0x52, 0x54, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 0x05, 0, 0, 0, 0, 0]);
}

#[test]
fn a_frame_is_the_same_in_every_layout() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    let frame = dns(&payload(180));
    let mut layouts = vec![Layout::Linear, Layout::Bytes, Layout::IndirectBytes, Layout::Indirect];
    layouts.extend((1..12 + frame.len()).map(Layout::Split));
    for layout in layouts {
        assert_eq!(guest.send(PLAIN, &frame, layout).unwrap(), 0);
        assert_eq!(bench.arrives().1, frame, "{layout:?}");
    }
}

#[test]
fn headers_may_straddle_memory_regions() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    for (header, length) in [(PLAIN, 400), (NEEDS_CSUM, 1400)] {
        let frame = dns(&payload(length));
        for before in [1, 8, 13, 30, 50, 54, 100, 267, 268, 269, 300] {
            guest.send_at(BORDER - before, header, &frame, Layout::Linear).unwrap();
            let (_, out) = bench.arrives();
            assert_eq!(out[..40], frame[..40], "{before}");
            assert_eq!(out[42..], frame[42..], "{before}");
        }
    }
}

#[test]
fn a_vouched_frame_leaves_with_a_header_built_from_the_parse() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    let frame = dns(&payload(1400));
    for layout in
        [Layout::Linear, Layout::Split(12), Layout::Split(100), Layout::Split(900), Layout::Indirect]
    {
        guest.send(NEEDS_CSUM, &frame, layout).unwrap();
        let (vnet, out) = bench.arrives();
        assert_eq!((vnet.flags, vnet.csum_start, vnet.csum_offset), (1, 34, 6));
        assert_eq!((&out[..40], &out[42..]), (&frame[..40], &frame[42..]), "{layout:?}");
    }
    let frame = dns(&payload(900));
    guest.send(NEEDS_CSUM, &frame, Layout::IndirectBytes).unwrap();
    assert_eq!(bench.arrives().1[42..], frame[42..], "more pieces than one write takes");
}

/// VIO-035, 040, 041, 044, 045: one bad chain, one used element of length 0, and the queue goes on.
#[test]
fn a_bad_chain_costs_itself_and_nothing_else() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    let d = |address, length, flags, next| Descriptor { address, length, flags, next };
    let chains: &[(&str, &[(u16, Descriptor)])] = &[
        ("unmapped", &[(0, d(0x8000_0000, 72, 0, 0))]),
        ("in a hole", &[(0, d(HOLE + 0x1000, 72, 0, 0))]),
        ("off by one", &[(0, d(HOLE - 71, 72, 0, 0))]),
        ("a device's registers", &[(0, d(0xfee0_0000, 72, 0, 0))]),
        ("around the end of the world", &[(0, d(u64::MAX - 3, 72, 0, 0))]),
        ("self-loop", &[(0, d(FRAMES, 1, NEXT, 0))]),
        ("two-cycle", &[(0, d(FRAMES, 1, NEXT, 1)), (1, d(FRAMES, 1, NEXT, 0))]),
        ("next out of range", &[(0, d(FRAMES, 12, NEXT, 256))]),
        ("too long", &[(0, d(FRAMES, 65_566, 0, 0))]),
        ("length overflows", &[(0, d(FRAMES, u32::MAX, NEXT, 1)), (1, d(FRAMES, u32::MAX, 0, 0))]),
        ("shorter than its header", &[(0, d(FRAMES, 11, 0, 0))]),
        ("empty", &[(0, d(FRAMES, 0, 0, 0))]),
        ("writable", &[(0, d(FRAMES, 72, WRITE, 0))]),
        ("mixed", &[(0, d(FRAMES, 12, NEXT, 1)), (1, d(FRAMES, 60, WRITE, 0))]),
        ("indirect of no entry", &[(0, d(TABLES, 0, INDIRECT, 0))]),
        ("indirect of half an entry", &[(0, d(TABLES, 24, INDIRECT, 0))]),
        ("indirect too long", &[(0, d(TABLES, 16 * 1025, INDIRECT, 0))]),
        ("indirect huge", &[(0, d(TABLES, 0xffff_fff0, INDIRECT, 0))]),
        ("indirect with NEXT", &[(0, d(TABLES, 16, INDIRECT | NEXT, 1)), (1, d(FRAMES, 60, 0, 0))]),
        ("indirect unmapped", &[(0, d(HOLE, 16, INDIRECT, 0))]),
    ];
    let mut bad = 0;
    for (name, descriptors) in chains {
        for (index, descriptor) in *descriptors {
            guest.describe(*index, *descriptor).unwrap();
        }
        assert_eq!(guest.transmit(0).unwrap(), [(0, 0)], "{name}");
        bad += 1;
        assert_eq!(bench.drops(Reason::BadDescriptor), bad, "{name}");
        bench.nothing_arrives();
        bench.all_is_well(&mut guest);
    }
    // A table that refers to itself, and one whose link leaves it.
    for (flags, next) in [(INDIRECT, 0), (NEXT, 0), (NEXT, 1)] {
        d(TABLES, 16, flags, next).write(&guest.memory, TABLES).unwrap();
        guest.describe(0, d(TABLES, 16, INDIRECT, 0)).unwrap();
        assert_eq!(guest.transmit(0).unwrap(), [(0, 0)]);
        bad += 1;
        assert_eq!(bench.drops(Reason::BadDescriptor), bad);
        bench.all_is_well(&mut guest);
    }
    // Heads that are none come back as they were read.
    for head in [256, 0x7fff, 0xffff] {
        assert_eq!(guest.transmit(head).unwrap(), [(u32::from(head), 0)]);
        bad += 1;
        assert_eq!(bench.drops(Reason::BadDescriptor), bad);
        bench.all_is_well(&mut guest);
    }
    assert_eq!(bench.stats().drops.len(), 1);
}

/// VIO-043.
#[test]
fn one_head_twice_is_two_frames() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    let frame = dns(b"twice");
    guest.send(PLAIN, &frame, Layout::Linear).unwrap();
    bench.arrives();
    guest.post(TX, 0).unwrap();
    guest.post(TX, 0).unwrap();
    guest.kick(TX).unwrap();
    assert_eq!(guest.wait_used(TX, 2).unwrap(), [(0, 0), (0, 0)]);
    assert_eq!((bench.arrives().1, bench.arrives().1), (frame.clone(), frame));
    bench.all_is_well(&mut guest);
}

/// VIO-042: the ring stops, the worker does not, and a new set-up starts it again.
#[test]
fn an_index_that_runs_away_stops_its_ring_until_it_is_set_up_anew() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    bench.all_is_well(&mut guest);
    for jump in [257, 1000, 65_534] {
        for ring in [TX, RX] {
            let index = guest.ring(ring).avail_index(&guest.memory);
            guest.ring(ring).set_avail_index(&guest.memory, index.wrapping_add(jump)).unwrap();
            guest.ring(ring).kick_anyway().unwrap();
            bench.far().send(VnetHeader::NONE, &echo(b"waits")).unwrap();
            assert!(guest.stays_quiet(ring).unwrap());
            // It answers meanwhile, and does not spin.
            assert_eq!(bench.drops(Reason::BadDescriptor), 0);
            guest.reboot().unwrap();
            guest.post_buffers(1, 2048).unwrap();
            assert_eq!(guest.receive().unwrap().1, echo(b"waits"), "frames stay in the wire meanwhile");
            bench.all_is_well(&mut guest);
        }
    }
}

#[test]
fn a_stopped_ring_burns_no_time() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    bench.all_is_well(&mut guest);
    let index = guest.ring(TX).avail_index(&guest.memory);
    guest.ring(TX).set_avail_index(&guest.memory, index.wrapping_add(5000)).unwrap();
    guest.ring(TX).kick_anyway().unwrap();
    bench.far().send(VnetHeader::NONE, &echo(b"no buffer for it")).unwrap();
    bench.stats();
    let before = data_thread_ticks();
    thread::sleep(GRACE * 8);
    // Other tests' data threads run beside; one that spins would take nearly all of its time.
    if let (Some(before), Some(after)) = (before, data_thread_ticks()) {
        let spinning = before.iter().zip(&after).filter(|(a, b)| b.1.saturating_sub(a.1) > 40);
        assert_eq!(spinning.count(), 0, "a data thread spins");
    }
}

/// Clock ticks that the data threads of this process have used, by thread.
fn data_thread_ticks() -> Option<Vec<(String, u64)>> {
    let mut ticks = Vec::new();
    for entry in std::fs::read_dir("/proc/self/task").ok()? {
        let path = entry.ok()?.path();
        let Ok(stat) = std::fs::read_to_string(path.join("stat")) else { continue };
        if stat.contains("(data)") {
            let used = stat.rsplit(')').next()?.split_whitespace().skip(11).take(2);
            ticks.push((path.display().to_string(), used.filter_map(|text| text.parse::<u64>().ok()).sum()));
        }
    }
    ticks.sort();
    Some(ticks)
}

#[test]
fn a_ring_stops_at_its_used_index_and_goes_on_there() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    for _ in 0..5 {
        bench.all_is_well(&mut guest);
    }
    guest.post_buffers(100, 2048).unwrap();
    bench.stats();
    assert_eq!(guest.stop().unwrap(), [5, 5], "posted buffers are not used ones");
    bench.far().send(VnetHeader::NONE, &echo(b"stopped")).unwrap();
    assert!(guest.stays_quiet(RX).unwrap());
    guest.activate().unwrap();
    assert_eq!(
        guest.receive().unwrap().1,
        echo(b"stopped"),
        "though the base named skips every posted buffer"
    );
}

#[test]
fn a_guest_may_reboot_again_and_again() {
    let bench = Bench::new();
    for vmm in [Vmm::CloudHypervisor, Vmm::Qemu] {
        let mut guest = Guest::boot(&bench.socket, vmm, &[]).unwrap();
        for _ in 0..20 {
            bench.all_is_well(&mut guest);
            guest.reboot().unwrap();
        }
    }
}

#[test]
fn a_paused_ring_is_left_alone() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    guest.post_buffers(4, 2048).unwrap();
    guest.frontend.set_vring_enable(RX, false).unwrap();
    bench.far().send(VnetHeader::NONE, &echo(b"paused")).unwrap();
    assert!(guest.stays_quiet(RX).unwrap());
    guest.frontend.set_vring_enable(RX, true).unwrap();
    assert_eq!(guest.receive().unwrap().1, echo(b"paused"));
}

#[test]
fn memory_may_come_and_go() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    let frame = dns(b"from new memory");
    let bytes: Vec<u8> = PLAIN.iter().chain(&frame).copied().collect();
    for round in 0..10 {
        guest.plug_memory().unwrap();
        guest.memory.write_slice(&bytes, GuestAddress(PLUGGED + 100)).unwrap();
        let length = u32::try_from(bytes.len()).unwrap();
        let descriptor = Descriptor { address: PLUGGED + 100, length, flags: 0, next: 0 };
        guest.describe(0, descriptor).unwrap();
        guest.transmit(0).unwrap();
        assert_eq!(bench.arrives().1, frame);
        guest.unplug_memory().unwrap();
        guest.describe(0, descriptor).unwrap();
        assert_eq!(guest.transmit(0).unwrap(), [(0, 0)]);
        assert_eq!(bench.drops(Reason::BadDescriptor), round + 1);
        bench.all_is_well(&mut guest);
        guest.memory = guest.memory.remove_region(GuestAddress(PLUGGED), 0x10_0000).unwrap().0;
    }
}

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

#[test]
fn frozen_is_frozen_and_thawed_goes_on() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    bench.all_is_well(&mut guest);
    bench.worker.ask(Command::Freeze).unwrap();
    assert!(bench.stats().frozen);
    guest.post_buffers(1, 2048).unwrap();
    bench.far().send(VnetHeader::NONE, &echo(b"frozen")).unwrap();
    guest.post(TX, 0).unwrap();
    guest.kick(TX).unwrap();
    assert!(guest.stays_quiet(RX).unwrap() && guest.stays_quiet(TX).unwrap());
    bench.worker.ask(Command::Thaw).unwrap();
    assert_eq!(guest.receive().unwrap().1, echo(b"frozen"));
    guest.wait_used(TX, 1).unwrap();
    bench.arrives();
    bench.all_is_well(&mut guest);
}

#[test]
fn a_rejected_frame_is_answered_into_the_guests_buffers() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    guest.post_buffers(1, 2048).unwrap();
    guest.send(PLAIN, &udp(true, 113, b"who"), Layout::Linear).unwrap();
    let (_, answer) = guest.receive().unwrap();
    assert_eq!(
        (&answer[..6], &answer[26..30], answer[23], &answer[34..36]),
        (GUEST_MAC.as_slice(), PEER.as_slice(), 1, [3, 13].as_slice(),)
    );
    bench.nothing_arrives();
    bench.all_is_well(&mut guest);
}

#[test]
fn drivers_that_acknowledge_less_are_served_too() {
    let version_1 = VIRTIO_F_VERSION_1;
    let sets: [&[u32]; 4] = [
        &[VIRTIO_RING_F_EVENT_IDX],
        &[VIRTIO_NET_F_MRG_RXBUF],
        &[version_1, VIRTIO_NET_F_MRG_RXBUF],
        &[version_1, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC],
    ];
    let bench = Bench::new();
    for without in sets {
        let mut guest = Guest::boot(&bench.socket, Vmm::Qemu, without).unwrap();
        for _ in 0..50 {
            bench.all_is_well(&mut guest);
        }
    }
    let mut guest = Guest::boot(&bench.socket, Vmm::Qemu, &[VIRTIO_RING_F_INDIRECT_DESC]).unwrap();
    guest.send(PLAIN, &dns(b"nobody agreed on this"), Layout::Indirect).unwrap();
    bench.nothing_arrives();
    assert_eq!(bench.drops(Reason::BadDescriptor), 1);
}

#[test]
fn a_vmm_may_come_again() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    guest.post_buffers(60, 2048).unwrap();
    for round in 0..20_u8 {
        bench.far().send(VnetHeader::NONE, &echo(&[round])).unwrap();
        assert_eq!(guest.receive().unwrap().1, echo(&[round]));
        guest = guest.reconnect(&bench.socket).unwrap();
        guest.send(PLAIN, &dns(&[round]), Layout::Linear).unwrap();
        assert_eq!(bench.arrives().1, dns(&[round]));
    }
}

/// VHU-004.
#[test]
fn connections_leak_no_descriptors() {
    let bench = Bench::new();
    let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    bench.all_is_well(&mut bench.boot());
    let before = count();
    for _ in 0..150 {
        drop(bench.boot());
    }
    // Other tests open and close beside this one.
    assert!(count() < before + 100, "{} -> {}", before, count());
}

/// VHU-001, 002, 003: a message that is none ends its connection and nothing else.
#[test]
fn garbage_ends_its_own_connection() {
    let bench = Bench::new();
    let messages: [&[u8]; 7] = [
        &[],
        &[1],
        &[0xff; 12],
        &[0xff; 4096],
        // SET_VRING_NUM of ring 0xffff_ffff.
        &[8, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0],
        // SET_LOG_BASE whose size and offset overflow, without its descriptor.
        &[
            6, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0, 0xff,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        ],
        // The first half of a SET_MEM_TABLE.
        &[5, 0, 0, 0, 1, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0],
    ];
    for message in messages {
        let mut vmm = UnixStream::connect(&bench.socket).unwrap();
        vmm.write_all(message).unwrap();
        drop(vmm);
        bench.all_is_well(&mut bench.boot());
    }
    // Features that were not offered, rings that are not there, requests that are not supported.
    for act in 0..4 {
        let mut guest = bench.boot();
        let _ = match act {
            0 => guest.frontend.set_features(u64::MAX),
            1 => guest.frontend.reset_device(),
            2 => guest.frontend.set_vring_num(1, 0),
            _ => guest.frontend.set_vring_num(1, 4096),
        };
        drop(guest);
        bench.all_is_well(&mut bench.boot());
    }
}

/// VHU-011.
#[test]
fn a_second_vmm_waits_and_does_not_disturb_the_first() {
    let bench = Bench::new();
    let mut first = bench.boot();
    let socket = bench.socket.clone();
    let second = thread::spawn(move || Guest::boot(&socket, Vmm::CloudHypervisor, &[]).unwrap());
    for _ in 0..20 {
        bench.all_is_well(&mut first);
    }
    assert!(!second.is_finished());
    drop(first);
    bench.all_is_well(&mut second.join().unwrap());
}

#[test]
fn a_uplink_that_is_gone_ends_serving() {
    let mut bench = Bench::new();
    let mut guest = bench.boot();
    bench.all_is_well(&mut guest);
    guest.post_buffers(1, 2048).unwrap();
    bench.far = None;
    let ended = bench.ended();
    assert!(matches!(ended, Err(ServeError::UplinkGone(_))), "{ended:?}");
    assert!(bench.worker.ask(Command::Stats).is_err());
}

#[test]
fn serving_ends_when_told_with_a_vmm_connected_and_takes_its_socket_away() {
    let mut bench = Bench::new();
    let mut guest = bench.boot();
    bench.all_is_well(&mut guest);
    bench.end().unwrap();
    assert!(!bench.socket.exists());
}

#[test]
fn a_client_connects_to_the_vmm_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vmm.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let bench = Bench::at(Endpoint::Client(socket.clone()), socket, folder);
    for _ in 0..3 {
        let (stream, _) = listener.accept().unwrap();
        let mut guest = Guest::boot_on(stream, Vmm::Qemu, &[]).unwrap();
        bench.all_is_well(&mut guest);
    }
}

/// VIO-060 to 062: a vCPU rewrites the frame while it is judged. What leaves is what was judged.
#[test]
fn a_frame_rewritten_while_it_is_judged_leaves_as_it_was_judged() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    let good = dns(&payload(300));
    let port = GuestAddress(FRAMES + 12 + 36);
    let address = GuestAddress(FRAMES + 12 + 26);
    let running = Arc::new(AtomicBool::new(true));
    let flipping = {
        let (memory, running) = (guest.memory.clone(), Arc::clone(&running));
        thread::spawn(move || {
            while running.load(Ordering::Relaxed) {
                memory.write_slice(&22_u16.to_be_bytes(), port).unwrap();
                memory.write_slice(&[192, 0, 2, 1], address).unwrap();
                memory.write_slice(&53_u16.to_be_bytes(), port).unwrap();
                memory.write_slice(&GUEST, address).unwrap();
            }
        })
    };
    let mut left = 0;
    for round in 0..3000 {
        let header = if round % 2 == 0 { NEEDS_CSUM } else { PLAIN };
        guest.send(header, &good, Layout::Linear).unwrap();
        while let Some((_, out)) = bench.far().recv().unwrap() {
            assert_eq!((&out[26..30], &out[36..38]), (GUEST.as_slice(), [0, 53].as_slice()));
            left += 1;
        }
    }
    running.store(false, Ordering::Relaxed);
    flipping.join().unwrap();
    assert!(left > 0, "none was caught unharmed: {:?}", bench.stats());
    bench.all_is_well(&mut guest);
}

/// VIO-068, 085: descriptors, tables and rings change while they are read, and memory goes.
#[test]
fn a_ring_rewritten_while_it_is_read_harms_nobody_else() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    let running = Arc::new(AtomicBool::new(true));
    let descriptors = [guest.ring(TX).descriptors, guest.ring(RX).descriptors];
    let flipping = {
        let (memory, running) = (guest.memory.clone(), Arc::clone(&running));
        thread::spawn(move || {
            let words = [0, u64::MAX, FRAMES, HOLE - 20, 60 | 1 << 32, 72, 16 | 4 << 32, 2048 | 2 << 32];
            let mut seed = 88_172_645_463_325_252_u64;
            while running.load(Ordering::Relaxed) {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let table = descriptors[usize::from(seed & 1 == 0)];
                let at = table + 8 * (seed >> 8 & 7);
                let word = words[usize::try_from(seed >> 20 & 7).unwrap()];
                memory.write_obj(word, GuestAddress(at)).unwrap();
            }
        })
    };
    for round in 0..400_u16 {
        guest.post_buffer(round % 4, 2048).unwrap();
        guest.kick(RX).unwrap();
        let _ = bench.far().send(VnetHeader::NONE, &echo(&payload(usize::from(round))));
        guest.post(TX, round % 4).unwrap();
        guest.kick(TX).unwrap();
        guest.wait_used(TX, 1).unwrap();
    }
    running.store(false, Ordering::Relaxed);
    flipping.join().unwrap();
    while bench.far().recv().unwrap().is_some() {}
    guest.reboot().unwrap();
    guest.post_buffers(200, 2048).unwrap();
    // What waited in the wire comes first.
    let mut sent = false;
    let mut last = Vec::new();
    while last != echo(b"the end") {
        sent = sent || bench.far().send(VnetHeader::NONE, &echo(b"the end")).is_ok();
        for (id, length) in guest.wait_used(RX, 1).unwrap() {
            let mut bytes = vec![0; usize::try_from(length).unwrap()];
            let at = GuestAddress(BUFFERS + BUFFER_STRIDE * u64::from(id));
            guest.memory.read_slice(&mut bytes, at).unwrap();
            last = bytes.split_off(12);
            guest.post_buffer(u16::try_from(id).unwrap(), 2048).unwrap();
        }
        guest.kick(RX).unwrap();
    }
}

#[test]
fn the_onlooker_sees_refusals_and_what_a_rule_logs() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    bench.all_is_well(&mut guest);
    let refused = udp(true, 22, &payload(300));
    guest.send(NEEDS_CSUM, &refused, Layout::Linear).unwrap();
    guest.send(PLAIN, &udp(true, 113, b"who"), Layout::Linear).unwrap();
    guest.send(PLAIN, &tcp(true, 100, None, &[]), Layout::Linear).unwrap();
    let shown = bench.shown.lock().unwrap();
    let told: Vec<_> = shown
        .iter()
        .map(|seen| (seen.verdict, seen.reason, seen.rule.as_ref().map(fw_model::RuleId::as_str)))
        .collect();
    assert_eq!(
        told,
        [
            (VerdictName::Drop, Reason::DefaultDrop, None),
            (VerdictName::Reject, Reason::RuleReject, Some("ident")),
            (VerdictName::Pass, Reason::New, Some("web")),
        ]
    );
    assert_eq!((shown[0].head_len, shown[0].length), (64, refused.len()));
    assert_eq!(shown[0].head, refused[..64]);
}

/// A TCP segment between the guest's port 5000 and the peer's port 80.
fn tcp(out: bool, sequence: u32, acknowledges: Option<u32>, payload: &[u8]) -> Vec<u8> {
    let (from_mac, to_mac, from, to, from_port, to_port) = if out {
        (GUEST_MAC, PEER_MAC, GUEST, PEER, 5000, 80)
    } else {
        (PEER_MAC, GUEST_MAC, PEER, GUEST, 80, 5000)
    };
    let builder = PacketBuilder::ethernet2(from_mac, to_mac).ipv4(from, to, 64);
    let builder = builder.tcp(from_port, to_port, sequence, 65_535);
    let builder = if payload.is_empty() { builder.syn() } else { builder };
    let builder = match acknowledges {
        Some(number) => builder.ack(number),
        None => builder,
    };
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).unwrap();
    frame
}

#[test]
fn super_segments_pass_both_ways_in_one_piece() {
    let bench = Bench::new();
    let mut guest = bench.boot();
    guest.send(PLAIN, &tcp(true, 100, None, &[]), Layout::Linear).unwrap();
    bench.arrives();
    guest.post_buffers(1, 2048).unwrap();
    bench.far().send(VnetHeader::NONE, &tcp(false, 900, Some(101), &[])).unwrap();
    guest.receive().unwrap();
    // NEEDS_CSUM, TCPV4, headers of 54, segments of 1448, checksum at 34 + 16.
    let gso = [1, 1, 54, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0];
    let big = tcp(true, 101, Some(901), &payload(32_000));
    for (round, layout) in
        (0_u32..).zip([Layout::Linear, Layout::Split(12), Layout::Indirect, Layout::Split(5000)])
    {
        guest.send(gso, &big, layout).unwrap();
        let (vnet, out) = bench.arrives();
        assert_eq!((vnet.flags, vnet.gso_type, vnet.gso_size, vnet.csum_start), (1, 1, 1448, 34), "{round}");
        assert_eq!((&out[..50], &out[52..]), (&big[..50], &big[52..]));
    }
    let back = tcp(false, 901, Some(32_101), &payload(32_000));
    guest.post_buffers(64, 2048).unwrap();
    bench.far().send(VnetHeader::from_bytes(gso), &back).unwrap();
    let (header, got) = guest.receive().unwrap();
    assert_eq!((header[1], header[10]), (1, 16));
    assert_eq!((&got[..50], &got[52..]), (&back[..50], &back[52..]));
}

/// The data thread is woken by edges alone: a peer that comes, goes and sends in bursts must not be slept over.
#[test]
fn an_uplink_whose_peers_come_and_go_is_heard_every_time() {
    use rustix::net::{self, AddressFamily, SendFlags, SocketAddrUnix, SocketType};
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vhost.sock");
    let path = folder.path().join("uplink.sock");
    let uplink = Unix::listen(&path, None).unwrap();
    let bench = Bench::over(Box::new(uplink), Endpoint::Listen(socket.clone()), socket, folder);
    let mut guest = bench.boot();
    for _ in 0..5 {
        let peer = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        net::connect(&peer, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        for round in 0..40_u8 {
            let frame = echo(&[round]);
            let record: Vec<u8> = PLAIN.iter().chain(&frame).copied().collect();
            if round % 8 == 0 {
                thread::sleep(GRACE / 20);
            }
            guest.post_buffers(1, 2048).unwrap();
            net::send(&peer, &record, SendFlags::empty()).unwrap();
            assert_eq!(guest.receive().unwrap().1, frame);
        }
    }
}
