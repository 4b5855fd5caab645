//! VMMs that come, go, come again and say what nobody should: each harms its own connection alone.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self};

use fw_engine::VnetHeader;
use fw_tests::device::{Bench, PLAIN, dns, echo};
use fw_tests::guest::{Guest, Layout, Vmm};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost_fw::serve::{Endpoint, ServeError};
use vhost_fw::worker::Command;

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
