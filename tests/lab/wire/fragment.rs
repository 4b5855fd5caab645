//! A frame cut into the fragments a router would make of it (RFC 791 section 3.2, RFC 8200 section 4.5).

use etherparse::{IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header};

const ETHER: usize = 14;

/// The fragments of an untagged frame, in order; each holds `size` bytes of data but the last.
///
/// # Panics
/// If the frame is not IP, or `size` is not a multiple of 8.
#[must_use]
#[expect(clippy::expect_used, reason = "frames of these sizes can be cut")]
pub fn fragments(frame: &[u8], id: u32, size: usize) -> Vec<Vec<u8>> {
    assert!(size.is_multiple_of(8), "fragments count in eights");
    let (ether, datagram) = frame.split_at(ETHER);
    let is_v4 = datagram.first().is_some_and(|first| first >> 4 == 4);
    let data = datagram.get(if is_v4 { 20 } else { 40 }..).expect("an IP datagram");
    let pieces = data.chunks(size).count();
    let cut = |(place, piece): (usize, &[u8])| {
        let (offset, more) = (place * size / 8, place + 1 < pieces);
        let headers =
            if is_v4 { v4(datagram, id, offset, more, piece) } else { v6(datagram, id, offset, more, piece) };
        [ether, &headers, piece].concat()
    };
    data.chunks(size).enumerate().map(cut).collect()
}

#[expect(clippy::expect_used, reason = "frames of these sizes can be cut")]
fn v4(datagram: &[u8], id: u32, offset: usize, more: bool, piece: &[u8]) -> Vec<u8> {
    let (mut header, _) = Ipv4Header::from_slice(datagram).expect("an IPv4 header");
    header.identification = u16::try_from(id).expect("16 bits of identification");
    header.fragment_offset = u16::try_from(offset).expect("an offset").try_into().expect("an offset");
    (header.more_fragments, header.dont_fragment) = (more, false);
    header.set_payload_len(piece.len()).expect("a length");
    header.header_checksum = header.calc_header_checksum();
    header.to_bytes().to_vec()
}

#[expect(clippy::expect_used, reason = "frames of these sizes can be cut")]
fn v6(datagram: &[u8], id: u32, offset: usize, more: bool, piece: &[u8]) -> Vec<u8> {
    let (mut header, _) = Ipv6Header::from_slice(datagram).expect("an IPv6 header");
    let offset = u16::try_from(offset).expect("an offset").try_into().expect("an offset");
    let fragment = Ipv6FragmentHeader::new(header.next_header, offset, more, id);
    header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
    header.set_payload_length(piece.len() + 8).expect("a length");
    [header.to_bytes().as_slice(), &fragment.to_bytes()].concat()
}
