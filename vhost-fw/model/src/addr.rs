//! Addresses, prefixes and port ranges.
//!
//! One type holds both families, so that nothing after the parser asks which one it has. It may know how an
//! address is written. It must never know who owns one.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP address of either family, held as its 128 bits in network order; IPv4 in the mapped form
/// `::ffff:a.b.c.d` (RFC 4291 section 2.5.5.2). Mapped addresses never travel as IPv6 on a wire we accept, so
/// the two families cannot meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Addr(u128);

const V4_PREFIX: u128 = 0xffff_0000_0000;
const V4_MASK: u128 = !0xffff_ffff;

impl Addr {
    /// The bits in network order, IPv4 in mapped form.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The address with these bits (network order, IPv4 in mapped form).
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// An IPv4 address from its four bytes.
    #[must_use]
    pub fn v4(octets: [u8; 4]) -> Self {
        Self(V4_PREFIX | u128::from(u32::from_be_bytes(octets)))
    }

    /// An IPv6 address from its sixteen bytes.
    #[must_use]
    pub const fn v6(octets: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(octets))
    }

    /// Whether this is an IPv4 address.
    #[must_use]
    pub const fn is_v4(self) -> bool {
        self.0 & V4_MASK == V4_PREFIX
    }

    /// The standard library's form.
    #[must_use]
    pub fn ip(self) -> IpAddr {
        let v6 = Ipv6Addr::from(self.0);
        if self.is_v4() { v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4) } else { IpAddr::V6(v6) }
    }

    /// Whether this names a group: multicast of either family (RFC 5771, RFC 4291 section 2.7) or IPv4's limited
    /// broadcast. A subnet's broadcast address cannot be told from here.
    #[must_use]
    pub const fn is_group(self) -> bool {
        if self.is_v4() {
            let low = self.0 & 0xffff_ffff;
            low >> 28 == 0xe || low == 0xffff_ffff
        } else {
            self.0 >> 120 == 0xff
        }
    }

    /// The link-local address a MAC address makes: `fe80::/64` and the modified EUI-64 identifier
    /// (RFC 4291 appendix A).
    #[must_use]
    pub fn link_local_eui64(mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        Self::v6([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::v4(v4.octets()),
            IpAddr::V6(v6) => Self::v6(v6.octets()),
        }
    }
}

impl From<Ipv4Addr> for Addr {
    fn from(v4: Ipv4Addr) -> Self {
        Self::v4(v4.octets())
    }
}

impl From<Ipv6Addr> for Addr {
    fn from(v6: Ipv6Addr) -> Self {
        Self::v6(v6.octets())
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is wrong with a written address, prefix or port range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddrError {
    /// Not an address of either family.
    #[error("`{0}` is not an IPv4 or IPv6 address")]
    NotAnAddress(String),
    /// The prefix length is not a number or too large for the family.
    #[error("`{0}`: the prefix length must be 0 to {1}")]
    PrefixLength(String, u8),
    /// Bits beyond the prefix length are set.
    #[error("`{0}` has host bits set; the network is {1}")]
    HostBits(String, String),
    /// Not a port, or a range that runs backwards.
    #[error("`{0}` is not a port (0 to 65535) or a range first-last")]
    Ports(String),
}

impl FromStr for Addr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let ip: IpAddr = text.parse().map_err(|_| AddrError::NotAnAddress(text.to_owned()))?;
        let addr = Self::from(ip);
        if ip.is_ipv6() && addr.is_v4() {
            return Err(AddrError::NotAnAddress(text.to_owned()));
        }
        Ok(addr)
    }
}

/// A prefix of either family. Its length is counted in the 128-bit form, so an IPv4 `/24` is 120 inside and 24
/// in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    network: Addr,
    length: u8,
}

impl Cidr {
    /// The prefix of `length` bits (0 to 128, counted in the 128-bit form) that holds `addr`.
    #[must_use]
    pub fn new(addr: Addr, length: u8) -> Self {
        let length = length.min(128);
        Self { network: Addr(addr.0 & mask(length)), length }
    }

    /// The prefix that holds this one address.
    #[must_use]
    pub const fn host(addr: Addr) -> Self {
        Self { network: addr, length: 128 }
    }

    /// The lowest address of the prefix.
    #[must_use]
    pub const fn network(self) -> Addr {
        self.network
    }

    /// Its length in bits of the 128-bit form.
    #[must_use]
    pub const fn length(self) -> u8 {
        self.length
    }

    /// Whether the prefix is one address.
    #[must_use]
    pub const fn is_host(self) -> bool {
        self.length == 128
    }

    /// Whether `addr` lies in the prefix.
    #[must_use]
    pub fn contains(self, addr: Addr) -> bool {
        addr.0 & mask(self.length) == self.network.0
            && (self.length >= 96 || self.network.is_v4() == addr.is_v4())
    }
}

fn mask(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - u32::from(length.min(128))) }
}

impl FromStr for Cidr {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let Some((addr, length)) = text.split_once('/') else { return text.parse().map(Self::host) };
        let addr: Addr = addr.parse()?;
        let bits = if addr.is_v4() { 32 } else { 128 };
        let written: u8 = length
            .parse()
            .ok()
            .filter(|length| *length <= bits && (text.len() == addr_len(text) + 1 + length_len(*length)))
            .ok_or_else(|| AddrError::PrefixLength(text.to_owned(), bits))?;
        let cidr = Self::new(addr, written + (128 - bits));
        if cidr.network == addr {
            Ok(cidr)
        } else {
            Err(AddrError::HostBits(text.to_owned(), cidr.to_string()))
        }
    }
}

// `/024` and `/+24` parse as numbers but are not how a prefix length is written.
fn addr_len(text: &str) -> usize {
    text.find('/').unwrap_or(text.len())
}

fn length_len(length: u8) -> usize {
    match length {
        0..=9 => 1,
        10..=99 => 2,
        100.. => 3,
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() {
            return self.network.fmt(f);
        }
        let shown = if self.network.is_v4() { self.length.saturating_sub(96) } else { self.length };
        write!(f, "{}/{shown}", self.network)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An inclusive range of ports, written `80` or `8000-8010`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range from `first` to `last`, both included; `None` if it runs backwards.
    #[must_use]
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The lowest port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    #[must_use]
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` lies in the range.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl FromStr for PortRange {
    type Err = AddrError;

    fn from_str(text: &str) -> Result<Self, AddrError> {
        let wrong = || AddrError::Ports(text.to_owned());
        let port = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+')).ok_or_else(wrong);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(port(first)?, port(last)?).ok_or_else(wrong)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Serde speaks the one text form of each of these types.
macro_rules! serde_as_text {
    ($($type:ty),+) => {$(
        impl TryFrom<String> for $type {
            type Error = <$type as FromStr>::Err;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> Self {
                value.to_string()
            }
        }
    )+};
}

pub(crate) use serde_as_text;

serde_as_text!(Addr, Cidr, PortRange);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_do_not_meet() {
        let any4: Cidr = "0.0.0.0/0".parse().unwrap();
        let any6: Cidr = "::/0".parse().unwrap();
        let v4: Addr = "10.0.0.1".parse().unwrap();
        let v6: Addr = "2001:db8::1".parse().unwrap();
        assert!(any4.contains(v4) && !any4.contains(v6));
        assert!(any6.contains(v6) && !any6.contains(v4));
        assert!("::ffff:10.0.0.1".parse::<Addr>().is_err());
    }

    #[test]
    fn text_forms_round_trip() {
        for text in ["10.0.0.0/24", "10.0.0.1", "2001:db8::/32", "::/0", "0.0.0.0/0", "2001:db8::1"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        for text in ["80", "8000-8010"] {
            assert_eq!(text.parse::<PortRange>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn wrong_text_says_what_is_wrong() {
        assert!(
            matches!("10.0.0.1/24".parse::<Cidr>(), Err(AddrError::HostBits(_, network)) if network == "10.0.0.0/24")
        );
        for text in ["10.0.0.0/33", "10.0.0.0/+24", "10.0.0.0/024", "10.0.0.0/", "::/129"] {
            assert!(matches!(text.parse::<Cidr>(), Err(AddrError::PrefixLength(..))), "{text}");
        }
        for text in ["", "-", "10-", "9-8", "65536", "+80"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
