//! The whole device against a guest and a VMM played by hand, with a wire in this process.
//!
//! Each hostile act is followed by a good frame that must pass: an attack costs its own frame, not the NIC.
#![expect(clippy::unwrap_used, reason = "a panic here is the report")]

use std::thread::{self};

use etherparse::PacketBuilder;
use fw_engine::VnetHeader;
use fw_model::{Reason, VerdictName};
use fw_tests::device::{Bench, GUEST, GUEST_MAC, NEEDS_CSUM, PEER, PEER_MAC, PLAIN, dns, echo, payload, udp};
use fw_tests::guest::{BORDER, GRACE, Guest, Layout, RX, TX, Vmm};
use vhost_fw::serve::Endpoint;
use vhost_fw::uplink::Unix;
use vhost_fw::worker::Command;
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

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
