//! Who a NIC is: its name, its MAC address and every address it may call its own.
//!
//! It may know what the control plane says of a NIC. It must never know what a guest claims.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::addr::serde_as_text;
use crate::{Addr, AddrError, Cidr};

/// The name of a NIC: 1 to 64 of `a-z A-Z 0-9 . _ -`, not starting with a dot. It names folders and sockets, so
/// nothing in it may be special to a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NicId(String);

/// A name that no NIC may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no NIC id: 1 to 64 of a-z A-Z 0-9 . _ - and not a dot first")]
pub struct NicIdError(String);

impl NicId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NicId {
    type Err = NicIdError;

    fn from_str(text: &str) -> Result<Self, NicIdError> {
        let fits = (1..=64).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if fits { Ok(Self(text.to_owned())) } else { Err(NicIdError(text.to_owned())) }
    }
}

impl fmt::Display for NicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A 48-bit MAC address, written `52:54:00:00:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Whether the group bit is set: multicast, broadcast included.
    #[must_use]
    pub const fn is_group(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }
}

impl FromStr for MacAddr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let wrong = || AddrError::NotAnAddress(text.to_owned());
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part =
                parts.next().filter(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(part.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_none() { Ok(Self(mac)) } else { Err(wrong()) }
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

serde_as_text!(NicId, MacAddr);

/// A VLAN identifier, 1 to 4094 (IEEE 802.1Q).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct VlanId(u16);

impl VlanId {
    /// The identifier as a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for VlanId {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        if (1..=4094).contains(&number) {
            Ok(Self(number))
        } else {
            Err(format!("VLAN {number} is not 1 to 4094"))
        }
    }
}

impl From<VlanId> for u16 {
    fn from(vlan: VlanId) -> Self {
        vlan.0
    }
}

/// An address and the one MAC address that may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Binding {
    /// The address.
    pub address: Addr,
    /// Its holder.
    pub mac: MacAddr,
}

/// Which IPv6 link-local addresses are the NIC's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkLocal {
    /// The one its MAC address makes (RFC 4291 appendix A).
    Eui64,
    /// Any of `fe80::/64`.
    Any,
    /// These.
    Addresses(Vec<Addr>),
}

/// Which built-in allowances of `guard` are in force; all of them unless switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardSwitches {
    /// ARP for own addresses, and neighbours' ARP.
    pub arp: bool,
    /// Neighbour discovery for own addresses, and neighbours'.
    pub nd: bool,
    /// DHCP and `DHCPv6` as a client.
    pub dhcp: bool,
    /// Router solicitations out, router advertisements in.
    pub ra: bool,
    /// IGMP and MLD reports out, queries in.
    pub mld: bool,
}

impl GuardSwitches {
    /// Everything in force.
    pub const ALL: Self = Self { arp: true, nd: true, dhcp: true, ra: true, mld: true };
}

/// Everything one NIC may call itself. It comes from the control plane, never from first use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NicIdentity {
    /// Its name.
    pub id: NicId,
    /// Its MAC address.
    pub mac: MacAddr,
    /// Addresses it owns; a prefix where the guest routes.
    pub addresses: Vec<Cidr>,
    /// The VLAN whose tag its frames carry; untagged if absent.
    pub vlan: Option<VlanId>,
    /// Its link-local addresses.
    pub link_local: LinkLocal,
    /// Addresses it may share with other NICs (VRRP and the like), each with the MAC address used for it.
    pub shared: Vec<Binding>,
    /// The only routers whose advertisements count, if any are given.
    pub gateways: Vec<Binding>,
    /// The only DHCP servers, if any are given.
    pub dhcp_servers: Vec<Addr>,
    /// Largest IP datagram in bytes; the uplink's if absent.
    pub mtu: Option<u16>,
    /// Built-in allowances.
    pub guard: GuardSwitches,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nic_id_is_safe_in_a_path() {
        for text in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert!(text.parse::<NicId>().is_err(), "{text}");
        }
        assert_eq!("web-1.prod_2".parse::<NicId>().unwrap().as_str(), "web-1.prod_2");
    }

    #[test]
    fn a_mac_address_has_six_bytes_of_two_digits() {
        for text in ["", "52:54:0:0:0:1", "52:54:00:00:00", "52:54:00:00:00:01:02", "+2:54:00:00:00:01"] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
        assert_eq!("52:54:00:00:00:FE".parse::<MacAddr>().unwrap().to_string(), "52:54:00:00:00:fe");
    }
}
