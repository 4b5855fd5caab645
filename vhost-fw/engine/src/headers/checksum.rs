//! The internet checksum (RFC 1071): of headers, and of segments with their pseudo-header.
//!
//! Knows sums of bytes. Never knows where in a frame they stand.

use fw_model::{Addr, Protocol};

/// A one's complement sum of 16-bit words that is still growing.
///
/// A segment's checksum is `Sum::pseudo(…).bytes(segment).checksum()` with its checksum field 0, and it is right if
/// `Sum::pseudo(…).bytes(segment).is_right()` with the field as it came. What Linux expects in the field of a frame
/// that still needs its checksum (`VIRTIO_NET_HDR_F_NEEDS_CSUM`) is `Sum::pseudo(…).fold()`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    total: u64,
    /// An odd number of bytes was summed, so that the next byte is the low half of a word.
    odd: bool,
}

impl Sum {
    /// The sum of nothing.
    pub(crate) const ZERO: Self = Self { total: 0, odd: false };

    /// The sum of the pseudo-header of both families (RFC 9293 section 3.1, RFC 8200 section 8.1). `length` counts
    /// the bytes from the upper-layer header to the end of the datagram.
    #[inline]
    pub(crate) fn pseudo(source: Addr, destination: Addr, protocol: Protocol, length: u32) -> Self {
        let addresses = address(source) + address(destination);
        Self { total: addresses + u64::from(protocol.0) + u64::from(length), odd: false }
    }

    /// The sum of an IPv4 header without options: a known length needs no loop.
    #[inline(always)]
    pub(crate) fn plain_ipv4(header: &[u8; 20]) -> Self {
        let (chunks, _) = header.as_chunks::<4>();
        let total = chunks.iter().map(|chunk| u64::from(u32::from_ne_bytes(*chunk))).sum();
        Self { total: u64::from(u16::from_be(fold(total))), odd: false }
    }

    /// And these bytes behind what was summed so far, which may be split anywhere.
    #[inline]
    #[must_use]
    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        let sum = words(bytes);
        let sum = if self.odd { sum.swap_bytes() } else { sum };
        Self { total: self.total + u64::from(sum), odd: self.odd ^ (bytes.len() % 2 == 1) }
    }

    /// The sum in 16 bits.
    #[inline]
    pub(crate) const fn fold(self) -> u16 {
        fold(self.total)
    }

    /// The checksum: the complement of the sum. UDP writes ffff for 0 (RFC 768), which is the caller's to know.
    pub(crate) const fn checksum(self) -> u16 {
        !self.fold()
    }

    /// Whether what was summed, its checksum field included, has the right checksum.
    #[inline]
    pub(crate) const fn is_right(self) -> bool {
        self.fold() == 0xffff
    }
}

/// The checksum an IPv4 header must carry, whatever stands in its checksum field now.
pub(crate) fn ipv4_header(header: &[u8]) -> u16 {
    let (before, after) = (header.get(..10).unwrap_or_default(), header.get(12..).unwrap_or_default());
    Sum::ZERO.bytes(before).bytes(after).checksum()
}

/// The sum of an address. The ffff of IPv4's mapped form is -0 in one's complement: it leaves the sum of anything else
/// as it is.
#[inline]
fn address(addr: Addr) -> u64 {
    const WORD: u128 = 0xffff_ffff;
    let bits = addr.bits();
    let sum = (bits >> 96) + (bits >> 64 & WORD) + (bits >> 32 & WORD) + (bits & WORD);
    u64::try_from(sum).unwrap_or(u64::MAX)
}

/// The folded sum of big-endian words; an odd last byte counts as a word's high half.
#[inline]
fn words(bytes: &[u8]) -> u16 {
    let (chunks, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    // Summed in the machine's own order, which commutes with the sum (RFC 1071 section 2B). Wrapping would take
    // 16 GiB; the plain form lets the compiler use vectors.
    let total = chunks.iter().fold(u64::from(u32::from_ne_bytes(last)), |total, chunk| {
        total.wrapping_add(u64::from(u32::from_ne_bytes(*chunk)))
    });
    u16::from_be(fold(total))
}

#[inline]
const fn fold(total: u64) -> u16 {
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 32) + (total & 0xffff_ffff);
    let total = (total >> 16) + (total & 0xffff);
    let total = (total >> 16) + (total & 0xffff);
    let [.., high, low] = total.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 1071 section 4.1, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let sum = Sum::ZERO.bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.fold(), 0xddf2);
    }

    #[test]
    fn the_checksum_of_an_ipv4_header_ignores_its_field() {
        let header =
            [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(ipv4_header(&header), 0xb861);
        assert!(Sum::ZERO.bytes(&header).is_right());
    }

    #[test]
    fn mapped_addresses_add_nothing_but_their_four_bytes() {
        let (source, destination) = ([10, 0, 0, 1], [198, 51, 100, 7]);
        let pseudo = Sum::pseudo(Addr::v4(source), Addr::v4(destination), Protocol::TCP, 20);
        let written = [source.as_slice(), &destination, &[0, 6, 0, 20]].concat();
        assert_eq!(pseudo.fold(), slow(&written));
    }

    #[test]
    fn the_length_of_a_great_segment_counts_whole() {
        let (source, destination) = ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap());
        let sum = |length| Sum::pseudo(source, destination, Protocol::TCP, length).fold();
        assert_eq!(sum(0x1_0005), sum(6));
    }

    proptest! {
        #[test]
        fn fast_and_slow_agree_at_any_split(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..300) {
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(Sum::ZERO.bytes(first).bytes(second).fold(), slow(&bytes));
        }
    }
}
