//! The frames of DPDK's flow generator, for who must send the same without it.
//!
//! It may know the identity that testpmd's frames have. It must never know who takes them.

use super::dpdk;
use crate::wire::{self, End};

/// Bytes before a UDP payload.
const HEADERS: usize = 14 + 20 + 8;
const PORT: u16 = 1000;
/// Where its frames go.
pub(super) const SINK_PORT: u16 = 1001;
const SINK_MAC: [u8; 6] = [0, 1, 2, 3, 4, 1];

/// The generator's own end.
pub(super) fn source() -> End {
    let ip = dpdk::GENERATOR_ADDRESS.parse().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED).into();
    End { mac: [0, 1, 2, 3, 4, 0], ip, port: PORT }
}

/// The end that flow `number` goes to.
pub(super) fn sink(number: u32) -> End {
    let [.., high, low] = number.to_be_bytes();
    End { mac: SINK_MAC, ip: [10, 253, high, low].into(), port: SINK_PORT }
}

/// A frame of `size` bytes of flow `number`, as the generator sends it.
pub(super) fn frame(number: u32, size: usize) -> Vec<u8> {
    wire::udp(&source(), &sink(number), &vec![0; size.saturating_sub(HEADERS)])
}

/// An answer to it.
pub(super) fn answer(number: u32, size: usize) -> Vec<u8> {
    wire::udp(&sink(number), &source(), &vec![0; size.saturating_sub(HEADERS)])
}
