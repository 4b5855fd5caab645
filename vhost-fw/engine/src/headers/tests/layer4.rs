use super::*;

fn segment(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    V4::PLAIN.frame(6, tcp(flags, options, payload))
}

#[track_caller]
fn read(frame: &[u8]) -> Tcp {
    let L4::Tcp(tcp) = ip(frame).l4 else { panic!("not TCP") };
    tcp
}

#[test]
fn a_segment_is_read() {
    let expected = Tcp {
        source_port: 50_000,
        destination_port: 80,
        sequence: 5000,
        acknowledgement: 1001,
        flags: TcpFlags(PSH | ACK),
        window: 64_240,
        window_scale: None,
        payload: 3,
        header: 32,
    };
    let timestamps = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
    assert_eq!(read(&segment(PSH | ACK, &timestamps, b"abc")), expected);
    assert_eq!(whole(&segment(PSH | ACK, &timestamps, b"abc")).length, 14 + 20 + 32 + 3);
}

#[test]
fn flags_no_stack_sends_are_dropped() {
    let refused = [
        0,
        FIN,
        PSH,
        URG,
        URG | PSH,
        FIN | PSH | URG,
        FIN | SYN,
        SYN | RST,
        SYN | FIN | RST,
        SYN | FIN | ACK,
        SYN | RST | ACK,
        SYN | URG,
        RST | FIN,
        RST | FIN | ACK,
        0x3f,
        0xff,
    ];
    for flags in refused {
        assert_eq!(fault(&segment(flags, &[], b"")), Malformed::TcpFlags, "{flags:#x}");
    }
    let sent = [
        SYN,
        SYN | ACK,
        SYN | ECE | CWR,
        SYN | ACK | ECE,
        ACK,
        ACK | PSH,
        ACK | URG,
        ACK | CWR,
        FIN | ACK,
        FIN | PSH | ACK,
        RST,
        RST | ACK,
        RST | ACK | PSH,
    ];
    for flags in sent {
        assert_eq!(read(&segment(flags, &[], b"")).flags, TcpFlags(flags));
    }
    let accurate_ecn = with(segment(SYN | ECE | CWR, &[], b""), 46, &[0x51]);
    assert_eq!(read(&accurate_ecn).flags, TcpFlags(SYN | ECE | CWR));
}

#[test]
fn tcp_lengths_and_ports_must_hold() {
    assert_eq!(fault(&with(segment(SYN, &[], b""), 34, &[0, 0])), Malformed::TcpPort);
    assert_eq!(fault(&with(segment(SYN, &[], b""), 36, &[0, 0])), Malformed::TcpPort);
    for offset in [0x00, 0x40, 0x60, 0xf0] {
        assert_eq!(fault(&with(segment(ACK, &[], b""), 46, &[offset])), Malformed::TcpDataOffset);
    }
    for length in 0..20 {
        assert_eq!(fault(&V4::PLAIN.frame_of(6, &tcp(SYN, &[], b"")[..length])), Malformed::TcpShort);
    }
}

#[test]
fn malformed_tcp_options_are_dropped() {
    let refused: [&[u8]; 11] = [
        &[2, 0, 5, 0xb4],
        &[3, 1, 7, 1],
        &[3, 0xff, 7, 1],
        &[8, 10, 0, 0],
        &[1, 1, 1, 3],
        &[3, 4, 7, 7],
        &[2, 2, 1, 1],
        &[4, 3, 1, 1],
        &[5, 2, 1, 1],
        &[30, 1, 0, 0],
        &[3, 3, 3, 3, 3, 14, 1, 1],
    ];
    for options in refused {
        assert_eq!(fault(&segment(SYN, options, b"")), Malformed::TcpOption, "{options:?}");
    }
}

#[test]
fn the_window_scale_is_a_syns_and_14_at_most() {
    for (written, taken) in [(0, 0), (7, 7), (14, 14), (15, 14), (255, 14)] {
        let options = [2, 4, 5, 0xb4, 1, 3, 3, written];
        assert_eq!(read(&segment(SYN, &options, b"")).window_scale, Some(taken));
        assert_eq!(read(&segment(SYN | ACK, &options, b"")).window_scale, Some(taken));
        assert_eq!(read(&segment(ACK, &options, b"")).window_scale, None);
    }
    assert_eq!(read(&segment(SYN, &[0, 3, 3, 9], b"")).window_scale, None);
}

#[test]
fn syn_and_rst_carry_one_frame_of_data_at_most() {
    for flags in [SYN, RST, RST | ACK, SYN | ACK] {
        assert_eq!(fault(&segment(flags, &[], &[0; 4000])), Malformed::TcpControlPayload);
        assert_eq!(read(&segment(flags, &[], &[0; 1460])).payload, 1460);
        assert_eq!(fault(&segment(flags, &[], &[0; 1461])), Malformed::TcpControlPayload);
    }
    assert_eq!(read(&segment(ACK, &[], &[0; 60_000])).payload, 60_000);
}

#[test]
fn tcp_and_udp_are_read_from_the_head() {
    for frame in [segment(ACK, &[], &[7; 1400]), V4::PLAIN.frame(17, udp(4000, 8080, &[7; 1400]))] {
        assert_eq!(parse(&frame[..crate::HEAD_LEN], frame.len()), parse(&frame, frame.len()));
        assert!(!needs_whole(&frame));
    }
}

#[test]
fn udp_lengths_and_ports_must_hold() {
    let datagram =
        |length: u16| with(V4::PLAIN.frame(17, udp(4000, 8080, &[b'x'; 32])), 38, &length.to_be_bytes());
    for length in [0, 1, 7, 16, 39, 41, 65_535] {
        assert_eq!(fault(&datagram(length)), Malformed::UdpLength);
    }
    let L4::Udp(read) = ip(&datagram(40)).l4 else { panic!() };
    assert_eq!((read.source_port, read.destination_port, read.dhcp), (4000, 8080, None));
    assert_eq!(fault(&V4::PLAIN.frame(17, udp(4000, 0, b""))), Malformed::UdpPort);
    assert!(matches!(ip(&V4::PLAIN.frame(17, udp(0, 53, b""))).l4, L4::Udp(_)));
    for length in 0..8 {
        assert_eq!(fault(&V4::PLAIN.frame_of(17, &udp(4000, 8080, b"")[..length])), Malformed::UdpShort);
    }
}

#[test]
fn udp_over_ipv6_needs_a_checksum() {
    assert_eq!(fault(&V6::plain().frame_of(17, &udp(4000, 8080, b"x"))), Malformed::UdpNoChecksum);
    assert!(matches!(
        ip(&V4::PLAIN.frame_of(17, &udp(4000, 8080, b"x"))).l4,
        L4::Udp(Udp { checksum: 0, .. })
    ));
}

#[track_caller]
fn dhcp_of(frame: &[u8]) -> Dhcp {
    let L4::Udp(Udp { dhcp: Some(dhcp), .. }) = ip(frame).l4 else { panic!("not DHCP") };
    dhcp
}

#[test]
fn dhcp_is_read_by_its_ports() {
    let hardware = Some(MacAddr(GUEST_MAC));
    let frame = |source, destination, operation| {
        V4::PLAIN.frame(17, udp(source, destination, &dhcp(operation, GUEST_MAC)))
    };
    assert_eq!(dhcp_of(&frame(68, 67, 1)), Dhcp::Client { hardware });
    assert_eq!(dhcp_of(&frame(67, 67, 1)), Dhcp::Client { hardware });
    assert_eq!(dhcp_of(&frame(67, 68, 2)), Dhcp::Server { hardware });
    assert_eq!(dhcp_of(&frame(67, 67, 2)), Dhcp::Server { hardware });
    for (source, destination, operation) in
        [(68, 67, 2), (67, 68, 1), (68, 68, 1), (68, 68, 2), (4000, 68, 2), (4000, 67, 1), (68, 67, 0)]
    {
        assert_eq!(fault(&frame(source, destination, operation)), Malformed::DhcpPorts);
    }
    assert!(needs_whole(&frame(68, 67, 1)));
}

#[test]
fn malformed_dhcp_is_refused() {
    let frame = |message: &[u8]| V4::PLAIN.frame(17, udp(68, 67, message));
    let message = dhcp(1, GUEST_MAC);
    for length in [0, 3, 27, 236, 239] {
        assert_eq!(fault(&frame(&message[..length])), Malformed::DhcpShort);
    }
    for (at, byte) in [(1, 6), (2, 16), (236, 0)] {
        assert_eq!(fault(&frame(&with(message.clone(), at, &[byte]))), Malformed::DhcpForm);
    }
}

#[test]
fn dhcpv6_is_read_by_its_port_and_kind() {
    let frame = |destination, message: &[u8]| V6::plain().frame(17, udp(547, destination, message));
    let link_layer = [&[7, 0, 0, 1, 0, 1, 0, 10, 0, 3, 0, 1], GUEST_MAC.as_slice()].concat();
    let with_time = [&[2, 0, 0, 1, 0, 1, 0, 14, 0, 1, 0, 1, 9, 9, 9, 9], GUEST_MAC.as_slice()].concat();
    let hardware = Some(MacAddr(GUEST_MAC));
    assert_eq!(dhcp_of(&frame(546, &link_layer)), Dhcp::Server { hardware });
    assert_eq!(dhcp_of(&frame(546, &with_time)), Dhcp::Server { hardware });
    assert_eq!(dhcp_of(&frame(546, &[10, 0, 0, 1])), Dhcp::Server { hardware: None });
    assert_eq!(dhcp_of(&frame(547, &[1, 0, 0, 1])), Dhcp::Client { hardware: None });
    for (destination, kind) in [(546, 1), (547, 2), (547, 7), (547, 12), (547, 13), (546, 0), (546, 200)] {
        assert_eq!(
            fault(&frame(destination, &[kind, 0, 0, 1])),
            Malformed::DhcpPorts,
            "{destination} {kind}"
        );
    }
    assert_eq!(fault(&frame(546, &[2, 0, 0])), Malformed::DhcpShort);
    assert_eq!(fault(&frame(546, &[2, 0, 0, 1, 0, 1, 0, 5, 0])), Malformed::DhcpForm);
    assert_eq!(fault(&frame(546, &[2, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 0])), Malformed::DhcpForm);
}

#[test]
fn a_flow_is_written_from_the_guests_place() {
    let to_guest = whole(&segment(SYN, &[], b"")).flow(Direction::In).unwrap();
    assert_eq!((to_guest.local, to_guest.local_port), (Addr::v4(GUEST), 80));
    assert_eq!((to_guest.remote, to_guest.remote_port), (Addr::v4(PEER), 50_000));
    let from_guest = whole(&segment(SYN, &[], b"")).flow(Direction::Out).unwrap();
    assert_eq!((from_guest.local, from_guest.remote_port), (Addr::v4(PEER), 80));
}

#[test]
fn an_echos_identifier_stands_at_the_requesters_end() {
    let flow = |kind, direction| {
        let frame = V4::PLAIN.frame(1, icmp(kind, 0, [0, 7, 0, 1], b""));
        let flow = whole(&frame).flow(direction).unwrap();
        (flow.local_port, flow.remote_port)
    };
    assert_eq!(flow(8, Direction::Out), (7, 0));
    assert_eq!(flow(0, Direction::In), (7, 0));
    assert_eq!(flow(8, Direction::In), (0, 7));
    assert_eq!(flow(0, Direction::Out), (0, 7));
}
