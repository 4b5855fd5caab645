//! Which way a frame goes, and the key of the flow it belongs to.
//!
//! A key is written from the NIC's own place: its end is `local`, the other end `remote`, whichever way the
//! frame goes. It may know addresses and ports. It must never know what was seen of a flow.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Addr;

/// The way a frame goes, seen from the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// From the guest.
    Out,
    /// To the guest.
    In,
}

impl Direction {
    /// The other way.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Out => Self::In,
            Self::In => Self::Out,
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Out => "out",
            Self::In => "in",
        })
    }
}

/// An IP protocol number (IANA "Assigned Internet Protocol Numbers").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP (RFC 792).
    pub const ICMP: Self = Self(1);
    /// IGMP (RFC 3376).
    pub const IGMP: Self = Self(2);
    /// TCP (RFC 9293).
    pub const TCP: Self = Self(6);
    /// UDP (RFC 768).
    pub const UDP: Self = Self(17);
    /// `ICMPv6` (RFC 4443).
    pub const ICMPV6: Self = Self(58);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("icmp"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::ICMPV6 => f.write_str("icmpv6"),
            Self(number) => number.fmt(f),
        }
    }
}

/// The key of a flow, written from the NIC's own place, so that both directions have the same key.
///
/// Ports are TCP's and UDP's. An echo conn (ICMP, `ICMPv6`) holds its identifier as the *requester's* port and 0
/// as the other, so that two pings that cross with one identifier stay two conns. Other protocols hold 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowKey {
    /// The guest's end.
    pub local: Addr,
    /// The other end.
    pub remote: Addr,
    /// The guest's port.
    pub local_port: u16,
    /// The other end's port.
    pub remote_port: u16,
    /// IP protocol.
    pub protocol: Protocol,
    /// VLAN of the flow, 0 = untagged.
    pub vlan: u16,
}

impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { local, remote, local_port, remote_port, protocol, vlan } = self;
        write!(f, "{protocol} {local} {local_port} <-> {remote} {remote_port}")?;
        if *vlan == 0 { Ok(()) } else { write!(f, " vlan {vlan}") }
    }
}
