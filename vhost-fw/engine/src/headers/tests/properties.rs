use etherparse::{PacketBuilder, PacketHeaders, TransportHeader};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::HEAD_LEN;

/// Frames that get past the first checks, so that arbitrary bytes reach the last ones.
fn nearly_a_frame() -> impl Strategy<Value = Vec<u8>> {
    let protocols = prop::sample::select(vec![0u8, 1, 2, 6, 17, 43, 44, 58, 60, 132]);
    (protocols, vec(any::<u8>(), 0..600), any::<bool>(), prop::sample::select(vec![1u8, 64, 255])).prop_map(
        |(protocol, body, v4, hop_limit)| {
            if v4 {
                V4 { ttl: hop_limit, ..V4::PLAIN }.frame(protocol, body)
            } else {
                V6 { hop_limit, ..V6::neighbour() }.frame(protocol, body)
            }
        },
    )
}

/// Whether a frame read in one piece is what its headers say one by one.
fn plain_and_each_agree(frame: &[u8], length: usize) -> Result<bool, TestCaseError> {
    let (mut at_once, mut each) = (Headers::BLANK, Headers::BLANK);
    let is_plain = plain::parse(frame, length, &mut at_once);
    if is_plain {
        prop_assert_eq!(parse_each(frame, length, &mut each), Ok(()));
        prop_assert_eq!(at_once, each);
    }
    Ok(is_plain)
}

/// Whether the whole frame says what its head said, if the head was enough.
fn head_and_whole_agree(frame: &[u8], length: usize) -> Result<(), TestCaseError> {
    let head = parse(&frame[..frame.len().min(HEAD_LEN)], length);
    let whole = parse(frame, length);
    plain_and_each_agree(&frame[..frame.len().min(HEAD_LEN)], length)?;
    plain_and_each_agree(frame, length)?;
    if head != Ok(Parsed::NeedWhole) {
        prop_assert_eq!(head, whole);
    }
    if frame.len() >= length {
        prop_assert_ne!(whole, Ok(Parsed::NeedWhole));
    }
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(frame in vec(any::<u8>(), 0..400), more in 0usize..70_000) {
        head_and_whole_agree(&frame, frame.len())?;
        head_and_whole_agree(&frame, frame.len() + more)?;
    }

    #[test]
    fn nearly_right_frames_never_panic(frame in nearly_a_frame(), cut in 0usize..700, more in 0usize..9000) {
        head_and_whole_agree(&frame, frame.len())?;
        let cut = &frame[..cut.min(frame.len())];
        head_and_whole_agree(cut, cut.len())?;
        head_and_whole_agree(cut, cut.len() + more)?;
    }

    #[test]
    fn one_changed_byte_never_panics(at in any::<prop::sample::Index>(), byte in any::<u8>(), v4 in any::<bool>()) {
        let options = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 1, 3, 3, 7];
        let segment = tcp(SYN, &options, b"");
        let frame = if v4 { V4::PLAIN.frame(6, segment) } else { V6::plain().behind(60, &[0; 7]).frame(6, segment) };
        let at = at.index(frame.len());
        head_and_whole_agree(&with(frame, at, &[byte]), 74 + 28 * usize::from(!v4))?;
    }

    #[test]
    fn a_frame_read_in_one_piece_says_what_its_headers_say(
        kind in 0usize..4,
        payload in vec(any::<u8>(), 0..300),
        changes in vec((0usize..70, any::<u8>()), 0..3),
        (mends, more) in (any::<bool>(), 0usize..3),
    ) {
        const STAMPS: [u8; 12] = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
        let mut frame = match kind {
            0 => V4::PLAIN.frame(6, tcp(ACK, &[], &payload)),
            1 => V4::PLAIN.frame(6, tcp(ACK, &STAMPS, &payload)),
            2 => V4::PLAIN.frame(6, tcp(ACK, &[2, 4, 5, 0xb4], &payload)),
            _ => V4::PLAIN.frame(17, udp(53, 5353, &payload)),
        };
        let length = frame.len();
        prop_assert_eq!(plain_and_each_agree(&frame, length)?, kind != 2 && length >= 54);
        for (at, byte) in changes {
            if let Some(field) = frame.get_mut(at) {
                *field = byte;
            }
        }
        if mends {
            let checksum = checksum::ipv4_header(&frame[14..34]);
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        head_and_whole_agree(&frame, length)?;
        head_and_whole_agree(&frame, length + more)?;
        head_and_whole_agree(&frame, length - more)?;
    }

    #[test]
    fn etherparse_reads_the_same(
        (source_port, destination_port) in (1u16.., 1u16..),
        (sequence, acknowledgement, window) in (any::<u32>(), any::<u32>(), any::<u16>()),
        vlan in prop::option::of(1u16..4095),
        (is_v4, is_tcp) in (any::<bool>(), any::<bool>()),
        payload in vec(any::<u8>(), 0..1400),
    ) {
        prop_assume!(is_tcp || ![67, 68, 546, 547].contains(&destination_port));
        let ethernet = PacketBuilder::ethernet2(PEER_MAC, GUEST_MAC);
        let (source, destination) = (V6::plain().source, V6::plain().destination);
        let ip = match (vlan, is_v4) {
            (None, true) => ethernet.ipv4(PEER, GUEST, 64),
            (None, false) => ethernet.ipv6(source, destination, 64),
            (Some(id), true) => ethernet.single_vlan(id.try_into().unwrap()).ipv4(PEER, GUEST, 64),
            (Some(id), false) => ethernet.single_vlan(id.try_into().unwrap()).ipv6(source, destination, 64),
        };
        let mut frame = vec![];
        if is_tcp {
            let tcp = ip.tcp(source_port, destination_port, sequence, window).ack(acknowledgement);
            tcp.write(&mut frame, &payload).unwrap();
        } else {
            ip.udp(source_port, destination_port).write(&mut frame, &payload).unwrap();
        }
        let ours = whole(&frame);
        let theirs = PacketHeaders::from_ethernet_slice(&frame).unwrap();
        prop_assert_eq!(ours.ether.vlan, vlan);
        prop_assert_eq!(ours.length, frame.len());
        let Net::Ip(ip) = ours.net else { panic!() };
        prop_assert_eq!(ip.source.is_v4(), is_v4);
        match (ip.l4, theirs.transport.unwrap()) {
            (L4::Tcp(ours), TransportHeader::Tcp(theirs)) => {
                prop_assert_eq!(
                    (ours.source_port, ours.destination_port, ours.sequence, ours.acknowledgement, ours.window),
                    (
                        theirs.source_port,
                        theirs.destination_port,
                        theirs.sequence_number,
                        theirs.acknowledgment_number,
                        theirs.window_size
                    )
                );
                prop_assert_eq!((ours.header, ours.payload as usize), (theirs.header_len(), payload.len()));
                prop_assert_eq!(ours.flags, TcpFlags(TcpFlags::ACK));
            }
            (L4::Udp(ours), TransportHeader::Udp(theirs)) => {
                prop_assert_eq!(
                    (ours.source_port, ours.destination_port, ours.checksum),
                    (theirs.source_port, theirs.destination_port, theirs.checksum)
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
