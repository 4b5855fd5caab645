use super::*;

fn syn() -> Vec<u8> {
    tcp(SYN, &[], b"")
}

/// The frame with these bytes at `at` of its IPv4 header, and that header's checksum right again.
fn rewritten(frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    let frame = with(frame, 14 + at, bytes);
    let checksum = checksum::ipv4_header(&frame[14..34]);
    with(frame, 24, &checksum.to_be_bytes())
}

#[test]
fn ipv4_lengths_must_hold_together() {
    let frame = || V4::PLAIN.frame(6, syn());
    for first in [0x40, 0x41, 0x44] {
        assert_eq!(fault(&rewritten(frame(), 0, &[first])), Malformed::Ipv4HeaderLength);
    }
    assert_eq!(fault(&rewritten(frame(), 0, &[0x4f])), Malformed::Ipv4TotalLength);
    for first in [0x05, 0x55, 0x65, 0xf5] {
        assert_eq!(fault(&rewritten(frame(), 0, &[first])), Malformed::Ipv4Version);
    }
    for total in [0u16, 1, 19, 41, 1500, 65535] {
        assert_eq!(fault(&rewritten(frame(), 2, &total.to_be_bytes())), Malformed::Ipv4TotalLength);
    }
    for total in [20u16, 28, 33, 39] {
        assert_eq!(fault(&rewritten(frame(), 2, &total.to_be_bytes())), Malformed::TcpShort);
    }
    for length in 14..34 {
        assert_eq!(fault(&frame()[..length]), Malformed::Ipv4Short);
    }
}

#[test]
fn what_trails_the_datagram_is_cut_off() {
    for frame in [V4::PLAIN.frame(6, syn()), V6::plain().frame(6, syn())] {
        let trailed = [frame.clone(), vec![0xff; 400]].concat();
        assert_eq!(whole(&trailed), whole(&frame));
        assert_eq!(whole(&trailed).length, frame.len());
        assert!(!needs_whole(&trailed));
    }
}

#[test]
fn ipv4_headers_are_verified() {
    assert_eq!(fault(&with(V4::PLAIN.frame(6, syn()), 24, &[0xde, 0xad])), Malformed::Ipv4Checksum);
    assert_eq!(fault(&V4 { ttl: 0, ..V4::PLAIN }.frame(6, syn())), Malformed::TtlZero);
    assert_eq!(fault(&V4 { fragment: 0x8000, ..V4::PLAIN }.frame(6, syn())), Malformed::Ipv4ReservedFlag);
}

#[test]
fn only_padding_passes_as_ipv4_option() {
    let tcp_with = |options| V4 { options, ..V4::PLAIN }.frame(6, syn());
    for padding in [[1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]] {
        assert_eq!(ip(&tcp_with(Box::leak(Box::new(padding)))).l4_offset, 38);
    }
    let refused: [&[u8]; 9] = [
        &[0x07, 0, 0, 0],
        &[0x07, 1, 0, 0],
        &[0x07, 0xff, 4, 0],
        &[0x07, 4, 4, 0],
        &[0x44, 8, 5, 0, 0, 0, 0, 0],
        &[0x9f, 4, 0, 0],
        &[0x94, 4, 0, 0],
        &[0, 1, 1, 1],
        &[1, 1, 1, 0x94],
    ];
    for options in refused {
        assert_eq!(fault(&tcp_with(options)), Malformed::Ipv4Option, "{options:x?}");
    }
}

fn ipv4_fragment(field: u16, data: usize) -> Vec<u8> {
    V4 { fragment: field, ..V4::PLAIN }.frame_of(17, &vec![b'f'; data])
}

#[test]
fn ipv4_fragments_are_read_whole_and_not_looked_into() {
    let ip = ip(&ipv4_fragment(0x2000 | 4, 8));
    let fragment = Fragment { id: 7, offset: 32, more: true, header_offset: 0, named_at: 0 };
    assert_eq!((ip.l4, ip.fragment, ip.l4_offset), (L4::Fragment, Some(fragment), 34));
    assert_eq!(whole(&ipv4_fragment(0x2000, 8)).flow(Direction::In), None);
    assert!(needs_whole(&ipv4_fragment(0x2000, 800)));
}

#[test]
fn fragments_no_stack_sends_are_dropped() {
    for (field, data, expected) in [
        (0x6000, 32, Malformed::FragmentFlags),
        (0x4004, 32, Malformed::FragmentFlags),
        (0x2000, 0, Malformed::FragmentLength),
        (0x0004, 0, Malformed::FragmentLength),
        (0x2000, 33, Malformed::FragmentLength),
        (8189, 1000, Malformed::FragmentLength),
        (8191, 16, Malformed::FragmentLength),
    ] {
        assert_eq!(fault(&ipv4_fragment(field, data)), expected, "{field:x} {data}");
    }
    assert_eq!(ip(&ipv4_fragment(8189, 3)).fragment.unwrap().offset, 65_512);
}

const PADDING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
const ALERT: [u8; 7] = [0, 5, 2, 0, 0, 1, 0];

#[test]
fn ipv6_lengths_must_hold_together() {
    let frame = || V6::plain().frame(6, syn());
    for first in [0x45, 0x00, 0x50, 0xf0] {
        assert_eq!(fault(&with(frame(), 14, &[first])), Malformed::Ipv6Version);
    }
    assert_eq!(fault(&with(frame(), 18, &[0, 21])), Malformed::Ipv6PayloadLength);
    assert_eq!(fault(&with(frame(), 18, &[0, 19])), Malformed::TcpShort);
    assert_eq!(fault(&V6 { hop_limit: 0, ..V6::plain() }.frame(6, syn())), Malformed::TtlZero);
    for length in 14..54 {
        assert_eq!(fault(&frame()[..length]), Malformed::Ipv6Short);
    }
}

#[test]
fn mapped_addresses_never_travel() {
    let mapped = v6("::ffff:10.0.0.10");
    assert_eq!(fault(&V6 { source: mapped, ..V6::plain() }.frame(6, syn())), Malformed::MappedAddress);
    assert_eq!(fault(&V6 { destination: mapped, ..V6::plain() }.frame(6, syn())), Malformed::MappedAddress);
}

#[test]
fn two_destination_options_headers_of_padding_pass() {
    let one = V6::plain().behind(60, &PADDING);
    let two = one.clone().behind(60, &PADDING);
    assert_eq!(ip(&one.frame(6, syn())).l4_offset, 62);
    assert_eq!(ip(&two.frame(6, syn())).protocol, Protocol::TCP);
    assert_eq!(fault(&two.behind(60, &PADDING).frame(6, syn())), Malformed::ExtensionRefused);
}

#[test]
fn extension_headers_off_the_list_are_refused() {
    for number in [0, 43, 51, 59, 135, 139, 140, 253, 254] {
        let frame = V6::plain().behind(number, &PADDING).frame(6, syn());
        assert_eq!(fault(&frame).reason(), fw_model::Reason::ExtensionHeader, "{number}");
        let behind = V6::plain().behind(60, &PADDING).behind(number, &PADDING).frame(6, syn());
        assert_eq!(fault(&behind), Malformed::ExtensionRefused, "{number}");
    }
    let alert_before_tcp = V6::plain().behind(0, &ALERT);
    assert_eq!(fault(&alert_before_tcp.frame(6, syn())), Malformed::ExtensionRefused);
    let alert_before_echo = alert_before_tcp.frame(58, icmp(128, 0, [0, 1, 0, 1], b""));
    assert_eq!(fault(&alert_before_echo), Malformed::ExtensionRefused);
}

#[test]
fn options_in_extension_headers_only_pad() {
    let refused: [&[u8; 7]; 7] = [
        &[0, 0x1e, 2, 0, 0, 1, 0],
        &[0, 0xc2, 4, 0, 1, 0, 0],
        &[0, 5, 2, 0, 0, 1, 0],
        &[0, 1, 5, 0, 0, 0, 0],
        &[0, 1, 4, 0, 0, 0, 7],
        &[0, 0x1e, 0xff, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0, 0, 1],
    ];
    for options in refused {
        assert_eq!(fault(&V6::plain().behind(60, options).frame(6, syn())), Malformed::ExtensionOption);
    }
    assert_eq!(ip(&V6::plain().behind(60, &[0; 7]).frame(6, syn())).protocol, Protocol::TCP);
    let flood = [&[0x01], [0; 14].as_slice()].concat();
    assert_eq!(fault(&V6::plain().behind(60, &flood).frame(6, syn())), Malformed::ExtensionOption);
}

#[test]
fn extension_headers_must_end_inside() {
    let long = V6::plain().behind(60, &[255, 1, 4, 0, 0, 0, 0]);
    assert_eq!(fault(&long.frame(6, syn())), Malformed::ExtensionShort);
    assert_eq!(fault(&V6::plain().frame_of(60, &[6])), Malformed::ExtensionShort);
    let beyond_the_head = long.frame(6, tcp(ACK, &[], &[0; 3000]));
    assert_eq!(fault(&beyond_the_head), Malformed::HeadersTooLong);
    let head = &beyond_the_head[..crate::HEAD_LEN];
    assert_eq!(parse(head, beyond_the_head.len()), Err(Malformed::HeadersTooLong));
}

#[test]
fn an_ipv6_fragment_says_where_its_header_stands_and_who_names_it() {
    let frame = V6::plain().behind(60, &PADDING).behind(44, &fragment_header(0, true)).frame_of(17, &[0; 16]);
    let ip = ip(&frame);
    let fragment = Fragment { id: 9, offset: 0, more: true, header_offset: 62, named_at: 54 };
    assert_eq!((ip.fragment, ip.l4_offset, ip.protocol), (Some(fragment), 70, Protocol::UDP));
    assert_eq!((frame[fragment.named_at], frame[fragment.header_offset]), (44, 17));
    assert_eq!(ip.l4, L4::Fragment);
}

#[test]
fn every_fragment_of_a_datagram_names_one_protocol() {
    let first = V6::plain().behind(44, &fragment_header(0, true)).behind(60, &PADDING).frame_of(17, &[0; 8]);
    let last = V6::plain().behind(44, &fragment_header(16, false)).frame_of(60, &[0; 8]);
    assert_eq!(ip(&first).protocol, ip(&last).protocol);
    assert_eq!(ip(&first).l4_offset, 62);
}

#[test]
fn a_first_fragment_holds_its_extension_headers_and_no_neighbour_discovery() {
    let cut = V6::plain().behind(44, &fragment_header(0, true)).frame_of(60, &[58, 12, 1, 100, 0, 0, 0, 0]);
    assert_eq!(fault(&cut), Malformed::ExtensionShort);
    for kind in 133..=137 {
        let message = icmp(kind, 0, [0; 4], &[0; 16]);
        for more in [true, false] {
            let frame = V6::neighbour().behind(44, &fragment_header(0, more)).frame(58, message.clone());
            assert_eq!(fault(&frame), Malformed::NdFragment, "{kind} {more}");
        }
    }
}

#[test]
fn an_atomic_fragment_counts_as_whole() {
    let ip = ip(&V6::plain().behind(44, &fragment_header(0, false)).frame(6, syn()));
    assert!(matches!((ip.fragment, ip.l4), (None, L4::Tcp(_))));
}

#[test]
fn ipv6_fragments_no_stack_sends_are_dropped() {
    let fragment =
        |header: &[u8; 7], data: usize| V6::plain().behind(44, header).frame_of(17, &vec![0; data]);
    assert_eq!(fault(&fragment(&fragment_header(0, true), 9)), Malformed::FragmentLength);
    assert_eq!(fault(&fragment(&fragment_header(8, false), 0)), Malformed::FragmentLength);
    assert_eq!(fault(&fragment(&fragment_header(65_528, false), 8)), Malformed::FragmentLength);
    assert_eq!(fault(&fragment(&[1, 0, 1, 0, 0, 0, 9], 8)), Malformed::FragmentHeader);
    assert_eq!(fault(&fragment(&[0, 0, 3, 0, 0, 0, 9], 8)), Malformed::FragmentHeader);
    let twice = V6::plain().behind(44, &fragment_header(0, false)).behind(44, &fragment_header(0, true));
    assert_eq!(fault(&twice.frame(6, syn())), Malformed::FragmentTwice);
    assert_eq!(fault(&V6::plain().frame_of(44, &[6, 0, 0])), Malformed::FragmentHeader);
    let alerted = V6::plain().behind(0, &ALERT).behind(44, &fragment_header(8, false));
    assert_eq!(fault(&alerted.frame_of(58, &[0; 8])), Malformed::ExtensionRefused);
}

#[test]
fn other_protocols_are_left_to_the_rules() {
    for protocol in [0, 4, 41, 47, 50, 51, 89, 132, 255] {
        let frame = V4::PLAIN.frame_of(protocol, &[0; 20]);
        assert_eq!((ip(&frame).l4, ip(&frame).protocol), (L4::Other, Protocol(protocol)));
        assert_eq!(whole(&frame).flow(Direction::In).unwrap().local_port, 0);
    }
}
