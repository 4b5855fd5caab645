use super::*;

fn v4_icmp(message: Vec<u8>) -> Vec<u8> {
    V4::PLAIN.frame(1, message)
}

/// The start of the datagram the guest sent to the peer: from its own frame, without the Ethernet header.
fn sent(protocol: u8, l4: Vec<u8>) -> Vec<u8> {
    V4 { source: GUEST, destination: PEER, ..V4::PLAIN }.frame(protocol, l4)[14..].to_vec()
}

#[test]
fn icmp_is_read_whole_and_verified() {
    let echo = v4_icmp(icmp(8, 0, [0, 7, 0, 1], &[0; 600]));
    assert!(needs_whole(&echo));
    assert!(matches!(ip(&echo).l4, L4::Icmp(Icmp { message: IcmpMessage::EchoRequest { id: 7 }, .. })));
    assert_eq!(fault(&with(echo, 300, &[1])), Malformed::IcmpChecksum);
    for length in 0..8 {
        assert_eq!(fault(&V4::PLAIN.frame_of(1, &icmp(8, 0, [0; 4], b"")[..length])), Malformed::IcmpShort);
    }
    assert_eq!(fault(&v4_icmp(icmp(8, 9, [0; 4], b""))), Malformed::IcmpCode);
    assert_eq!(fault(&V6::plain().frame(58, icmp(129, 1, [0; 4], b""))), Malformed::IcmpCode);
}

#[test]
fn icmp_stays_in_its_family() {
    assert_eq!(fault(&V4::PLAIN.frame(58, icmp(128, 0, [0; 4], b""))), Malformed::IcmpFamily);
    assert_eq!(fault(&V6::plain().frame(1, icmp(8, 0, [0; 4], b""))), Malformed::IcmpFamily);
    assert_eq!(fault(&V6::plain().frame(2, vec![0x16; 8])), Malformed::GroupKind);
}

#[test]
fn messages_that_are_neither_echo_nor_error_are_named() {
    for kind in [4, 6, 9, 10, 13, 14, 15, 16, 17, 18, 30, 32, 200] {
        let read = ip(&v4_icmp(icmp(kind, 0, [0; 4], &[0; 28]))).l4;
        assert_eq!(read, L4::Icmp(Icmp { kind, code: 0, message: IcmpMessage::Other }));
    }
    let redirects =
        [v4_icmp(icmp(5, 0, [0; 4], &[0; 28])), V6::neighbour().frame(58, icmp(137, 0, [0; 4], &[0; 32]))];
    for redirect in redirects {
        assert!(matches!(ip(&redirect).l4, L4::Icmp(Icmp { message: IcmpMessage::Redirect, .. })));
    }
}

#[track_caller]
fn quote(frame: &[u8]) -> Quote {
    let L4::Icmp(Icmp { message: IcmpMessage::Error(quote), .. }) = ip(frame).l4 else { panic!("no error") };
    quote
}

#[test]
fn an_error_says_what_it_quotes() {
    let (source, destination) = (Addr::v4(GUEST), Addr::v4(PEER));
    let of = |protocol, source_port, destination_port, sequence| Quote {
        source,
        destination,
        protocol,
        source_port,
        destination_port,
        sequence,
    };
    let error = |quoted: &[u8]| v4_icmp(icmp(3, 1, [0; 4], quoted));
    let segment = sent(6, tcp(ACK, &[], b""));
    assert_eq!(quote(&error(&segment)), of(Protocol::TCP, 50_000, 80, Some(5000)));
    assert_eq!(quote(&error(&segment[..28])), of(Protocol::TCP, 50_000, 80, Some(5000)));
    assert_eq!(quote(&error(&sent(17, udp(1, 2, b"")))), of(Protocol::UDP, 1, 2, None));
    assert_eq!(quote(&error(&sent(1, icmp(8, 0, [0, 7, 0, 1], b"")))), of(Protocol::ICMP, 7, 0, None));
    assert_eq!(quote(&error(&sent(1, icmp(0, 0, [0, 7, 0, 1], b"")))), of(Protocol::ICMP, 0, 7, None));
    assert_eq!(quote(&error(&sent(132, vec![9; 12]))), of(Protocol(132), 0, 0, None));
}

#[test]
fn a_quote_must_be_one_an_error_can_be_about() {
    let error = |quoted: Vec<u8>| v4_icmp(icmp(3, 1, [0; 4], &quoted));
    let segment = || sent(6, tcp(ACK, &[], b""));
    assert_eq!(fault(&error(segment()[..24].to_vec())), Malformed::IcmpQuote);
    assert_eq!(fault(&error(vec![])), Malformed::IcmpQuote);
    for (at, bytes) in
        [(0, [0x4f, 0]), (0, [0x65, 0]), (0, [0x44, 0]), (2, [0, 20]), (6, [0, 10]), (16, [224, 0])]
    {
        assert_eq!(fault(&error(with(segment(), at, &bytes))), Malformed::IcmpQuote, "{at}");
    }
    let error_again = icmp(3, 1, [0; 4], &sent(17, udp(1, 2, b"")));
    assert_eq!(fault(&error(sent(1, error_again))), Malformed::IcmpQuote);
    let anothers = V4::PLAIN.frame(6, tcp(ACK, &[], b""))[14..].to_vec();
    assert_eq!(fault(&error(anothers)).reason(), fw_model::Reason::Unrelated);
}

#[test]
fn lies_about_a_quotes_length_and_the_mtu_are_dropped() {
    let segment = sent(6, tcp(ACK, &[], &[0; 200]));
    let unreachable = |words| v4_icmp(icmp(3, 1, [0, words, 0, 0], &segment));
    assert_eq!(quote(&unreachable(32)).source_port, 50_000);
    for words in [1, 31, 61, 255] {
        assert_eq!(fault(&unreachable(words)), Malformed::IcmpQuoteLength);
    }
    let too_big =
        |mtu: u16| v4_icmp(icmp(3, 4, [0, 0, mtu.to_be_bytes()[0], mtu.to_be_bytes()[1]], &segment));
    assert_eq!(quote(&too_big(68)).source_port, 50_000);
    assert_eq!(fault(&too_big(67)), Malformed::IcmpMtu);
    assert_eq!(fault(&too_big(0)), Malformed::IcmpMtu);
}

fn v6_sent(chain: &[(u8, Vec<u8>)], protocol: u8, l4: Vec<u8>) -> Vec<u8> {
    let plain = V6::plain();
    let sender = V6 { source: plain.destination, destination: plain.source, chain: chain.to_vec(), ..plain };
    sender.frame(protocol, l4)[14..].to_vec()
}

#[test]
fn an_icmpv6_error_says_what_it_quotes() {
    let error = |kind, rest, quoted: &[u8]| V6::plain().frame(58, icmp(kind, 0, rest, quoted));
    let segment = v6_sent(&[], 6, tcp(ACK, &[], b""));
    for (kind, rest) in [(1, [0; 4]), (2, [0, 0, 5, 0]), (3, [0; 4]), (4, [0, 0, 0, 6])] {
        assert_eq!(quote(&error(kind, rest, &segment)).sequence, Some(5000));
    }
    assert_eq!(fault(&error(2, [0, 0, 4, 0xff], &segment)), Malformed::IcmpMtu);
    assert_eq!(fault(&error(1, [2, 0, 0, 0], &segment)), Malformed::IcmpQuoteLength);
    let first = v6_sent(&[(44, fragment_header(0, true).to_vec())], 17, udp(1, 2, &[0; 24]));
    assert_eq!(quote(&error(1, [0; 4], &first)).destination_port, 2);
    let later = v6_sent(&[(44, fragment_header(8, false).to_vec())], 17, udp(1, 2, b""));
    assert_eq!(fault(&error(1, [0; 4], &later)), Malformed::IcmpQuote);
    let routed = v6_sent(&[(43, vec![0; 7])], 17, udp(1, 2, b""));
    assert_eq!(fault(&error(1, [0; 4], &routed)), Malformed::IcmpQuote);
    assert_eq!(fault(&error(1, [0; 4], &segment[..47])), Malformed::IcmpQuote);
    let about_an_error = v6_sent(&[], 58, icmp(1, 0, [0; 4], b""));
    assert_eq!(fault(&error(1, [0; 4], &about_an_error)), Malformed::IcmpQuote);
}

const TARGET: &str = "fe80::1";

fn nd(kind: u8, flags: u8, target: &str, options: &[u8]) -> Vec<u8> {
    let body = match kind {
        133 => vec![],
        134 => vec![0; 8],
        _ => v6(target).to_vec(),
    };
    icmp(kind, 0, [flags, 0, 0, 0], &[body.as_slice(), options].concat())
}

fn link_layer(kind: u8, last: u8) -> Vec<u8> {
    vec![kind, 1, 0x52, 0x54, 0, 0, 0, last]
}

#[test]
fn neighbour_discovery_is_read() {
    let L4::Icmp(Icmp { message: IcmpMessage::Nd(read), .. }) =
        ip(&V6::neighbour().frame(58, nd(136, 0x20, TARGET, &link_layer(2, 1)))).l4
    else {
        panic!()
    };
    assert_eq!(read.kind, NdKind::NeighbourAdvertisement);
    assert_eq!(read.target, Some(Addr::v6(v6(TARGET))));
    assert_eq!((read.source_mac, read.target_mac), (None, Some(MacAddr([0x52, 0x54, 0, 0, 0, 1]))));
    let prefix = [&[3, 4], [0; 30].as_slice(), &link_layer(1, 9)].concat();
    for frame in [
        V6::neighbour().frame(58, nd(134, 64, TARGET, &prefix)),
        V6::neighbour().frame(58, nd(133, 0, "", b"")),
    ] {
        assert!(matches!(ip(&frame).l4, L4::Icmp(Icmp { message: IcmpMessage::Nd(_), .. })));
    }
}

#[test]
fn neighbour_discovery_that_breaks_rfc_4861_is_dropped() {
    let options = |options: &[u8]| fault(&V6::neighbour().frame(58, nd(136, 0, TARGET, options)));
    assert_eq!(options(&[2, 0, 0, 0, 0, 0, 0, 0]), Malformed::NdOption);
    assert_eq!(options(&[2, 0xff, 0x52, 0x54, 0, 0, 0, 2]), Malformed::NdOption);
    assert_eq!(options(&[2]), Malformed::NdOption);
    assert_eq!(options(&[2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Malformed::NdOption);
    assert_eq!(options(&[link_layer(2, 1), link_layer(2, 2)].concat()), Malformed::NdTwoAddresses);
    let distant = V6 { hop_limit: 254, ..V6::neighbour() };
    assert_eq!(fault(&distant.frame(58, nd(136, 0, TARGET, b""))), Malformed::NdHopLimit);
    assert_eq!(fault(&V6::neighbour().frame(58, with(nd(136, 0, TARGET, b""), 1, &[1]))), Malformed::NdCode);
    assert_eq!(fault(&V6::neighbour().frame(58, nd(135, 0, TARGET, b"")[..20].to_vec())), Malformed::NdShort);
    assert_eq!(fault(&V6::neighbour().frame(58, nd(134, 0, TARGET, b"")[..12].to_vec())), Malformed::NdShort);
}

#[test]
fn neighbour_discovery_is_addressed_as_rfc_4861_says() {
    let from =
        |source, destination| V6 { source: v6(source), destination: v6(destination), ..V6::neighbour() };
    let source_option = link_layer(1, 1);
    let refused = [
        V6::neighbour().frame(58, nd(136, 0, "ff02::5", b"")),
        V6::neighbour().frame(58, nd(135, 0, "::ffff:1.2.3.4", b"")),
        V6::neighbour().frame(58, nd(136, 0x40, TARGET, b"")),
        from("2001:db8::1", "ff02::1").frame(58, nd(134, 0, "", b"")),
        from("::", "ff02::2").frame(58, nd(133, 0, "", &source_option)),
        from("::", "ff02::1").frame(58, nd(135, 0, TARGET, b"")),
        from("::", "ff02::1:ff00:1").frame(58, nd(135, 0, TARGET, &source_option)),
    ];
    for frame in &refused {
        assert_eq!(fault(frame), Malformed::NdAddress);
    }
    let allowed = [
        from("::", "ff02::2").frame(58, nd(133, 0, "", b"")),
        from("::", "ff02::1:ff00:1").frame(58, nd(135, 0, TARGET, b"")),
        from("fe80::1", "fe80::2").frame(58, nd(136, 0x60, TARGET, b"")),
    ];
    for frame in &allowed {
        assert!(matches!(ip(frame).l4, L4::Icmp(_)));
    }
}

const ALERTED: V4 = V4 { ttl: 1, options: &[0x94, 4, 0, 0], destination: [224, 0, 0, 22], ..V4::PLAIN };

#[test]
fn igmp_is_read() {
    let report = vec![0x22, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 224, 0, 0, 5];
    assert_eq!(ip(&ALERTED.frame(2, report.clone())).l4, L4::Group(GroupMessage::Report));
    assert_eq!(ip(&ALERTED.frame(2, vec![0x11, 100, 0, 0, 0, 0, 0, 0])).l4, L4::Group(GroupMessage::Query));
    let version_1 = V4 { options: &[], ..ALERTED };
    assert_eq!(
        ip(&version_1.frame(2, vec![0x12, 0, 0, 0, 224, 0, 0, 5])).l4,
        L4::Group(GroupMessage::Report)
    );
    assert_eq!(fault(&version_1.frame(2, report.clone())), Malformed::GroupAlert);
    assert_eq!(fault(&V4 { ttl: 2, ..ALERTED }.frame(2, report.clone())), Malformed::GroupHopLimit);
    assert_eq!(
        fault(&V4 { destination: GUEST, ..ALERTED }.frame(2, report.clone())),
        Malformed::GroupAddress
    );
    assert_eq!(fault(&with(ALERTED.frame(2, report.clone()), 40, &[1, 1])), Malformed::GroupChecksum);
    assert_eq!(fault(&ALERTED.frame(2, with(report.clone(), 7, &[2]))), Malformed::GroupShort);
    assert_eq!(fault(&ALERTED.frame(2, with(report, 10, &[0xff, 0xff]))), Malformed::GroupShort);
    assert_eq!(fault(&ALERTED.frame(2, vec![0x13, 0, 0, 0, 0, 0, 0, 0])), Malformed::GroupKind);
    assert_eq!(fault(&ALERTED.frame(2, vec![0x16, 0, 0, 0])), Malformed::GroupShort);
}

#[test]
fn mld_is_read() {
    let alert = [0, 5, 2, 0, 0, 1, 0];
    let plain = V6 { hop_limit: 1, destination: v6("ff02::16"), ..V6::neighbour() };
    let alerted = plain.clone().behind(0, &alert);
    let report = icmp(143, 0, [0; 4], b"");
    let query = icmp(130, 0, [0; 4], &[0; 16]);
    assert_eq!(ip(&alerted.frame(58, report.clone())).l4, L4::Group(GroupMessage::Report));
    assert_eq!(ip(&alerted.frame(58, query.clone())).l4, L4::Group(GroupMessage::Query));
    let without_address = V6 { source: v6("::"), ..alerted.clone() };
    assert_eq!(ip(&without_address.frame(58, report.clone())).l4, L4::Group(GroupMessage::Report));
    assert_eq!(fault(&without_address.frame(58, query)), Malformed::GroupAddress);
    assert_eq!(fault(&plain.frame(58, report.clone())), Malformed::GroupAlert);
    assert_eq!(
        fault(&V6 { hop_limit: 64, ..alerted.clone() }.frame(58, report.clone())),
        Malformed::GroupHopLimit
    );
    let global = V6 { source: v6("2001:db8::1"), ..alerted.clone() };
    assert_eq!(fault(&global.frame(58, report)), Malformed::GroupAddress);
    assert_eq!(fault(&alerted.frame(58, icmp(131, 0, [0; 4], b""))), Malformed::GroupShort);
    assert_eq!(fault(&alerted.frame(58, icmp(143, 0, [0, 0, 0, 1], b""))), Malformed::GroupShort);
}
