//! What reassembly needs to know of one fragment.
//!
//! Knows how headers describe a fragment. Never knows what else is held.

use fw_model::{Addr, Direction, MacAddr, Protocol};

use super::sources::SourceKey;
use crate::headers::{Headers, Net};

/// Which datagram a fragment belongs to (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    direction: Direction,
    vlan: Option<u16>,
    source: Addr,
    destination: Addr,
    id: u32,
    /// Part of the key in IPv4 only.
    protocol: Option<Protocol>,
}

impl Key {
    pub(super) const fn source(&self) -> SourceKey {
        SourceKey { direction: self.direction, vlan: self.vlan, address: self.source }
    }
}

/// Where the headers of a fragment with offset 0 stand, in bytes of its frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    pub(super) ip: u32,
    /// Where the fragmentable part starts once the fragment header is taken out.
    pub(super) headers_end: u32,
    /// In IPv6, the field that names the fragment header; the header itself stands at `headers_end`.
    pub(super) named_at: Option<u32>,
}

impl Start {
    /// Bytes of IP headers in front of the fragmentable part.
    pub(super) const fn ip_length(self) -> u32 {
        self.headers_end - self.ip
    }
}

/// A fragment as it came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) key: Key,
    pub(super) protocol: Protocol,
    pub(super) destination_mac: MacAddr,
    /// The range of its data in the fragmentable part.
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) more: bool,
    /// Length of its frame, and where its data starts there.
    pub(super) frame: u32,
    pub(super) data_at: u32,
    pub(super) headers: Start,
}

impl Arrival {
    /// Reads a fragment and cuts its frame to what was judged; `None` if no datagram can have it.
    pub(super) fn read<'a>(
        direction: Direction,
        frame: &'a [u8],
        headers: &Headers,
    ) -> Option<(Self, &'a [u8])> {
        let Net::Ip(ip) = &headers.net else { return None };
        let fragment = ip.fragment?;
        let bytes = frame.get(..headers.length)?;
        let is_v4 = ip.source.is_v4();
        let data = headers.length.checked_sub(ip.l4_offset)?;
        let end = fragment.offset.checked_add(data)?;
        // Only the last fragment may end anywhere, and none beyond the longest datagram.
        let sound = data > 0 && end <= 65_535 && (!fragment.more || data % 8 == 0);
        let headers_end = if is_v4 { ip.l4_offset } else { fragment.header_offset };
        if !sound
            || headers.length > crate::FRAME_LEN_MAX
            || ip.offset > headers_end
            || headers_end > ip.l4_offset
        {
            return None;
        }
        let key = Key {
            direction,
            vlan: headers.ether.vlan,
            source: ip.source,
            destination: ip.destination,
            id: fragment.id,
            protocol: is_v4.then_some(ip.protocol),
        };
        let arrival = Self {
            key,
            protocol: ip.protocol,
            destination_mac: headers.ether.destination,
            start: narrow(fragment.offset)?,
            end: narrow(end)?,
            more: fragment.more,
            frame: narrow(headers.length)?,
            data_at: narrow(ip.l4_offset)?,
            headers: Start {
                ip: narrow(ip.offset)?,
                headers_end: narrow(headers_end)?,
                named_at: if is_v4 { None } else { Some(narrow(fragment.named_at)?) },
            },
        };
        Some((arrival, bytes))
    }
}

fn narrow(number: usize) -> Option<u32> {
    u32::try_from(number).ok()
}
