//! Frames by sentence: what a test wants to say on the wire, as bytes.
//!
//! Built by etherparse, so that the product's own views never judge their own work.

mod describe;
mod fragment;
mod icmp;
mod link;

use std::net::IpAddr;

use etherparse::{PacketBuilder, PacketBuilderStep, TcpHeader};

pub use describe::{describe, tcp_of};
pub use fragment::fragments;
pub use icmp::{advertisement, icmp, icmp_error, solicitation};
pub use link::{arp, ether, tagged};

/// One end on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its IP address.
    pub ip: IpAddr,
    /// Its port, or an echo's identifier.
    pub port: u16,
}

impl End {
    /// The same end at another port.
    #[must_use]
    pub const fn at(self, port: u16) -> Self {
        Self { port, ..self }
    }
}

/// A TCP segment's own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement, if the ACK flag is set.
    pub acknowledgement: Option<u32>,
    /// SYN.
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
    /// Window, unscaled.
    pub window: u16,
    /// Bytes of payload.
    pub payload: usize,
}

impl Segment {
    /// An acknowledgement without data.
    #[must_use]
    pub const fn ack(sequence: u32, acknowledgement: u32) -> Self {
        Self {
            sequence,
            acknowledgement: Some(acknowledgement),
            syn: false,
            fin: false,
            rst: false,
            window: 64_240,
            payload: 0,
        }
    }

    /// A first frame.
    #[must_use]
    pub const fn syn(sequence: u32) -> Self {
        Self { acknowledgement: None, syn: true, ..Self::ack(sequence, 0) }
    }
}

#[expect(clippy::panic, reason = "a test that mixes families is wrong")]
fn ip(from: &End, to: &End, hops: u8) -> PacketBuilderStep<etherparse::IpHeaders> {
    let ether = PacketBuilder::ethernet2(from.mac, to.mac);
    match (from.ip, to.ip) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let header = etherparse::Ipv4Header {
                source: source.octets(),
                destination: destination.octets(),
                time_to_live: hops,
                ..etherparse::Ipv4Header::default()
            };
            ether.ip(etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default()))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let header = etherparse::Ipv6Header {
                source: source.octets(),
                destination: destination.octets(),
                hop_limit: hops,
                ..etherparse::Ipv6Header::default()
            };
            ether.ip(etherparse::IpHeaders::Ipv6(header, etherparse::Ipv6Extensions::default()))
        }
        mixed => panic!("{mixed:?} are of two families"),
    }
}

/// A TCP segment.
///
/// # Panics
/// If the ends are of two families.
#[must_use]
pub fn tcp(from: &End, to: &End, segment: &Segment) -> Vec<u8> {
    tcp_with(from, to, segment, &[])
}

/// A TCP segment with options.
///
/// # Panics
/// If the ends are of two families.
#[must_use]
#[expect(clippy::expect_used, reason = "frames of these sizes can be built")]
pub fn tcp_with(
    from: &End,
    to: &End,
    segment: &Segment,
    options: &[etherparse::TcpOptionElement],
) -> Vec<u8> {
    let mut header = TcpHeader::new(from.port, to.port, segment.sequence, segment.window);
    header.syn = segment.syn;
    header.fin = segment.fin;
    header.rst = segment.rst;
    header.ack = segment.acknowledgement.is_some();
    header.acknowledgment_number = segment.acknowledgement.unwrap_or(0);
    header.set_options(options).expect("options that fit");
    let builder = ip(from, to, 64).tcp_header(header);
    let payload = vec![b'x'; segment.payload];
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload).expect("a TCP segment");
    frame
}

/// A UDP datagram.
///
/// # Panics
/// If the ends are of two families.
#[must_use]
#[expect(clippy::expect_used, reason = "frames of these sizes can be built")]
pub fn udp(from: &End, to: &End, payload: &[u8]) -> Vec<u8> {
    let builder = ip(from, to, 64).udp(from.port, to.port);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, payload).expect("a UDP datagram");
    frame
}

/// An echo request or reply of the ends' family, with this identifier.
///
/// # Panics
/// If the ends are of two families.
#[must_use]
#[expect(clippy::expect_used, reason = "frames of these sizes can be built")]
pub fn echo(from: &End, to: &End, identifier: u16, request: bool) -> Vec<u8> {
    let step = ip(from, to, 64);
    let mut frame = Vec::new();
    let payload = [0; 8];
    if from.ip.is_ipv4() {
        let builder = if request {
            step.icmpv4_echo_request(identifier, 1)
        } else {
            step.icmpv4_echo_reply(identifier, 1)
        };
        builder.write(&mut frame, &payload).expect("an echo");
    } else {
        let builder = if request {
            step.icmpv6_echo_request(identifier, 1)
        } else {
            step.icmpv6_echo_reply(identifier, 1)
        };
        builder.write(&mut frame, &payload).expect("an echo");
    }
    frame
}
