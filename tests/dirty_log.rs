//! Every page of the guest that we write is in the VMM's log, from the moment it is set until it is no longer wanted.
#![cfg(test)]

use conn_snapshot::Key;
use fw_engine::VnetHeader;
use fw_tests::device::{Bench, PLAIN, dns, echo};
use fw_tests::guest::{BUFFER_STRIDE, BUFFERS, Guest, Layout, RX, TX, Vmm};
use vhost::VhostBackend;
use vhost_fw::handover::{HandoverOptions, Restore};

fn bench() -> Bench {
    let nic = "web-1".parse().unwrap();
    let key = Key::new(&[1; 32]);
    Bench::moving(HandoverOptions { nic, key, restore: Restore::Revalidate, conns: 4096 })
}

/// One frame each way.
fn traffic(bench: &Bench, guest: &mut Guest, buffer: u16) {
    guest.send(PLAIN, &dns(b"out"), Layout::Linear).unwrap();
    bench.arrives();
    guest.post_buffer(buffer, 2048).unwrap();
    guest.kick(RX).unwrap();
    bench.far().send(VnetHeader::NONE, &echo(&[9; 1400])).unwrap();
    guest.receive().unwrap();
}

/// VHU-014.
#[test]
fn every_page_we_write_is_marked_and_no_other() {
    for vmm in [Vmm::CloudHypervisor, Vmm::Qemu] {
        let bench = bench();
        let mut guest = Guest::boot(&bench.socket, vmm, &[]).unwrap();
        let log = guest.start_log().unwrap();
        // Buffer 3 stands across two pages: BUFFERS + 3 * 0x800 is the second half of one.
        for buffer in [0, 3] {
            traffic(&bench, &mut guest, buffer);
            let at = BUFFERS + BUFFER_STRIDE * u64::from(buffer);
            assert!(log.has(at).unwrap() && log.has(at + 1400).unwrap(), "buffer {buffer}");
        }
        for ring in [RX, TX] {
            assert!(log.has(guest.ring(ring).used).unwrap(), "the used ring {ring}");
        }
        // Two used rings, the buffers' pages, and nothing that is only read.
        assert!(!log.has(guest.ring(TX).descriptors).unwrap());
        assert!(!log.has(guest.ring(RX).avail).unwrap());
        let pages = log.count().unwrap();
        assert!((4..=6).contains(&pages), "{pages} pages");
    }
}

#[test]
fn a_fresh_log_starts_empty_and_the_old_one_is_left_alone() {
    let bench = bench();
    let mut guest = Guest::boot(&bench.socket, Vmm::CloudHypervisor, &[]).unwrap();
    let first = guest.start_log().unwrap();
    traffic(&bench, &mut guest, 0);
    let second = guest.next_log().unwrap();
    let marked = first.count().unwrap();
    traffic(&bench, &mut guest, 4);
    assert_eq!(first.count().unwrap(), marked);
    let at = BUFFERS + 4 * BUFFER_STRIDE;
    assert!(second.has(at).unwrap() && !first.has(at).unwrap());
}

/// QEMU sends a new memory table without a new log.
#[test]
fn a_log_survives_a_new_memory_table_and_reaches_plugged_memory() {
    let bench = bench();
    let mut guest = Guest::boot(&bench.socket, Vmm::Qemu, &[]).unwrap();
    let log = guest.start_log().unwrap();
    guest.set_memory_again().unwrap();
    traffic(&bench, &mut guest, 2);
    assert!(log.has(BUFFERS + 2 * BUFFER_STRIDE).unwrap());
}

#[test]
fn an_aborted_migration_ends_the_log() {
    for vmm in [Vmm::CloudHypervisor, Vmm::Qemu] {
        let bench = bench();
        let mut guest = Guest::boot(&bench.socket, vmm, &[]).unwrap();
        let log = guest.start_log().unwrap();
        traffic(&bench, &mut guest, 0);
        guest.stop_log().unwrap();
        let marked = log.count().unwrap();
        traffic(&bench, &mut guest, 6);
        assert_eq!(log.count().unwrap(), marked);
        // And the next one begins.
        let again = guest.start_log().unwrap();
        traffic(&bench, &mut guest, 8);
        assert!(again.has(BUFFERS + 8 * BUFFER_STRIDE).unwrap());
    }
}

/// VHU-003.
#[test]
fn a_log_that_cannot_hold_the_memory_is_refused() {
    for (size, offset) in [(0, 0), (1, 0), (8, 0), (u64::MAX, 0), (4096, u64::MAX), (4096, 1)] {
        let bench = bench();
        let mut guest = Guest::boot(&bench.socket, Vmm::CloudHypervisor, &[]).unwrap();
        assert!(guest.odd_log(size, offset).is_err(), "{size} at {offset}");
        drop(guest);
        let mut next = Guest::boot(&bench.socket, Vmm::CloudHypervisor, &[]).unwrap();
        bench.all_is_well(&mut next);
    }
}

/// SET_VRING_ADDR on rings that run, at the start and the end of every log, takes no frame back.
#[test]
fn rings_run_on_while_logs_come_and_go() {
    let bench = bench();
    let mut guest = Guest::boot(&bench.socket, Vmm::Qemu, &[]).unwrap();
    for _ in 0..50 {
        guest.start_log().unwrap();
        traffic(&bench, &mut guest, 0);
        guest.stop_log().unwrap();
        traffic(&bench, &mut guest, 0);
    }
    assert_eq!(bench.stats().frames.out, 100);
    guest.frontend.set_features(guest.features).unwrap();
}
