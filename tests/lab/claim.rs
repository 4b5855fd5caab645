//! What a virtio-net header may truthfully say about a frame, and what a receiver makes of it.
//!
//! Reads plain TCP and UDP by hand, so that the product's views never judge their own work. Never knows a verdict.

use fw_engine::VnetHeader;

/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`.
pub const NEEDS_CSUM: u8 = 1;
/// `VIRTIO_NET_HDR_F_DATA_VALID`.
pub const DATA_VALID: u8 = 2;

/// Where a whole TCP segment or UDP datagram stands in a frame, without tags and extension headers before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where its header starts.
    pub start: usize,
    /// Where its checksum stands, in bytes from `start`.
    pub offset: usize,
    /// Where it ends.
    pub end: usize,
    protocol: u8,
    addresses: (usize, usize),
}

impl Place {
    /// Where it stands in `frame`; `None` if there is none, or lengths do not hold together.
    #[must_use]
    pub fn of(frame: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
        let (protocol, start, end, addresses) = match half(12)? {
            0x0800 => {
                let words = frame.get(14)?.checked_sub(0x40).filter(|words| (5..16).contains(words))?;
                let whole = half(20)? & 0x3fff == 0;
                let end = 14 + usize::from(half(16)?);
                whole.then_some((*frame.get(23)?, 14 + 4 * usize::from(words), end, (26, 34)))?
            }
            0x86dd => (*frame.get(20)?, 54, 54 + usize::from(half(18)?), (22, 54)),
            _ => return None,
        };
        let (offset, header) = match protocol {
            6 => (16, 20),
            17 => (6, 8),
            _ => return None,
        };
        let fits = start + header <= end && end <= frame.len();
        fits.then_some(Self { start, offset, end, protocol, addresses })
    }

    /// Where its checksum stands in the frame.
    #[must_use]
    pub const fn field(&self) -> usize {
        self.start + self.offset
    }

    fn pseudo(&self, frame: &[u8]) -> u64 {
        let (from, to) = self.addresses;
        let length = u64::try_from(self.end - self.start).unwrap_or(0);
        sum(frame.get(from..to).unwrap_or_default()) + u64::from(self.protocol) + length
    }

    fn write(&self, frame: &mut [u8], value: u16) {
        if let Some(field) = frame.get_mut(self.field()..self.field() + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Does as a driver that leaves the checksum to the device: the pseudo-header's sum goes into the field. Gives
    /// the header that says so.
    #[must_use]
    pub fn leave_unwritten(&self, frame: &mut [u8]) -> VnetHeader {
        let partial = fold(self.pseudo(frame));
        self.write(frame, partial);
        VnetHeader {
            flags: NEEDS_CSUM,
            csum_start: u16::try_from(self.start).unwrap_or(u16::MAX),
            csum_offset: u16::try_from(self.offset).unwrap_or(u16::MAX),
            ..VnetHeader::NONE
        }
    }
}

/// The frame with a right checksum, cut where its datagram ends; as it is if it holds no plain TCP or UDP.
#[must_use]
pub fn with_right_checksum(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if let Some(place) = Place::of(&frame) {
        frame.truncate(place.end);
        place.write(&mut frame, 0);
        let whole = place.pseudo(&frame) + sum(frame.get(place.start..).unwrap_or_default());
        place.write(&mut frame, never_zero(!fold(whole)));
    }
    frame
}

/// Does what a kernel does with `NEEDS_CSUM`: sums from `csum_start` to the end and writes where the header says,
/// whatever stands there.
#[must_use]
pub fn completed(vnet: VnetHeader, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if vnet.flags & NEEDS_CSUM != 0 {
        let start = usize::from(vnet.csum_start);
        let value = !fold(sum(frame.get(start..).unwrap_or_default()));
        let at = start + usize::from(vnet.csum_offset);
        if let Some(field) = frame.get_mut(at..at + 2) {
            field.copy_from_slice(&never_zero(value).to_be_bytes());
        }
    }
    frame
}

/// UDP writes a sum of 0 as 0xffff (RFC 768). TCP's two zeros are equal too, and kernels write this one.
const fn never_zero(value: u16) -> u16 {
    if value == 0 { 0xffff } else { value }
}

/// Big-endian halves added up, a last odd byte filled up with zero (RFC 1071).
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|half| match half {
            [high, low] => u64::from(u16::from_be_bytes([*high, *low])),
            [high] => u64::from(*high) << 8,
            _ => 0,
        })
        .sum()
}

#[expect(clippy::cast_possible_truncation, reason = "what is cut off was added")]
const fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}
