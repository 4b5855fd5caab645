//! A firewall is killed and started again: conns that lived go on, and what never was one does not.
#![cfg(test)]

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fw_tests::far_end::FarEnd;
use fw_tests::firewall::{Firewall, Uplink};
use fw_tests::guest::{Guest, Layout, Vmm};
use fw_tests::places::{guest, peer, rules};
use fw_tests::program;
use fw_tests::wire::{self, Segment};

const PLAIN: [u8; 12] = [0; 12];
const WEB: &str = "id: web, direction: out, action: allow, protocol: tcp, ports: [80]";

/// How soon a frame comes that comes.
const SOON: Duration = Duration::from_millis(500);

fn killed_and_revived(state: bool) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
    program::build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copies = folder.path().join("state");
    let copies = copies.display().to_string();
    let words: &[&str] = if state { &["--state-dir", &copies] } else { &[] };
    let path = folder.path().join("wire.sock");
    let text = rules("drop/drop", &[WEB]);
    let mut firewall =
        Firewall::start_with("web-1", &text, Uplink::Unix(path.clone()), words, folder.path()).unwrap();
    let mut vm = Guest::boot(&firewall.socket(), Vmm::Qemu, &[]).unwrap();
    vm.post_buffers(16, 2048).unwrap();
    let mut net = FarEnd::of(path);
    net.connect();
    let (client, server) = (guest(40_000), peer(80));
    // A guest sends again what is not answered: the uplink may not have heard of its new peer yet.
    let out = |vm: &mut Guest, net: &mut FarEnd, segment: &Segment| {
        (0..5).find_map(|_| {
            vm.send(PLAIN, &wire::tcp(&client, &server, segment), Layout::Linear).unwrap();
            net.take(SOON)
        })
    };
    assert!(out(&mut vm, &mut net, &Segment::syn(1_000)).is_some());
    net.put(&wire::tcp(&server, &client, &Segment { syn: true, ..Segment::ack(9_000, 1_001) }));
    vm.receive().unwrap();
    assert!(out(&mut vm, &mut net, &Segment::ack(1_001, 9_001)).is_some());
    // Older than windows may be in the copy.
    std::thread::sleep(Duration::from_millis(250));
    firewall.revive().unwrap();
    let mut vm = vm.reconnect(&firewall.socket()).unwrap();
    net.let_go();
    net.connect();
    let goes_on = out(&mut vm, &mut net, &Segment { payload: 10, ..Segment::ack(1_001, 9_001) });
    let stranger = wire::tcp(&guest(40_001), &server, &Segment { payload: 10, ..Segment::ack(1_001, 9_001) });
    vm.send(PLAIN, &stranger, Layout::Linear).unwrap();
    let is_strangers = |frame: &Vec<u8>| frame.get(34..36) == Some(&40_001_u16.to_be_bytes()[..]);
    (goes_on, std::iter::from_fn(|| net.take(SOON)).find(is_strangers))
}

#[test]
fn a_conn_outlives_its_firewall_and_a_stranger_gains_nothing() {
    let (goes_on, stranger) = killed_and_revived(true);
    assert!(goes_on.is_some(), "the conn died with its firewall");
    assert_eq!(stranger, None, "what never was a conn passed");
}

#[test]
fn without_a_copy_it_dies() {
    assert_eq!(killed_and_revived(false), (None, None));
}

#[test]
fn no_room_for_a_copy_is_told_before_anything_is_served() {
    program::build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("state"), "in the way").unwrap();
    let copies = folder.path().join("state").display().to_string();
    let text = rules("drop/drop", &[WEB]);
    let path = folder.path().join("wire.sock");
    let words = ["--state-dir", copies.as_str()];
    let refused = Firewall::start_with("web-1", &text, Uplink::Unix(path.clone()), &words, folder.path());
    let told = format!("{:#}", refused.unwrap_err());
    assert!(told.contains("--state-dir needs"), "{told}");
    assert!(UnixStream::connect(folder.path().join("web-1/vhost.sock")).is_err());
}
