//! A VMM that pulls the memory away from under its firewall hurts itself and nobody else.
//!
//! Real processes: what happens here ends one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic here is the report")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use fw_tests::device::{PLAIN, RULES, dns};
use fw_tests::firewall::{Firewall, Uplink};
use fw_tests::guest::{Guest, Layout, PATIENCE, TX, Vmm};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

fn firewall(nic: &str, words: &[&str], folder: &tempfile::TempDir) -> Firewall {
    // The NIC's own user passes through.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let _ = fw_tests::program::vhost_fw();
    let rules = RULES.replace("web-1", nic);
    Firewall::start_with(nic, &rules, Uplink::Null, words, folder.path())
        .unwrap_or_else(|error| panic!("{error:?}"))
}

fn judged(firewall: &Firewall) -> u64 {
    firewall.stats().unwrap().pointer("/frames/out").and_then(|count| count.as_u64()).unwrap()
}

/// The guest's memory shrinks to nothing, and its next kick makes the firewall look there.
fn pull_memory_away(guest: &Guest) {
    for region in guest.memory.iter() {
        region.file_offset().unwrap().file().set_len(0).unwrap();
    }
    guest.nudge(TX).unwrap();
}

/// VHU-007: its own process ends by a signal, closed; the neighbour's is another one.
#[test]
fn a_vmm_that_truncates_its_memory_ends_its_own_firewall() {
    let folder = tempfile::tempdir().unwrap();
    let (alone, neighbour) = (firewall("web-1", &[], &folder), firewall("web-2", &[], &folder));
    let guest = Guest::boot(&alone.socket(), Vmm::Qemu, &[]).unwrap();
    let mut other = Guest::boot(&neighbour.socket(), Vmm::Qemu, &[]).unwrap();
    pull_memory_away(&guest);
    let end = Instant::now() + PATIENCE;
    while alone.stats().is_ok() {
        assert!(Instant::now() < end, "it goes on without its memory");
        thread::sleep(Duration::from_millis(10));
    }
    other.send(PLAIN, &dns(b"still here"), Layout::Linear).unwrap();
    assert_eq!(judged(&neighbour), 1);
    std::mem::forget(guest);
}

/// Behind a keeper one worker after another looks there, with pauses; the next VMM finds all as it should be.
#[test]
fn behind_a_keeper_the_next_vmm_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let kept = firewall("web-1", &["--keeper"], &folder);
    let guest = Guest::boot(&kept.socket(), Vmm::Qemu, &[]).unwrap();
    pull_memory_away(&guest);
    thread::sleep(Duration::from_millis(500));
    assert!(fs::metadata(format!("/proc/{}", kept.id())).is_ok(), "the keeper lives");
    drop(guest.frontend);
    let end = Instant::now() + 8 * PATIENCE;
    while !kept.log_tail().contains("the VMM is gone") {
        assert!(Instant::now() < end, "{}", kept.log_tail());
        thread::sleep(Duration::from_millis(20));
    }
    let mut next = Guest::boot(&kept.socket(), Vmm::Qemu, &[]).unwrap();
    next.send(PLAIN, &dns(b"and here"), Layout::Linear).unwrap();
    assert_eq!(judged(&kept), 1);
}
