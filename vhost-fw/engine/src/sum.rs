//! The internet checksum (RFC 1071).
//!
//! Knows bytes and how a pseudo-header is summed. Never knows where a checksum stands.

use fw_model::{Addr, Protocol};

/// A sum that is not folded yet. The parts added to it have even lengths, except the last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum(u64);

impl Sum {
    pub(crate) const ZERO: Self = Self(0);

    /// The pseudo-header of either family (RFC 9293 section 3.1, RFC 8200 section 8.1): `length` is that of the
    /// upper-layer packet.
    pub(crate) fn pseudo_header(source: Addr, destination: Addr, protocol: Protocol, length: usize) -> Self {
        // An IPv4 address's mapping prefix must not be summed.
        let sum_of = |addr: Addr| {
            let bits = if addr.is_v4() { addr.bits() & 0xffff_ffff } else { addr.bits() };
            Self::ZERO.add(&bits.to_be_bytes()).0
        };
        let length = u64::try_from(length).unwrap_or(u64::MAX) & 0xffff_ffff;
        Self(sum_of(source) + sum_of(destination) + u64::from(protocol.0) + length)
    }

    /// Adds bytes, a missing last one as zero.
    pub(crate) fn add(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<2>();
        let words: u64 = words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum();
        let rest = rest.first().map_or(0, |byte| u64::from(*byte) << 8);
        Self(self.0.wrapping_add(words).wrapping_add(rest))
    }

    /// The checksum: the folded sum's complement.
    pub(crate) fn checksum(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).map_or(0, |sum| !sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let sum = Sum::ZERO.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.checksum(), !0xddf2);
    }

    #[test]
    fn an_odd_last_byte_counts_as_the_high_one() {
        assert_eq!(Sum::ZERO.add(&[0x12]).checksum(), !0x1200);
    }
}
