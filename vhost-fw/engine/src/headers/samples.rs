//! Frames for tests, written from their meaning: well formed unless the test says otherwise.

use fw_model::{Addr, Protocol};

use super::checksum::{self, Sum};

pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
pub(crate) const PEER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xfe];
pub(crate) const GUEST: [u8; 4] = [10, 0, 0, 10];
pub(crate) const PEER: [u8; 4] = [198, 51, 100, 7];

pub(crate) fn v6(text: &str) -> [u8; 16] {
    text.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

/// An Ethernet II frame from the peer to the guest.
pub(crate) fn ether(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [GUEST_MAC.as_slice(), &PEER_MAC, &ethertype.to_be_bytes(), payload].concat()
}

/// The same frame with a tag of this ethertype in front of its own.
pub(crate) fn tagged(tpid: u16, vlan: u16, frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &tpid.to_be_bytes(), &vlan.to_be_bytes(), rest].concat()
}

/// The frame with these bytes written over its own at `at`.
pub(crate) fn with(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// An IPv4 frame from the peer to the guest.
#[derive(Debug, Clone)]
pub(crate) struct V4 {
    pub(crate) ttl: u8,
    /// Flags and fragment offset, as on the wire.
    pub(crate) fragment: u16,
    pub(crate) options: &'static [u8],
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
}

impl V4 {
    pub(crate) const PLAIN: Self =
        Self { ttl: 64, fragment: 0, options: &[], source: PEER, destination: GUEST };

    pub(crate) fn frame(&self, protocol: u8, mut l4: Vec<u8>) -> Vec<u8> {
        complete(&mut l4, Addr::v4(self.source), Addr::v4(self.destination), protocol);
        self.frame_of(protocol, &l4)
    }

    /// Without completing the checksum of what it carries.
    pub(crate) fn frame_of(&self, protocol: u8, l4: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let total = u16::try_from(header + l4.len()).unwrap().to_be_bytes();
        let [f0, f1] = self.fragment.to_be_bytes();
        let first = 0x40 | u8::try_from(header / 4).unwrap();
        let fixed = [first, 0, total[0], total[1], 0, 7, f0, f1, self.ttl, protocol, 0, 0];
        let written = [fixed.as_slice(), &self.source, &self.destination, self.options].concat();
        let checksum = checksum::ipv4_header(&written).to_be_bytes();
        ether(0x0800, &[&with(written, 10, &checksum), l4].concat())
    }
}

/// An IPv6 frame from the peer to the guest, with extension headers: each its number and its bytes behind the "next
/// header" field.
#[derive(Debug, Clone)]
pub(crate) struct V6 {
    pub(crate) hop_limit: u8,
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    pub(crate) chain: Vec<(u8, Vec<u8>)>,
}

impl V6 {
    pub(crate) fn plain() -> Self {
        Self {
            hop_limit: 64,
            source: v6("2001:db8:ffff::7"),
            destination: v6("2001:db8:0:1::10"),
            chain: vec![],
        }
    }

    /// From one link-local address to all nodes, as neighbours speak.
    pub(crate) fn neighbour() -> Self {
        Self { hop_limit: 255, source: v6("fe80::1"), destination: v6("ff02::1"), chain: vec![] }
    }

    pub(crate) fn behind(mut self, number: u8, rest: &[u8]) -> Self {
        self.chain.push((number, rest.to_vec()));
        self
    }

    pub(crate) fn frame(&self, protocol: u8, mut l4: Vec<u8>) -> Vec<u8> {
        complete(&mut l4, Addr::v6(self.source), Addr::v6(self.destination), protocol);
        self.frame_of(protocol, &l4)
    }

    /// Without completing the checksum of what it carries.
    pub(crate) fn frame_of(&self, protocol: u8, l4: &[u8]) -> Vec<u8> {
        let mut next = protocol;
        let mut payload = l4.to_vec();
        for (number, rest) in self.chain.iter().rev() {
            payload = [&[next], rest.as_slice(), &payload].concat();
            next = *number;
        }
        let [n0, n1] = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let fixed = [0x60, 0, 0, 0, n0, n1, next, self.hop_limit];
        ether(0x86dd, &[fixed.as_slice(), &self.source, &self.destination, &payload].concat())
    }
}

/// A fragment header behind its "next header" field.
pub(crate) fn fragment_header(offset: u16, more: bool) -> [u8; 7] {
    let [o0, o1] = (offset | u16::from(more)).to_be_bytes();
    [0, o0, o1, 0, 0, 0, 9]
}

/// Writes the checksum of a message that has one.
fn complete(l4: &mut [u8], source: Addr, destination: Addr, protocol: u8) {
    let at = match protocol {
        1 | 2 | 58 => 2,
        6 => 16,
        17 => 6,
        _ => return,
    };
    if l4.len() < at + 2 {
        return;
    }
    let pseudo = match protocol {
        1 | 2 => Sum::ZERO,
        _ => Sum::pseudo(source, destination, Protocol(protocol), u32::try_from(l4.len()).unwrap()),
    };
    l4[at..at + 2].fill(0);
    let checksum = pseudo.bytes(l4).checksum();
    l4[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;
pub(crate) const ECE: u8 = 0x40;
pub(crate) const CWR: u8 = 0x80;

/// A TCP segment from port 50000 to port 80; `options` fill whole words.
pub(crate) fn tcp(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let offset = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
    let fixed =
        [0xc3, 0x50, 0, 80, 0, 0, 0x13, 0x88, 0, 0, 0x03, 0xe9, offset, flags, 0xfa, 0xf0, 0, 0, 0, 0];
    [fixed.as_slice(), options, payload].concat()
}

pub(crate) fn udp(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let fields = [source, destination, length, 0].map(u16::to_be_bytes).concat();
    [fields.as_slice(), payload].concat()
}

/// An ICMP message of either family: type, code and the four bytes behind the checksum.
pub(crate) fn icmp(kind: u8, code: u8, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
    [[kind, code, 0, 0].as_slice(), &rest, body].concat()
}

/// A DHCP message with this operation and chaddr.
pub(crate) fn dhcp(operation: u8, chaddr: [u8; 6]) -> Vec<u8> {
    let mut message = vec![0; 244];
    message[..3].copy_from_slice(&[operation, 1, 6]);
    message[28..34].copy_from_slice(&chaddr);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    message
}
