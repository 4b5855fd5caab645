//! The small world of scripts: one guest, a neighbour on its link, peers behind a router; and rules for the guest.
//!
//! Knows addresses and how rules files begin. Never knows what a test wants of them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::End;

/// The guest's MAC address.
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
/// The neighbour's.
pub const NEIGHBOUR_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
/// The router's.
pub const ROUTER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 0xfe];
/// The guest's own addresses, as rules write them.
pub const GUEST_ADDRESSES: &str = r#"10.0.0.10, "2001:db8:0:1::10""#;

/// The guest's IPv4 address.
pub const GUEST_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
/// The guest's IPv6 address.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x10);
/// A neighbour's IPv4 address.
pub const NEIGHBOUR_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 20);
/// A neighbour's IPv6 address.
pub const NEIGHBOUR_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 0x20);

/// The guest, 10.0.0.10.
#[must_use]
pub const fn guest(port: u16) -> End {
    End { mac: GUEST_MAC, ip: IpAddr::V4(GUEST_V4), port }
}

/// The guest, 2001:db8:0:1::10.
#[must_use]
pub const fn guest6(port: u16) -> End {
    End { mac: GUEST_MAC, ip: IpAddr::V6(GUEST_V6), port }
}

/// A peer behind the router, 198.51.100.7.
#[must_use]
pub const fn peer(port: u16) -> End {
    End { mac: ROUTER_MAC, ip: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)), port }
}

/// A peer behind the router, 2001:db8:ffff::7.
#[must_use]
pub const fn peer6(port: u16) -> End {
    End { mac: ROUTER_MAC, ip: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 7)), port }
}

/// A neighbour on the link, 10.0.0.20.
#[must_use]
pub const fn neighbour(port: u16) -> End {
    End { mac: NEIGHBOUR_MAC, ip: IpAddr::V4(NEIGHBOUR_V4), port }
}

/// A neighbour on the link, 2001:db8:0:1::20.
#[must_use]
pub const fn neighbour6(port: u16) -> End {
    End { mac: NEIGHBOUR_MAC, ip: IpAddr::V6(NEIGHBOUR_V6), port }
}

/// A group on the link and the MAC address it is sent to.
#[must_use]
pub const fn group(a: [u8; 4], port: u16) -> End {
    let [o, p, q, r] = a;
    let mac = if o == 255 { [0xff; 6] } else { [1, 0, 0x5e, p & 0x7f, q, r] };
    End { mac, ip: IpAddr::V4(Ipv4Addr::new(o, p, q, r)), port }
}

/// Rules for the guest: both defaults (`out/in`), and each rule as a YAML mapping.
#[must_use]
pub fn rules(defaults: &str, rules: &[&str]) -> String {
    rules_for("", "", defaults, rules)
}

/// As [`rules`], with more about the NIC (`vlan: 30`) and more sections (`limits: {…}`).
#[must_use]
pub fn rules_for(nic: &str, sections: &str, defaults: &str, rules: &[&str]) -> String {
    let (out, in_) = defaults.split_once('/').unwrap_or((defaults, defaults));
    let comma = if nic.is_empty() { "" } else { ", " };
    // A test that writes its own addresses does so in `nic`.
    let addresses =
        if nic.contains("addresses:") { String::new() } else { format!(", addresses: [{GUEST_ADDRESSES}]") };
    let mut text = format!(
        "nic: {{id: web-1, mac: \"52:54:00:00:00:01\"{addresses}{comma}{nic}}}\n\
         defaults: {{out: {out}, in: {in_}}}\n{sections}\n"
    );
    if !rules.is_empty() {
        text.push_str("rules:\n");
    }
    for rule in rules {
        let _ = writeln!(text, "  - {{{rule}}}");
    }
    text
}
