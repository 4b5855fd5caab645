//! Protocol and addresses of a frame, as far as its first bytes show them, for people to read.
//!
//! Nothing is decided by it: what it cannot read it leaves out. It may not be used for anything else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fw_model::Protocol;
use serde::Serialize;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
const ETHERTYPE_VLAN: [u8; 2] = [0x81, 0x00];

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Headline {
    proto: Option<String>,
    src: Option<String>,
    dst: Option<String>,
}

impl Headline {
    pub(super) fn read(head: &[u8]) -> Self {
        Self::of(head).unwrap_or_default()
    }

    fn of(head: &[u8]) -> Option<Self> {
        let tagged = head.get(12..14)? == ETHERTYPE_VLAN;
        let (ethertype, net) = if tagged {
            head.get(16..)?.split_at_checked(2)?
        } else {
            head.get(12..)?.split_at_checked(2)?
        };
        let (protocol, source, destination, l4) = if ethertype == ETHERTYPE_IPV4 {
            let header = usize::from(net.first()? & 0xf) * 4;
            let first_part = u16::from_be_bytes(*array(net, 6)?) & 0x1fff == 0;
            let l4 = if first_part && header >= 20 { net.get(header..) } else { None };
            let address =
                |offset| array(net, offset).map(|octets: &[u8; 4]| IpAddr::V4(Ipv4Addr::from(*octets)));
            (*net.get(9)?, address(12)?, address(16)?, l4)
        } else if ethertype == ETHERTYPE_IPV6 {
            let address =
                |offset| array(net, offset).map(|octets: &[u8; 16]| IpAddr::V6(Ipv6Addr::from(*octets)));
            (*net.get(6)?, address(8)?, address(24)?, net.get(40..))
        } else {
            return None;
        };
        let protocol = Protocol(protocol);
        let ports = l4.filter(|_| protocol == Protocol::TCP || protocol == Protocol::UDP);
        let written = |ip: IpAddr, offset| match ports.and_then(|l4| array(l4, offset)) {
            Some(port) => SocketAddr::new(ip, u16::from_be_bytes(*port)).to_string(),
            None => ip.to_string(),
        };
        Some(Self {
            proto: Some(protocol.to_string()),
            src: Some(written(source, 0)),
            dst: Some(written(destination, 2)),
        })
    }
}

fn array<const N: usize>(bytes: &[u8], offset: usize) -> Option<&[u8; N]> {
    bytes.get(offset..)?.first_chunk()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(head: &[u8]) -> String {
        let Headline { proto, src, dst } = Headline::read(head);
        [proto, src, dst].map(|part| part.unwrap_or_else(|| "-".to_owned())).join(" ")
    }

    fn ipv4(fragment: [u8; 2], protocol: u8) -> Vec<u8> {
        let mut head = vec![0; 12];
        head.extend([8, 0, 0x45, 0, 0, 40, 0, 0]);
        head.extend(fragment);
        head.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x30, 0x39, 0, 80]);
        head
    }

    #[test]
    fn addresses_and_ports_are_shown_where_they_stand() {
        assert_eq!(line(&ipv4([0, 0], 6)), "tcp 10.0.0.1:12345 10.0.0.2:80");
        assert_eq!(line(&ipv4([0, 1], 6)), "tcp 10.0.0.1 10.0.0.2");
        assert_eq!(line(&ipv4([0, 0], 1)), "icmp 10.0.0.1 10.0.0.2");
        let mut tagged = ipv4([0, 0], 17);
        tagged.splice(12..12, [0x81, 0, 0, 30]);
        assert_eq!(line(&tagged), "udp 10.0.0.1:12345 10.0.0.2:80");
        let mut v6 = vec![0; 12];
        v6.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
        v6.extend([0; 15]);
        v6.push(1);
        v6.extend([0; 15]);
        v6.extend([2, 0, 53, 0, 54]);
        assert_eq!(line(&v6), "udp [::1]:53 [::2]:54");
    }

    #[test]
    fn no_cut_of_a_frame_is_too_short_to_be_shown() {
        let whole = ipv4([0, 0], 6);
        for length in 0..whole.len() {
            let shown = line(&whole[..length]);
            assert_eq!(shown == "- - -", length < 34, "{length}: {shown}");
        }
    }
}
