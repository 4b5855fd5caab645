use etherparse::{
    Icmpv4Type, Icmpv6Type, IpHeaders, NetHeaders, PacketBuilder, PacketHeaders, TransportHeader, icmpv4,
    icmpv6,
};
use fw_model::Direction;

use super::*;
use crate::headers::{Ether, GroupMessage, Nd, NdKind, Udp};

const GUEST: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const ROUTER: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0xfe]);
const OUR4: [u8; 4] = [10, 0, 0, 10];
const FAR4: [u8; 4] = [198, 51, 100, 7];
const OUR6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x10];
const FAR6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];

/// A refused frame from the guest: `l4` between our addresses and far ones, with `payload` bytes behind 8 of header.
fn refused(v4: bool, vlan: Option<u16>, l4: L4, payload: usize) -> (Headers, Vec<u8>) {
    let mut builder_frame = vec![];
    let ether = PacketBuilder::ethernet2(GUEST.0, ROUTER.0);
    let data = vec![0x5a; payload];
    let udp = if v4 { ether.ipv4(OUR4, FAR4, 64) } else { ether.ipv6(OUR6, FAR6, 64) }.udp(4000, 53);
    udp.write(&mut builder_frame, &data).unwrap();
    if let Some(vlan) = vlan {
        builder_frame.splice(12..12, [0x81, 0, vlan.to_be_bytes()[0], vlan.to_be_bytes()[1]]);
    }
    let offset = if vlan.is_some() { 18 } else { 14 };
    let ip = Ip {
        source: if v4 { Addr::v4(OUR4) } else { Addr::v6(OUR6) },
        destination: if v4 { Addr::v4(FAR4) } else { Addr::v6(FAR6) },
        protocol: Protocol::UDP,
        hop_limit: 64,
        router_alert: false,
        offset,
        l4_offset: offset + if v4 { 20 } else { 40 },
        fragment: None,
        l4,
    };
    let ethertype = if v4 { 0x0800 } else { 0x86dd };
    let ether = Ether { destination: ROUTER, source: GUEST, vlan, ethertype, length: offset };
    (Headers { ether, net: Net::Ip(ip), length: builder_frame.len() }, builder_frame)
}

fn udp() -> L4 {
    L4::Udp(Udp { source_port: 4000, destination_port: 53, checksum: 1, dhcp: None })
}

fn tcp(flags: u8, payload: u32) -> L4 {
    L4::Tcp(Tcp {
        source_port: 40_000,
        destination_port: 443,
        sequence: u32::MAX,
        acknowledgement: 7777,
        flags: TcpFlags(flags),
        window: 100,
        window_scale: None,
        payload,
        header: 20,
    })
}

fn icmp(kind: u8, message: IcmpMessage) -> L4 {
    L4::Icmp(Icmp { kind, code: 0, message })
}

fn answer((headers, frame): &(Headers, Vec<u8>)) -> Option<Vec<u8>> {
    let mut out = [0xee; REPLY_LEN_MAX];
    refusal(headers, frame, &mut out).map(|length| out[..length].to_vec())
}

/// Reads a reply and checks everything that any reply must have: MAC addresses, lengths, hop limit, checksums.
fn read(frame: &[u8], to: MacAddr, from: MacAddr, vlan: Option<u16>) -> PacketHeaders<'_> {
    let packet = PacketHeaders::from_ethernet_slice(frame).unwrap();
    let etherparse::LinkHeader::Ethernet2(link) = packet.link.clone().unwrap() else { panic!("no Ethernet") };
    assert_eq!((link.destination, link.source), (to.0, from.0));
    let tag = packet.vlan_ids().first().map(|id| id.value());
    assert_eq!(tag, vlan);
    let start = if vlan.is_some() { 18 } else { 14 };
    match packet.net.as_ref().unwrap() {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(usize::from(ip.total_len), frame.len() - start);
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            assert_eq!(ip.time_to_live, 64);
        }
        NetHeaders::Ipv6(ip, _) => {
            assert_eq!(usize::from(ip.payload_length), frame.len() - start - 40);
            assert_eq!(ip.hop_limit, 64);
        }
        NetHeaders::Arp(_) => panic!("ARP"),
    }
    let payload = packet.payload.slice();
    match (packet.transport.as_ref().unwrap(), packet.net.as_ref().unwrap()) {
        (TransportHeader::Tcp(tcp), NetHeaders::Ipv4(ip, _)) => {
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv4(ip, payload).unwrap());
        }
        (TransportHeader::Tcp(tcp), NetHeaders::Ipv6(ip, _)) => {
            assert_eq!(tcp.checksum, tcp.calc_checksum_ipv6(ip, payload).unwrap());
        }
        (TransportHeader::Icmpv4(icmp), _) => {
            assert_eq!(icmp.checksum, icmp.icmp_type.calc_checksum(payload));
        }
        (TransportHeader::Icmpv6(icmp), NetHeaders::Ipv6(ip, _)) => {
            let expected = icmp.icmp_type.calc_checksum(ip.source, ip.destination, payload).unwrap();
            assert_eq!(icmp.checksum, expected);
        }
        other => panic!("{other:?}"),
    }
    packet
}

fn ends(packet: &PacketHeaders<'_>) -> (Addr, Addr) {
    match packet.net.as_ref().unwrap() {
        NetHeaders::Ipv4(ip, _) => (Addr::v4(ip.source), Addr::v4(ip.destination)),
        NetHeaders::Ipv6(ip, _) => (Addr::v6(ip.source), Addr::v6(ip.destination)),
        NetHeaders::Arp(_) => panic!("ARP"),
    }
}

#[test]
fn a_refused_segment_is_answered_with_a_reset_from_its_destination() {
    for (v4, vlan) in [(true, None), (true, Some(30)), (false, None), (false, Some(30))] {
        let refused = refused(v4, vlan, tcp(TcpFlags::SYN, 0), 0);
        let frame = answer(&refused).unwrap();
        let packet = read(&frame, GUEST, ROUTER, vlan);
        let expected = if v4 { (Addr::v4(FAR4), Addr::v4(OUR4)) } else { (Addr::v6(FAR6), Addr::v6(OUR6)) };
        assert_eq!(ends(&packet), expected);
        let tcp = packet.transport.clone().unwrap().tcp().unwrap();
        assert_eq!((tcp.source_port, tcp.destination_port), (443, 40_000));
        assert!(tcp.rst && tcp.ack && !tcp.syn && !tcp.fin);
        // The SYN counts one, and the number wraps.
        assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (0, 0));
        assert!(packet.payload.slice().is_empty());
    }
}

#[test]
fn a_reset_acknowledges_all_that_was_sent_or_takes_the_senders_number() {
    for (flags, payload, expected) in [
        (TcpFlags::SYN | TcpFlags::FIN, 10, (0, 11, true)),
        (TcpFlags::FIN, 0, (0, 0, true)),
        (0, 5, (0, 4, true)),
        (TcpFlags::ACK, 500, (7777, 0, false)),
        (TcpFlags::SYN | TcpFlags::ACK, 0, (7777, 0, false)),
    ] {
        let frame = answer(&refused(true, None, tcp(flags, payload), 0)).unwrap();
        let tcp = read(&frame, GUEST, ROUTER, None).transport.unwrap().tcp().unwrap();
        assert!(tcp.rst);
        assert_eq!((tcp.sequence_number, tcp.acknowledgment_number, tcp.ack), expected, "{flags:#x}");
    }
}

#[test]
fn other_protocols_are_answered_with_prohibited_and_a_quote() {
    for (l4, payload) in
        [(udp(), 0), (udp(), 5), (L4::Other, 33), (icmp(8, IcmpMessage::EchoRequest { id: 1 }), 9)]
    {
        for (v4, vlan) in [(true, None), (true, Some(30)), (false, None), (false, Some(30))] {
            let refused = refused(v4, vlan, l4, payload);
            let frame = answer(&refused).unwrap();
            let packet = read(&frame, GUEST, ROUTER, vlan);
            match packet.transport.clone().unwrap() {
                TransportHeader::Icmpv4(icmp) => assert_eq!(
                    icmp.icmp_type,
                    Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::FilterProhibited)
                ),
                TransportHeader::Icmpv6(icmp) => assert_eq!(
                    icmp.icmp_type,
                    Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Prohibited)
                ),
                other @ (TransportHeader::Udp(_) | TransportHeader::Tcp(_) | TransportHeader::Igmp(_)) => {
                    panic!("{other:?}")
                }
            }
            let start = if vlan.is_some() { 18 } else { 14 };
            assert_eq!(packet.payload.slice(), &refused.1[start..]);
            let (quoted, _) = IpHeaders::from_slice(packet.payload.slice()).unwrap();
            assert_eq!(matches!(quoted, IpHeaders::Ipv4(..)), v4);
        }
    }
}

#[test]
fn quotes_keep_within_the_longest_error() {
    for (v4, vlan, expected) in [
        (true, None, 14 + 576),
        (true, Some(30), 18 + 576),
        (false, None, 14 + 1280),
        // The tag takes its bytes from the quote.
        (false, Some(30), 14 + 1280),
    ] {
        let frame = answer(&refused(v4, vlan, udp(), 1400)).unwrap();
        read(&frame, GUEST, ROUTER, vlan);
        assert_eq!(frame.len(), expected);
    }
}

#[test]
fn what_trails_the_datagram_is_not_quoted_and_a_head_is_enough() {
    let (headers, mut frame) = refused(true, None, udp(), 100);
    frame.extend([0xaa; 30]);
    assert_eq!(answer(&(headers, frame.clone())).unwrap().len(), 14 + 28 + 128);
    frame.truncate(60);
    let short = answer(&(headers, frame)).unwrap();
    read(&short, GUEST, ROUTER, None);
    assert_eq!(short.len(), 14 + 28 + 46);
}

#[test]
fn no_answer_is_due_to_resets_errors_groups_and_what_is_not_ip() {
    let nd = Nd { kind: NdKind::NeighbourSolicitation, target: None, source_mac: None, target_mac: None };
    for (v4, l4) in [
        (true, tcp(TcpFlags::RST, 0)),
        (true, tcp(TcpFlags::RST | TcpFlags::ACK, 0)),
        (true, icmp(5, IcmpMessage::Redirect)),
        (true, icmp(3, IcmpMessage::Other)),
        (true, icmp(4, IcmpMessage::Other)),
        (true, icmp(11, IcmpMessage::Other)),
        (false, icmp(1, IcmpMessage::Other)),
        (false, icmp(127, IcmpMessage::Other)),
        (false, icmp(135, IcmpMessage::Nd(nd))),
        (false, L4::Group(GroupMessage::Report)),
        (true, L4::Fragment),
    ] {
        assert_eq!(answer(&refused(v4, None, l4, 8)), None, "{l4:?}");
    }
    let (mut headers, frame) = refused(true, None, udp(), 8);
    headers.net = Net::Other;
    assert_eq!(answer(&(headers, frame)), None);

    let change = |change: &dyn Fn(&mut Ether, &mut Ip)| {
        let (mut headers, frame) = refused(true, None, udp(), 8);
        let Net::Ip(ip) = &mut headers.net else { panic!("not IP") };
        change(&mut headers.ether, ip);
        answer(&(headers, frame))
    };
    assert!(change(&|_, _| {}).is_some());
    assert_eq!(change(&|ether, _| ether.destination = MacAddr::BROADCAST), None);
    assert_eq!(change(&|_, ip| ip.destination = Addr::v4([224, 0, 0, 251])), None);
    assert_eq!(change(&|_, ip| ip.destination = Addr::v4([255; 4])), None);
    assert_eq!(change(&|_, ip| ip.source = Addr::v4([0; 4])), None);
    let (mut headers, frame) = refused(false, None, udp(), 8);
    if let Net::Ip(ip) = &mut headers.net {
        ip.source = Addr::v6([0; 16]);
    }
    assert_eq!(answer(&(headers, frame)), None);
}

#[test]
fn a_revoked_conn_is_reset_at_both_ends() {
    for (local, remote, vlan) in [(Addr::v4(OUR4), Addr::v4(FAR4), 0), (Addr::v6(OUR6), Addr::v6(FAR6), 30)] {
        let flow =
            FlowKey { local, remote, local_port: 40_000, remote_port: 443, protocol: Protocol::TCP, vlan };
        let reset = Reset { flow, guest_mac: GUEST, peer_mac: ROUTER, sequence: 1111, acknowledgement: 2222 };
        for towards in [Direction::In, Direction::Out] {
            let mut out = [0xee; REPLY_LEN_MAX];
            let (length, to, from, expected, ports) = match towards {
                Direction::In => {
                    (reset_to(&reset, Direction::In, &mut out), GUEST, ROUTER, (remote, local), (443, 40_000))
                }
                Direction::Out => (
                    reset_to(&reset, Direction::Out, &mut out),
                    ROUTER,
                    GUEST,
                    (local, remote),
                    (40_000, 443),
                ),
            };
            let packet = read(&out[..length.unwrap()], to, from, (vlan != 0).then_some(vlan));
            assert_eq!(ends(&packet), expected);
            let tcp = packet.transport.clone().unwrap().tcp().unwrap();
            assert_eq!((tcp.source_port, tcp.destination_port), ports);
            assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (1111, 2222));
            assert!(tcp.rst && tcp.ack);
        }
    }
}

#[test]
fn only_tcp_conns_are_reset() {
    let flow = FlowKey {
        local: Addr::v4(OUR4),
        remote: Addr::v4(FAR4),
        local_port: 1,
        remote_port: 2,
        protocol: Protocol::UDP,
        vlan: 0,
    };
    let reset = Reset { flow, guest_mac: GUEST, peer_mac: ROUTER, sequence: 0, acknowledgement: 0 };
    let mut out = [0; REPLY_LEN_MAX];
    assert_eq!(reset_to(&reset, Direction::In, &mut out), None);
    let mixed = Reset { flow: FlowKey { protocol: Protocol::TCP, remote: Addr::v6(FAR6), ..flow }, ..reset };
    assert_eq!(reset_to(&mixed, Direction::Out, &mut out), None);
}
