use fw_model::Direction::{In, Out};
use proptest::prelude::*;

use super::*;
use crate::headers::samples::*;

const LINK: Link = Link { mtu: 1500, guest: GuestOffloads { csum: true, tso4: true, tso6: true, ecn: true } };
const MODEST: Link =
    Link { mtu: 1500, guest: GuestOffloads { csum: false, tso4: false, tso6: false, ecn: false } };

/// Settles a frame of which only the head is here.
fn settle_head(direction: Direction, frame: &[u8], vnet: VnetHeader, link: &Link) -> Result<Settled, Reason> {
    let bytes = &frame[..frame.len().min(crate::HEAD_LEN)];
    settle_bytes(direction, bytes, frame, vnet, link)
}

fn settle_whole(direction: Direction, frame: &[u8], vnet: VnetHeader) -> Result<Settled, Reason> {
    settle_bytes(direction, frame, frame, vnet, &LINK)
}

#[track_caller]
fn settle_bytes(
    direction: Direction,
    bytes: &[u8],
    frame: &[u8],
    vnet: VnetHeader,
    link: &Link,
) -> Result<Settled, Reason> {
    let Ok(Parsed::Headers(headers)) = headers::parse(frame, frame.len()) else { panic!("{frame:x?}") };
    settle(&Frame { direction, bytes, length: frame.len(), vnet }, &headers, link)
}

const NONE: Settled = Settled::Leaves { vnet: VnetHeader::NONE, patch: None };

fn needs(csum_start: u16, csum_offset: u16) -> VnetHeader {
    VnetHeader { flags: NEEDS_CSUM, csum_start, csum_offset, ..VnetHeader::NONE }
}

fn gso(gso_type: u8, gso_size: u16, csum_start: u16) -> VnetHeader {
    VnetHeader { gso_type, gso_size, ..needs(csum_start, 16) }
}

fn segment(payload: usize) -> Vec<u8> {
    V4::PLAIN.frame(6, tcp(ACK, &[], &vec![b'x'; payload]))
}

#[test]
fn the_header_keeps_its_bytes() {
    let bytes = [1, 0x81, 0x36, 0, 0xa8, 5, 0x22, 0, 0x10, 0, 2, 1];
    let read = VnetHeader::from_bytes(bytes);
    assert_eq!((read.hdr_len, read.gso_size, read.csum_start, read.csum_offset), (54, 1448, 34, 16));
    assert_eq!(read.to_bytes(), bytes);
}

#[test]
fn a_checksum_is_written_where_the_parse_says_and_nowhere_else() {
    let frame = segment(100);
    let places = [
        (34, 2),
        (26, 0),
        (30, 0),
        (14, 0),
        (0, 0),
        (14, 2),
        (14, 9),
        (60_000, 16),
        (65_535, 65_535),
        (65, 16),
        (34, 60_000),
        (53, 0),
        (34, 65_534),
        (34, 6),
        (33, 16),
    ];
    for (start, offset) in places {
        for direction in [In, Out] {
            assert_eq!(settle_whole(direction, &frame, needs(start, offset)), Err(Reason::BadVnetHeader));
        }
    }
    let datagram = V4::PLAIN.frame(17, udp(4000, 8080, b"x"));
    assert_eq!(settle_whole(Out, &datagram, needs(34, 16)), Err(Reason::BadVnetHeader));
    assert!(settle_whole(Out, &datagram, needs(34, 6)).is_ok());
}

#[test]
fn unknown_flags_are_refused() {
    for flags in [4, 8, 0x80, 0xff, NEEDS_CSUM | 4] {
        let claim = VnetHeader { flags, ..needs(34, 16) };
        assert_eq!(settle_whole(In, &segment(1), claim), Err(Reason::BadVnetHeader));
    }
}

/// The bytes that leave, and their header.
fn leaves(frame: &[u8], settled: Settled) -> (Vec<u8>, VnetHeader) {
    let Settled::Leaves { vnet, patch } = settled else { panic!("{settled:?}") };
    let mut frame = frame.to_vec();
    if let Some(Patch { offset, value }) = patch {
        let offset = usize::from(offset);
        frame[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
    }
    (frame, vnet)
}

/// What a kernel does with a frame that needs its checksum.
fn complete((mut frame, vnet): (Vec<u8>, VnetHeader)) -> Vec<u8> {
    assert_eq!(vnet.flags, NEEDS_CSUM);
    let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
    let checksum = Sum::ZERO.bytes(&frame[start..]).checksum();
    frame[start + offset..start + offset + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

#[test]
fn a_vouched_frame_leaves_from_its_head_with_our_own_sum() {
    let frames = [
        (segment(1000), 34, 16, 54),
        (V4::PLAIN.frame(17, udp(4000, 8080, &[7; 1001])), 34, 6, 42),
        (V6::plain().frame(6, tcp(ACK, &[], &[7; 999])), 54, 16, 74),
        (V6::plain().behind(60, &[0; 7]).frame(6, tcp(ACK, &[], &[7; 999])), 62, 16, 82),
        (tagged(0x8100, 7, &segment(999)), 38, 16, 58),
    ];
    for (frame, start, offset, hdr_len) in frames {
        let field = usize::from(start + offset);
        let garbage = with(frame.clone(), field, &[0xde, 0xad]);
        for direction in [In, Out] {
            // Neither the field nor the hints of the sender matter.
            let claim =
                VnetHeader { hdr_len: 9999, gso_size: 77, num_buffers: 65_535, ..needs(start, offset) };
            let left = leaves(&garbage, settle_head(direction, &garbage, claim, &LINK).unwrap());
            assert_eq!(left.1, VnetHeader { hdr_len, ..needs(start, offset) });
            assert_eq!(complete(left), frame);
        }
    }
}

#[test]
fn an_unvouched_frame_is_verified_whole() {
    let frames = [
        segment(1000),
        V6::plain().frame(6, tcp(ACK, &[], &[7; 999])),
        V4::PLAIN.frame(17, udp(4000, 8080, &[7; 1001])),
    ];
    for frame in frames {
        for direction in [In, Out] {
            assert_eq!(settle_head(direction, &frame, VnetHeader::NONE, &LINK), Ok(Settled::NeedWhole));
            assert_eq!(settle_whole(direction, &frame, VnetHeader::NONE), Ok(NONE));
            let wrong = with(frame.clone(), 700, &[0]);
            assert_eq!(settle_whole(direction, &wrong, VnetHeader::NONE), Err(Reason::Checksum));
        }
    }
}

#[test]
fn a_trailer_is_no_part_of_the_checksum() {
    let trailed = [segment(10), vec![0xff; 33]].concat();
    assert_eq!(settle_whole(In, &trailed, VnetHeader::NONE), Ok(NONE));
}

#[test]
fn udp_without_a_checksum_has_nothing_to_verify() {
    let frame = V4::PLAIN.frame_of(17, &udp(4000, 8080, &[7; 1000]));
    assert_eq!(settle_head(In, &frame, VnetHeader::NONE, &LINK), Ok(NONE));
}

#[test]
fn data_valid_vouches_from_the_net_alone() {
    let wrong = with(segment(1000), 50, &[0xde, 0xad]);
    let claim = VnetHeader { flags: DATA_VALID, ..VnetHeader::NONE };
    assert_eq!(settle_head(In, &wrong, claim, &LINK), Ok(Settled::Leaves { vnet: claim, patch: None }));
    assert_eq!(settle_head(In, &wrong, claim, &MODEST), Ok(NONE));
    assert_eq!(settle_head(Out, &wrong, claim, &LINK), Ok(Settled::NeedWhole));
    assert_eq!(settle_whole(Out, &wrong, claim), Err(Reason::Checksum));
}

#[test]
fn a_guest_that_completes_nothing_gets_complete_checksums() {
    let frames = [
        (segment(1000), 34, 16),
        (V4::PLAIN.frame(17, udp(4000, 8080, &[7; 1001])), 34, 6),
        (V6::plain().frame(6, tcp(ACK, &[], &[7; 999])), 54, 16),
    ];
    for (frame, start, offset) in frames {
        let garbage = with(frame.clone(), usize::from(start + offset), &[0xde, 0xad]);
        assert_eq!(settle_head(In, &garbage, needs(start, offset), &MODEST), Ok(Settled::NeedWhole));
        let settled = settle_bytes(In, &garbage, &garbage, needs(start, offset), &MODEST).unwrap();
        assert_eq!(leaves(&garbage, settled), (frame, VnetHeader::NONE));
    }
}

#[test]
fn a_udp_checksum_that_comes_to_0_is_written_as_ffff() {
    // The payload is the complement of the sum of everything else.
    let rest = V4::PLAIN.frame(17, udp(4000, 8080, &[0, 0]));
    let frame = with(V4::PLAIN.frame_of(17, &udp(4000, 8080, &[rest[40], rest[41]])), 40, &[1, 1]);
    let settled = settle_bytes(In, &frame, &frame, needs(34, 6), &MODEST).unwrap();
    assert_eq!(leaves(&frame, settled).0[40..42], [0xff, 0xff]);
}

#[test]
fn a_claim_about_what_has_no_such_checksum_is_refused() {
    let frames = [
        V4::PLAIN.frame(1, icmp(8, 0, [0, 1, 0, 1], b"")),
        V4 { fragment: 0x2000, ..V4::PLAIN }.frame(6, tcp(ACK, &[], &[0; 100])),
        V4::PLAIN.frame_of(132, &[0; 40]),
        ether(0x88cc, &[0; 46]),
    ];
    for frame in frames {
        for claim in [needs(34, 16), needs(34, 2), gso(GSO_TCPV4, 1000, 34)] {
            assert_eq!(settle_whole(Out, &frame, claim), Err(Reason::BadVnetHeader));
        }
        let verified = VnetHeader { flags: DATA_VALID, ..VnetHeader::NONE };
        assert_eq!(settle_whole(In, &frame, verified), Ok(NONE));
        assert_eq!(settle_whole(Out, &frame, VnetHeader::NONE), Ok(NONE));
    }
}

#[test]
fn a_frame_longer_than_the_mtu_is_oversize() {
    let longest = segment(1500 + 4 - 40);
    assert_eq!(settle_whole(Out, &longest, VnetHeader::NONE), Ok(NONE));
    assert_eq!(settle_whole(Out, &segment(1465), VnetHeader::NONE), Err(Reason::Oversize));
    assert_eq!(settle_whole(Out, &segment(1465), needs(34, 16)), Err(Reason::Oversize));
    assert_eq!(settle_whole(Out, &ether(0x88cc, &[0; 1505]), VnetHeader::NONE), Err(Reason::Oversize));
}

#[test]
fn a_super_segment_leaves_with_its_segmentation_built_anew() {
    for (frame, gso_type, start, hdr_len) in [
        (segment(60_000), GSO_TCPV4, 34, 54),
        (V6::plain().frame(6, tcp(ACK, &[], &[7; 60_000])), GSO_TCPV6, 54, 74),
    ] {
        for direction in [In, Out] {
            let claim = VnetHeader { hdr_len: 3, num_buffers: 9, ..gso(gso_type, 1400, start) };
            let left = leaves(&frame, settle_head(direction, &frame, claim, &LINK).unwrap());
            assert_eq!(left.1, VnetHeader { hdr_len, ..gso(gso_type, 1400, start) });
            assert_eq!(complete(left), frame);
        }
        assert_eq!(settle_head(In, &frame, gso(gso_type, 1400, start), &MODEST), Err(Reason::BadGso));
    }
}

#[test]
fn a_segmentation_that_cannot_be_is_refused() {
    let frame = segment(3000);
    let refused = [
        gso(GSO_TCPV4, 0, 34),
        gso(GSO_TCPV4, 1, 34),
        gso(GSO_TCPV4, 7, 34),
        gso(GSO_TCPV4, 1461, 34),
        gso(GSO_TCPV4, 3001, 34),
        gso(GSO_TCPV4, 65_535, 34),
        gso(GSO_TCPV6, 1000, 34),
        gso(3, 1000, 34),
        gso(5, 1000, 34),
        gso(GSO_ECN, 1000, 34),
        gso(2, 1000, 34),
        VnetHeader { flags: 0, ..gso(GSO_TCPV4, 1000, 34) },
    ];
    for claim in refused {
        assert_eq!(settle_whole(Out, &frame, claim), Err(Reason::BadGso), "{claim:?}");
    }
    assert_eq!(
        settle_whole(Out, &frame, VnetHeader { flags: DATA_VALID, ..gso(1, 1000, 34) }),
        Err(Reason::BadGso)
    );
    let options = V4 { options: &[1, 1, 1, 0], ..V4::PLAIN }.frame(6, tcp(ACK, &[], &[0; 3000]));
    assert_eq!(settle_whole(Out, &options, gso(GSO_TCPV4, 1000, 38)), Err(Reason::BadGso));
    let extended = V6::plain().behind(60, &[0; 7]).frame(6, tcp(ACK, &[], &[0; 3000]));
    assert_eq!(settle_whole(Out, &extended, gso(GSO_TCPV6, 1000, 62)), Err(Reason::BadGso));
    assert_eq!(settle_whole(Out, &segment(0), gso(GSO_TCPV4, 1000, 34)), Err(Reason::BadGso));
    let trailed = [segment(2000), vec![0; 1000]].concat();
    assert_eq!(settle_whole(Out, &trailed, gso(GSO_TCPV4, 1000, 34)), Err(Reason::BadGso));
    let syn = V4::PLAIN.frame(6, tcp(SYN, &[], &[0; 1400]));
    assert_eq!(settle_whole(Out, &syn, gso(GSO_TCPV4, 1000, 34)), Err(Reason::BadGso));
    let datagram = V4::PLAIN.frame(17, udp(1, 2, &[0; 3000]));
    let claim = VnetHeader { csum_offset: 6, ..gso(GSO_TCPV4, 1000, 34) };
    assert_eq!(settle_whole(Out, &datagram, claim), Err(Reason::BadGso));
}

#[test]
fn one_segment_needs_no_segmentation() {
    for gso_size in [1000, 1460] {
        let settled = settle_whole(Out, &segment(1000), gso(GSO_TCPV4, gso_size, 34)).unwrap();
        assert_eq!(leaves(&segment(1000), settled).1, VnetHeader { hdr_len: 54, ..needs(34, 16) });
    }
}

#[test]
fn congestion_marks_are_kept_where_they_are_true() {
    let marked = V4::PLAIN.frame(6, tcp(ACK | CWR, &[], &[0; 3000]));
    let claim = gso(GSO_TCPV4 | GSO_ECN, 1000, 34);
    let kind = |frame: &[u8]| leaves(frame, settle_whole(In, frame, claim).unwrap()).1.gso_type;
    assert_eq!(kind(&marked), GSO_TCPV4 | GSO_ECN);
    assert_eq!(kind(&segment(3000)), GSO_TCPV4);
    let deaf = Link { guest: GuestOffloads { ecn: false, ..LINK.guest }, ..LINK };
    assert_eq!(settle_head(In, &marked, claim, &deaf), Err(Reason::BadGso));
    assert!(settle_head(Out, &marked, claim, &deaf).is_ok());
}

#[test]
fn a_correct_drivers_claim_is_accepted() {
    assert_eq!(driver_claim(&segment(1460), 1500), VnetHeader::NONE);
    assert_eq!(driver_claim(&segment(1461), 1500), VnetHeader { hdr_len: 54, ..gso(GSO_TCPV4, 1460, 34) });
    assert_eq!(driver_claim(&tagged(0x8100, 7, &segment(1460)), 1500), VnetHeader::NONE);
    let great = V6::plain().frame(6, tcp(ACK, &[], &[0; 60_000]));
    assert_eq!(driver_claim(&great, 1500), VnetHeader { hdr_len: 74, ..gso(GSO_TCPV6, 1440, 54) });
    assert!(settle_whole(Out, &great, driver_claim(&great, 1500)).is_ok());
    assert_eq!(driver_claim(&V4::PLAIN.frame(17, udp(1, 2, &[0; 3000])), 1500), VnetHeader::NONE);
    assert_eq!(driver_claim(b"", 1500), VnetHeader::NONE);
    assert_eq!(driver_claim(&great, 40), VnetHeader::NONE);
}

proptest! {
    #[test]
    fn no_claim_writes_outside_the_checksum(
        bytes in any::<[u8; VnetHeader::LEN]>(),
        (from_guest, right_place) in (any::<bool>(), any::<bool>()),
        is_udp in any::<bool>(),
        payload in 0usize..4000,
    ) {
        let mut claim = VnetHeader::from_bytes(bytes);
        if right_place {
            claim = VnetHeader { flags: claim.flags & 3, csum_start: 34, csum_offset: if is_udp { 6 } else { 16 }, ..claim };
        }
        let body = vec![7; payload];
        let frame = if is_udp {
            V4::PLAIN.frame(17, udp(4000, 8080, &body))
        } else {
            V4::PLAIN.frame(6, tcp(ACK, &[], &body))
        };
        let field = 34 + if is_udp { 6 } else { 16 };
        let direction = if from_guest { Out } else { In };
        if let Ok(settled) = settle_whole(direction, &frame, claim) {
            let (left, vnet) = leaves(&frame, settled);
            prop_assert_eq!(&left[..field], &frame[..field]);
            prop_assert_eq!(&left[field + 2..], &frame[field + 2..]);
            let field = u16::try_from(field).unwrap();
            prop_assert!(vnet.flags & NEEDS_CSUM == 0 || vnet.csum_start + vnet.csum_offset == field);
            prop_assert!(vnet.gso_type == 0 || vnet.flags & NEEDS_CSUM != 0);
            prop_assert_eq!(vnet.num_buffers, 0);
        }
    }
}
