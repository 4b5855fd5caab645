//! Counts, inside the guest, the frames that came through although nothing should have let them: one line each.
//!
//! It may know raw sockets and the ports that mark such frames. It must never know who sends them, or the rules.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::thread;

use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, ipproto};

/// Prints a line for every TCP segment and UDP datagram from a source port in `marked` that the guest's kernel gets.
///
/// # Errors
/// No raw socket, or nowhere to print.
pub(super) fn watch(marked: &RangeInclusive<u16>) -> io::Result<()> {
    let tcp = raw(ipproto::TCP)?;
    let udp = raw(ipproto::UDP)?;
    writeln!(io::stdout().lock(), "watching {}-{}", marked.start(), marked.end())?;
    let both = marked.clone();
    let tcp = thread::spawn(move || tell("tcp", &tcp, &both));
    tell("udp", &udp, marked)?;
    tcp.join().unwrap_or(Ok(()))
}

fn raw(protocol: Protocol) -> io::Result<OwnedFd> {
    Ok(net::socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?)
}

fn tell(protocol: &str, socket: &OwnedFd, marked: &RangeInclusive<u16>) -> io::Result<()> {
    let mut packet = [0; 2048];
    loop {
        let (length, _) = net::recv(socket, &mut packet[..], RecvFlags::empty())?;
        let ports = packet.get(..length).and_then(ports);
        if let Some((from, to)) = ports.filter(|(from, _)| marked.contains(from)) {
            writeln!(io::stdout().lock(), "{protocol} {from} {to}")?;
        }
    }
}

/// The ports of an IPv4 packet, source first.
fn ports(packet: &[u8]) -> Option<(u16, u16)> {
    let header = usize::from(packet.first()? & 15) * 4;
    let [a, b, c, d] = *packet.get(header..)?.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}
