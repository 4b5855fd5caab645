//! Rings as nobody should make them, rings that change while they are read, and rings that stop and go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self};

use fw_engine::VnetHeader;
use fw_model::Reason;
use fw_tests::device::{Bench, GUEST, NEEDS_CSUM, PLAIN, dns, echo, payload};
use fw_tests::guest::{
    BUFFER_STRIDE, BUFFERS, Descriptor, FRAMES, GRACE, Guest, HOLE, INDIRECT, Layout, NEXT, PLUGGED, RX,
    TABLES, TX, Vmm, WRITE,
};
use vhost::vhost_user::VhostUserFrontend;
use vm_memory::{Bytes, GuestAddress};

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
