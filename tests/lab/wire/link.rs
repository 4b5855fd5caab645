//! Frames below IP: any ethertype, VLAN tags, ARP.

use std::net::Ipv4Addr;

/// A frame of this ethertype.
#[must_use]
pub fn ether(source: [u8; 6], destination: [u8; 6], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&destination, &source, ethertype.to_be_bytes().as_slice(), payload].concat()
}

/// The same frame with a VLAN tag.
///
/// # Panics
/// If it is shorter than two addresses.
#[must_use]
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &0x8100_u16.to_be_bytes(), &vlan.to_be_bytes(), rest].concat()
}

/// An ARP message (1 request, 2 reply): `sender` says it has `address` and asks for, or tells, `target`.
#[must_use]
pub fn arp(operation: u16, sender: [u8; 6], address: Ipv4Addr, to: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let form = [0, 1, 8, 0, 6, 4];
    let asked = if operation == 1 { [0; 6] } else { to };
    let message =
        [form.as_slice(), &operation.to_be_bytes(), &sender, &address.octets(), &asked, &target.octets()];
    ether(sender, to, 0x0806, &message.concat())
}
