//! Real taps and bridges in a network of their own, and the sockets that need none.
//!
//! A test that needs a device starts itself again as root of a new user and network namespace, and runs there. Where
//! that is not possible it says so and does nothing.

mod wire;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use fw_engine::{GuestOffloads, VnetHeader};
use rtnetlink::{LinkBridge, LinkHandle};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use self::wire::{Wire, in_own_network};
use super::*;
use crate::queue::fixture::Parts;

const PLAIN: [u8; 12] = [0; 12];
const ALL_OFFLOADS: GuestOffloads = GuestOffloads { csum: true, tso4: true, tso6: true, ecn: true };

/// A frame of 14 + `payload` bytes from and to nobody, of the type kept for experiments: no host looks into it.
fn frame(payload: usize) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 0x99, 0x02, 0, 0, 0, 0, 0x01, 0x88, 0xb5, 0x00];
    frame.extend((1..payload).map(|number| u8::try_from(number % 251).unwrap()));
    frame
}

fn make_bridge(name: &'static str, mtu: u32) {
    link::run(async |links: LinkHandle| {
        links.add(LinkBridge::new(name).mtu(mtu).up().build()).execute().await
    })
    .unwrap();
}

fn remove(name: &str) {
    let index = link::find(name).unwrap().unwrap().index;
    link::run(async |links: LinkHandle| links.del(index).execute().await).unwrap();
}

/// Whether the uplink's descriptor becomes readable (or in error) within two seconds.
fn wakes(uplink: &impl Uplink) -> bool {
    // SAFETY: the descriptor belongs to `uplink`, which outlives the poll.
    #[expect(unsafe_code, reason = "the trait gives numbers, poll wants descriptors")]
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(uplink.readable_fd().unwrap()) };
    let two_seconds = Timespec { tv_sec: 2, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&two_seconds)).unwrap() > 0
}

/// Reads until a frame comes that `wanted` knows, for two seconds.
fn recv_until(uplink: &mut impl Uplink, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut buffer = vec![0xee; 70_000];
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        match uplink.recv(&mut buffer).unwrap() {
            Some(length) if wanted(&buffer[12..length]) => return buffer[..length].to_vec(),
            Some(_) => {}
            None => std::thread::sleep(Duration::from_millis(2)),
        }
    }
    panic!("no such frame came");
}

/// Whether this frame comes within 50 ms.
fn comes(uplink: &mut impl Uplink, frame: &[u8]) -> bool {
    let mut buffer = [0; 2000];
    (0..10).any(|_| match uplink.recv(&mut buffer).unwrap() {
        Some(length) => buffer[12..length] == *frame,
        None => {
            std::thread::sleep(Duration::from_millis(5));
            false
        }
    })
}

#[test]
fn the_forms_of_uplink_are_read() {
    assert_eq!("null".parse::<UplinkChoice>().unwrap(), UplinkChoice::Null);
    let unix: UplinkChoice = "unix:/run/a:b.sock".parse().unwrap();
    assert_eq!(unix, UplinkChoice::Unix("/run/a:b.sock".into()));
    assert!(unix.listens() && !UplinkChoice::Null.listens());
    for wrong in ["", "unix", "unix:", "null:", "tap:x", "Null"] {
        let error = wrong.parse::<UplinkChoice>().unwrap_err().to_string();
        assert!(error.contains("expected `null` or `unix:PATH`"), "{error}");
    }
}

#[test]
fn a_long_nic_id_is_cut_and_told_apart() {
    let name = |nic: &str| bridge::tap_name(&nic.parse().unwrap());
    assert_eq!(name("web-1"), "pc-web-1");
    assert_eq!(name("123456789012"), "pc-123456789012");
    let (one, two) = (name("customer-42-web-1"), name("customer-42-web-2"));
    assert!(one.starts_with("pc-custo-") && one.len() == 15, "{one}");
    assert_ne!(one, two);
}

#[test]
fn offloads_are_asked_for_as_the_kernel_allows() {
    let none = GuestOffloads { csum: false, tso4: false, tso6: false, ecn: false };
    assert_eq!(tun::offload_bits(none), 0);
    assert_eq!(tun::offload_bits(ALL_OFFLOADS), 1 | 2 | 4 | 8);
    assert_eq!(tun::offload_bits(GuestOffloads { csum: false, ..ALL_OFFLOADS }), 0);
    assert_eq!(tun::offload_bits(GuestOffloads { csum: true, ecn: true, ..none }), 1);
    assert_eq!(tun::offload_bits(GuestOffloads { csum: true, tso6: true, ecn: true, ..none }), 1 | 4 | 8);
}

#[test]
fn names_no_device_can_have_are_refused() {
    for name in ["", "sixteen-letters-", "a/b", "tap%d", "a b", "a:b", ".", "..", "täp"] {
        assert!(
            matches!(Tap::open(name, None), Err(UplinkError::Name(_) | UplinkError::Link { .. })),
            "{name}"
        );
    }
}

#[test]
fn what_is_written_to_a_tap_reaches_the_host_as_one_frame() {
    if !in_own_network("what_is_written_to_a_tap_reaches_the_host_as_one_frame") {
        return;
    }
    let mut tap = Tap::open("t0", None).unwrap();
    let wire = Wire::open("t0");
    let frame = frame(1400);
    let (head, tail) = frame.split_at(256);
    // As a guest may lay it out: whole, in three parts, and in more parts than one write takes.
    for parts in [1, 3, 22, 23, tail.len()] {
        let tail = Parts::of(tail.chunks(tail.len().div_ceil(parts)));
        assert_eq!(tap.write(&record(head), &tail.slices()).unwrap(), Sent::Yes);
        assert_eq!(wire.recv(), frame, "{parts} parts");
    }
    assert_eq!(tap.write(&record(&frame), &[]).unwrap(), Sent::Yes);
    assert_eq!(wire.recv(), frame);
}

#[test]
fn a_frame_no_tap_takes_is_refused_and_the_next_one_goes() {
    if !in_own_network("a_frame_no_tap_takes_is_refused_and_the_next_one_goes") {
        return;
    }
    let mut tap = Tap::open("t0", None).unwrap();
    let mut nonsense = PLAIN;
    nonsense[1] = 0x7f;
    assert_eq!(tap.write(&[&nonsense[..], &frame(100)].concat(), &[]).unwrap(), Sent::Refused);
    let endless = Parts::of([0; 200_000].chunks(1000));
    assert_eq!(tap.write(&record(&frame(100)), &endless.slices()).unwrap(), Sent::Refused);
    assert_eq!(tap.write(&record(&frame(100)), &[]).unwrap(), Sent::Yes);
}

#[test]
fn a_frame_from_the_host_is_read_with_its_header() {
    if !in_own_network("a_frame_from_the_host_is_read_with_its_header") {
        return;
    }
    let mut tap = Tap::open("t0", Some(1400)).unwrap();
    assert_eq!(tap.mtu(), 1400);
    let wire = Wire::open("t0");
    let frame = frame(1000);
    wire.send(&frame);
    assert!(wakes(&tap));
    let record = recv_until(&mut tap, |bytes| bytes == frame);
    assert_eq!(&record[..2], &[0, 0], "neither flags nor GSO");
    wire.send(&frame);
    assert!(wakes(&tap));
    let mut short = [0xee; 100];
    assert_eq!(tap.recv(&mut short[..60]).unwrap(), Some(60), "a longer frame is cut");
    assert_eq!(&short[12..60], &frame[..48]);
    assert_eq!(short[60..], [0xee; 40], "and never spilt");
    assert_eq!(tap.recv(&mut short).unwrap(), None);
}

#[test]
fn a_tap_made_here_is_set_up_and_the_host_says_nothing_on_it() {
    if !in_own_network("a_tap_made_here_is_set_up_and_the_host_says_nothing_on_it") {
        return;
    }
    let mut tap = Tap::open("t0", Some(9000)).unwrap();
    let link = link::find("t0").unwrap().unwrap();
    assert!(link.is_up && link.queue == 4096 && link.mtu == 9000, "{link:?}");
    // Duplicate address detection and router solicitation would come within two seconds.
    let mut buffer = [0; 2000];
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(2500) {
        if let Some(length) = tap.recv(&mut buffer).unwrap() {
            let [kind, source_start @ ..] = &buffer[12 + 12..length] else { panic!() };
            assert_eq!((kind, &source_start[9..25]), (&0x86, &[0; 16][..]), "the host speaks for itself");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn without_offloads_the_kernel_completes_checksums() {
    if !in_own_network("without_offloads_the_kernel_completes_checksums") {
        return;
    }
    let mut tap = Tap::open("t0", None).unwrap();
    let speaker = wire::speaker("t0");
    let ask = |tap: &mut Tap| {
        speaker.send_to(b"hello", "10.9.0.255:7").unwrap();
        let record = recv_until(tap, |frame| frame.ends_with(b"hello"));
        record[0] & 1 == 1
    };
    assert!(!ask(&mut tap), "nothing is left open before the guest said so");
    tap.set_offloads(ALL_OFFLOADS).unwrap();
    assert!(ask(&mut tap), "NEEDS_CSUM once it did");
    tap.set_offloads(GuestOffloads { csum: false, ..ALL_OFFLOADS }).unwrap();
    assert!(!ask(&mut tap));
}

#[test]
fn a_tap_that_somebody_holds_is_named() {
    if !in_own_network("a_tap_that_somebody_holds_is_named") {
        return;
    }
    let first = Tap::open("t0", None).unwrap();
    let error = Tap::open("t0", None).unwrap_err();
    assert!(matches!(&error, UplinkError::Busy(name) if name == "t0"), "{error}");
    drop(first);
    Tap::open("t0", None).unwrap();
    assert!(matches!(Tap::open("lo", None), Err(UplinkError::NotATap(_))));
}

#[test]
fn a_tap_that_vanished_is_gone_for_good() {
    if !in_own_network("a_tap_that_vanished_is_gone_for_good") {
        return;
    }
    let mut tap = Tap::open("t0", None).unwrap();
    remove("t0");
    assert!(wakes(&tap), "the worker hears of it");
    assert!(tap.recv(&mut [0; 2000]).is_err());
    assert!(tap.write(&record(&frame(100)), &[]).is_err());
    assert!(tap.set_offloads(ALL_OFFLOADS).is_err());
}

#[test]
fn a_tap_that_is_down_refuses_until_it_is_up_again() {
    if !in_own_network("a_tap_that_is_down_refuses_until_it_is_up_again") {
        return;
    }
    let mut tap = Tap::open("t0", None).unwrap();
    let index = link::find("t0").unwrap().unwrap().index;
    let down = rtnetlink::LinkUnspec::new_with_index(index).down().build();
    link::run(async |links: LinkHandle| links.change(down).execute().await).unwrap();
    assert_eq!(tap.write(&record(&frame(100)), &[]).unwrap(), Sent::Refused);
    assert_eq!(tap.recv(&mut [0; 2000]).unwrap(), None);
    link::bring_up(index).unwrap();
    assert_eq!(tap.write(&record(&frame(100)), &[]).unwrap(), Sent::Yes);
}

#[test]
fn nics_on_a_bridge_hear_each_other() {
    if !in_own_network("nics_on_a_bridge_hear_each_other") {
        return;
    }
    make_bridge("br0", 1400);
    let open = |nic: &str, mtu| bridge::open("br0", &nic.parse().unwrap(), mtu);
    let (mut one, mut two) = (open("web-1", None).unwrap(), open("web-2", Some(1300)).unwrap());
    assert_eq!((one.mtu(), two.mtu()), (1400, 1300));
    let bridge = link::find("br0").unwrap().unwrap();
    assert_eq!(bridge.mtu, 1400, "a NIC's limit is not the bridge's");
    assert_eq!(link::find("pc-web-1").unwrap().unwrap().controller, Some(bridge.index));
    let mut greeting = frame(200);
    greeting[..6].fill(0xff);
    // A port forwards from the kernel's next look at its carrier on, within about a second.
    let start = Instant::now();
    while !(one.write(&record(&greeting), &[]).unwrap() == Sent::Yes && comes(&mut two, &greeting)) {
        assert!(start.elapsed() < Duration::from_secs(5), "no greeting came through the bridge");
    }
    // Learnt from the greeting: the answer goes to that port.
    let mut answer = frame(300);
    answer[..6].copy_from_slice(&greeting[6..12]);
    answer[11] = 2;
    assert_eq!(two.write(&record(&answer), &[]).unwrap(), Sent::Yes);
    recv_until(&mut one, |bytes| bytes == answer);
}

#[test]
fn a_bridge_that_does_not_fit_is_named() {
    if !in_own_network("a_bridge_that_does_not_fit_is_named") {
        return;
    }
    let nic: NicId = "web-1".parse().unwrap();
    assert!(matches!(bridge::open("br0", &nic, None), Err(UplinkError::NoBridge(_))));
    assert!(matches!(bridge::open("lo", &nic, None), Err(UplinkError::NotABridge(_))));
    make_bridge("br0", 1500);
    let error = bridge::open("br0", &nic, Some(9000)).unwrap_err();
    assert!(matches!(error, UplinkError::BridgeMtu { has: 1500, asked: 9000, .. }), "{error}");
}

#[test]
fn an_inherited_tap_is_used_as_it_is() {
    if !in_own_network("an_inherited_tap_is_used_as_it_is") {
        return;
    }
    let fd = wire::prepared_tap("t0", wire::TAP | wire::NO_PI | wire::VNET_HDR);
    let index = link::find("t0").unwrap().unwrap().index;
    link::set_mtu(index, 1450).unwrap();
    link::bring_up(index).unwrap();
    let mut tap = Tap::adopt(wire::give_away(fd), None).unwrap();
    assert_eq!(tap.mtu(), 1450);
    let wire = Wire::open("t0");
    assert_eq!(tap.write(&record(&frame(100)), &[]).unwrap(), Sent::Yes);
    // The host may speak for itself on a tap that another made, also before us.
    assert!((0..10).any(|_| wire.recv() == frame(100)));
    // In the end there is nothing, and that blocks nobody.
    assert!((0..100).any(|_| tap.recv(&mut [0; 2000]).unwrap().is_none()));
}

#[test]
fn a_descriptor_that_is_no_such_tap_is_refused() {
    if !in_own_network("a_descriptor_that_is_no_such_tap_is_refused") {
        return;
    }
    let says = |fd, what: &str| {
        let error = Tap::adopt(fd, None).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    says(0, "Bad file descriptor");
    says(999, "Bad file descriptor");
    says(wire::give_away(std::fs::File::open("/dev/null").unwrap().into()), "no tun descriptor");
    says(wire::give_away(std::fs::File::open("/dev/net/tun").unwrap().into()), "attached to no device");
    says(
        wire::give_away(wire::prepared_tap("t1", wire::TAP | wire::NO_PI)),
        "no tap with a virtio-net header",
    );
    let tun = wire::TUN | wire::NO_PI | wire::VNET_HDR;
    says(wire::give_away(wire::prepared_tap("t2", tun)), "no tap with a virtio-net header");
}

fn connect(path: &Path) -> std::os::fd::OwnedFd {
    let peer =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    rustix::net::connect(&peer, &SocketAddrUnix::new(path).unwrap()).unwrap();
    peer
}

fn record(frame: &[u8]) -> Vec<u8> {
    [&PLAIN[..], frame].concat()
}

#[test]
fn a_unix_uplink_serves_one_peer_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uplink.sock");
    let mut uplink = Unix::listen(&path, Some(1400)).unwrap();
    assert_eq!(uplink.mtu(), 1400);
    assert_eq!(uplink.write(&record(&frame(10)), &[]).unwrap(), Sent::Full, "nobody there");
    for size in [100, 60_000] {
        let (peer, impatient) = (connect(&path), connect(&path));
        assert!(wakes(&uplink));
        assert_eq!(uplink.recv(&mut [0; 100]).unwrap(), None);
        rustix::net::send(&peer, &record(&frame(size)), SendFlags::empty()).unwrap();
        assert!(wakes(&uplink));
        assert_eq!(recv_until(&mut uplink, |_| true), record(&frame(size)));
        assert!(!wakes_at_once(&uplink), "the second peer waits its turn without waking anybody");
        let tail = Parts::of([&frame(size)[..]]);
        assert_eq!(uplink.write(&PLAIN, &tail.slices()).unwrap(), Sent::Yes);
        let mut got = vec![0; 70_000];
        let (length, _) = rustix::net::recv(&peer, &mut got[..], RecvFlags::empty()).unwrap();
        assert_eq!(got[..length], record(&frame(size)));
        drop((peer, impatient));
        assert!(wakes(&uplink));
        assert_eq!(uplink.recv(&mut [0; 100]).unwrap(), None);
    }
}

fn wakes_at_once(uplink: &Unix) -> bool {
    #[expect(unsafe_code, reason = "the trait gives numbers, poll wants descriptors")]
    // SAFETY: the descriptor belongs to `uplink`, which outlives the poll.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(uplink.readable_fd().unwrap()) };
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(&now)).unwrap() > 0
}

#[test]
fn a_record_without_a_whole_header_is_a_frame_of_no_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uplink.sock");
    let mut uplink = Unix::listen(&path, None).unwrap();
    let peer = connect(&path);
    rustix::net::send(&peer, &[0xff; 5], SendFlags::empty()).unwrap();
    let mut buffer = [0xee; 100];
    assert_eq!(uplink.recv(&mut buffer).unwrap(), Some(12));
    assert_eq!(buffer[..12], [0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_slow_peer_fills_up_and_a_lost_one_makes_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uplink.sock");
    let mut uplink = Unix::listen(&path, None).unwrap();
    let peer = connect(&path);
    assert_eq!(uplink.recv(&mut [0; 100]).unwrap(), None);
    let sent =
        (0..10_000).take_while(|_| uplink.write(&record(&frame(1500)), &[]).unwrap() == Sent::Yes).count();
    assert!((10..10_000).contains(&sent), "{sent}");
    drop(peer);
    assert_eq!(uplink.write(&record(&frame(1500)), &[]).unwrap(), Sent::Full);
    let peer = connect(&path);
    assert_eq!(uplink.recv(&mut [0; 100]).unwrap(), None);
    assert_eq!(uplink.write(&record(&frame(1500)), &[]).unwrap(), Sent::Yes);
    drop(peer);
}

#[test]
fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uplink.sock");
    let first = Unix::listen(&path, None).unwrap();
    assert!(matches!(Unix::listen(&path, None), Err(UplinkError::SocketInUse(_))));
    drop(first);
    drop(Unix::listen(&path, None).unwrap());
    std::fs::remove_file(&path).unwrap();
    let stream = UnixListener::bind(&path).unwrap();
    assert!(matches!(Unix::listen(&path, None), Err(UplinkError::SocketInUse(_))), "of another type");
    drop(stream);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "rules").unwrap();
    assert!(matches!(Unix::listen(&path, None), Err(UplinkError::NotASocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"rules");
    assert!(matches!(Unix::listen(&dir.path().join("no/x"), None), Err(UplinkError::Socket { .. })));
}

#[test]
fn only_the_owner_may_connect() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("uplink.sock");
    let _uplink = Unix::listen(&path, None).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_pair_carries_frames_until_one_end_goes() {
    let (mut near, far) = pair(1500).unwrap();
    assert_eq!(near.mtu(), 1500);
    assert!(far.recv().unwrap().is_none() && near.recv(&mut [0; 100]).unwrap().is_none());
    assert_eq!(near.write(&record(&frame(10)), &[]).unwrap(), Sent::Yes);
    assert_eq!(far.recv().unwrap().unwrap(), (VnetHeader::NONE, frame(10)));
    far.send(VnetHeader::NONE, &frame(20)).unwrap();
    assert!(wakes(&near));
    assert_eq!(recv_until(&mut near, |_| true), record(&frame(20)));
    drop(far);
    assert!(near.recv(&mut [0; 100]).is_err() && near.write(&record(&frame(10)), &[]).is_err());
}
