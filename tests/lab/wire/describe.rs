//! What a frame is, in a word or two, for sentences in tests.

use etherparse::{SlicedPacket, TcpHeader, TransportSlice};

/// A frame in a word or two: `rst+ack`, `icmp 3/13`, `udp`.
#[must_use]
pub fn describe(frame: &[u8]) -> String {
    let transport = SlicedPacket::from_ethernet(frame).ok().and_then(|packet| packet.transport);
    match transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let flags = [(tcp.syn(), "syn"), (tcp.fin(), "fin"), (tcp.rst(), "rst"), (tcp.ack(), "ack")];
            flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect::<Vec<_>>().join("+")
        }
        Some(TransportSlice::Udp(_)) => "udp".to_owned(),
        Some(TransportSlice::Icmpv4(icmp)) => format!("icmp {}/{}", icmp.type_u8(), icmp.code_u8()),
        Some(TransportSlice::Icmpv6(icmp)) => format!("icmpv6 {}/{}", icmp.type_u8(), icmp.code_u8()),
        Some(TransportSlice::Igmp(_)) | None => format!("{} bytes", frame.len()),
    }
}

/// The TCP header of a frame.
///
/// # Panics
/// If it has none.
#[must_use]
#[expect(clippy::panic, reason = "a test asks for what must be there")]
pub fn tcp_of(frame: &[u8]) -> TcpHeader {
    match SlicedPacket::from_ethernet(frame).ok().and_then(|packet| packet.transport) {
        Some(TransportSlice::Tcp(tcp)) => tcp.to_header(),
        other => panic!("no TCP segment: {other:?}"),
    }
}
