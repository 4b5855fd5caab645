//! Why a frame met its verdict: one closed list.
//!
//! A reason's name is the counter's name, the log word, what tests assert and what the console shows. It may
//! know nothing but its own words. A new reason needs a test that provokes it (`tests/house_rules.rs`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a frame met its verdict.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the list.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The reason's one name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub fn meaning(self) -> String {
                match self {
                    $(Self::$variant => [$($doc),+].concat().trim().to_owned(),)+
                }
            }
        }
    };
}

reasons! {
    // Passed.
    /// The first frame of a conn, allowed by a rule.
    New = "new",
    /// It belongs to a living conn.
    Established = "established",
    /// An ICMP error about a living conn.
    Related = "related",
    /// A rule allows it, and such frames make no conn (broadcast, multicast, L2).
    Stateless = "stateless",
    /// Built-in: ARP, ND, DHCP, router and group messages the NIC needs.
    Guard = "guard",

    // Held.
    /// A fragment, held until its datagram is whole.
    FragmentHeld = "fragment-held",

    // The frame as a whole.
    /// Shorter than an Ethernet header.
    Runt = "runt",
    /// Longer than the MTU allows and not to be segmented.
    Oversize = "oversize",
    /// Its headers do not fit the private head.
    HeadersTooLong = "headers-too-long",
    /// The virtio-net header contradicts the frame.
    BadVnetHeader = "bad-vnet-header",
    /// It asks for a segmentation that cannot be, or was not negotiated.
    BadGso = "bad-gso",

    // Layer 2.
    /// A VLAN tag that is not the NIC's own, a missing one, a second one or VLAN 0.
    VlanRefused = "vlan-refused",
    /// Neither IPv4, IPv6 nor ARP, and no rule names its ethertype; LLC and SNAP always.
    EthertypeRefused = "ethertype-refused",
    /// The source MAC address is not the guest's own.
    SourceMacSpoofed = "source-mac-spoofed",
    /// From the network with the guest's own MAC address, or a group address, as its source.
    SourceMacImpossible = "source-mac-impossible",
    /// Unicast to a MAC address that is not the guest's.
    NotForUs = "not-for-us",
    /// To a reserved group address (IEEE 802.1D table 7-10: 01:80:c2:00:00:0x).
    ReservedGroup = "reserved-group",

    // ARP, ND, DHCP and their kin.
    /// ARP that is cut short, not Ethernet and IPv4, or neither request nor reply.
    ArpMalformed = "arp-malformed",
    /// ARP that claims an address or a MAC address that is not the sender's.
    ArpSpoofed = "arp-spoofed",
    /// Neighbour discovery that breaks RFC 4861: hop limit, code, option length, fragment (RFC 6980).
    NdMalformed = "nd-malformed",
    /// Neighbour discovery that claims an address or a MAC address that is not the sender's.
    NdSpoofed = "nd-spoofed",
    /// A router advertisement from the guest, or from a router that is not one of the gateways.
    RouterRefused = "router-refused",
    /// An ICMP redirect.
    Redirect = "redirect",
    /// A DHCP server's message from the guest, or a reply that is not for it or not from its servers.
    DhcpRefused = "dhcp-refused",
    /// A group membership message that breaks RFC 3810 or RFC 3376, or goes the wrong way.
    GroupMessageRefused = "group-message-refused",
    /// RARP with another MAC address than the guest's own.
    RarpSpoofed = "rarp-spoofed",

    // Addresses.
    /// A source address the guest does not own.
    SourceAddressSpoofed = "source-address-spoofed",
    /// An address that cannot stand where it stands: loopback, unspecified, mapped, group as source, own as source.
    Martian = "martian",
    /// To an address the guest does not own.
    AddressNotOurs = "address-not-ours",
    /// An address whose MAC address is known, with another.
    PeerSpoofed = "peer-spoofed",

    // Layer 3 and 4 headers.
    /// An IPv4 header whose lengths or version do not hold together.
    Ipv4Malformed = "ipv4-malformed",
    /// An IPv4 header with a wrong checksum.
    Ipv4Checksum = "ipv4-checksum",
    /// An IPv4 option other than padding, or router alert where it belongs.
    Ipv4Option = "ipv4-option",
    /// An IPv6 header whose lengths or version do not hold together.
    Ipv6Malformed = "ipv6-malformed",
    /// An IPv6 extension header or option that is not on the allow-list.
    ExtensionHeader = "extension-header",
    /// Time to live or hop limit 0.
    TtlZero = "ttl-zero",
    /// A TCP header whose lengths or options do not hold together, or port 0.
    TcpMalformed = "tcp-malformed",
    /// TCP flags no stack sends.
    TcpFlags = "tcp-flags",
    /// A UDP header whose length does not hold together, or port 0.
    UdpMalformed = "udp-malformed",
    /// An ICMP message that is cut short or of the other family.
    IcmpMalformed = "icmp-malformed",
    /// A wrong TCP, UDP or ICMP checksum, or a missing one where IPv6 demands it.
    Checksum = "checksum",

    // Fragments.
    /// A fragment no stack sends: flags, length, offset or a second fragment header.
    FragmentMalformed = "fragment-malformed",
    /// Fragments that overlap: the whole datagram is dropped (RFC 5722).
    FragmentOverlap = "fragment-overlap",
    /// No room for another fragment, or too many of one datagram.
    FragmentLimit = "fragment-limit",
    /// Its datagram did not become whole in time.
    FragmentTimeout = "fragment-timeout",

    // Conns.
    /// It needs a conn and there is none: mid-stream TCP, an unasked reply.
    NoConn = "no-conn",
    /// A TCP segment that its conn's state does not allow.
    TcpState = "tcp-state",
    /// A TCP segment outside the window, or that acknowledges what was never sent.
    TcpWindow = "tcp-window",
    /// An ICMP error about no living conn, or about a segment outside its window.
    Unrelated = "unrelated",
    /// The table is full and nothing may be evicted.
    TableFull = "table-full",
    /// The admitting rule has all the conns it may have.
    RuleConns = "rule-conns",
    /// New conns come faster than the rule or the NIC allows.
    NewConnRate = "new-conn-rate",
    /// Frames or bits come faster than the NIC allows.
    RateLimit = "rate-limit",
    /// Its conn was closed because the rules no longer allow it.
    Revoked = "revoked",

    // Rules.
    /// No rules have been installed yet.
    NoRules = "no-rules",
    /// A rule drops it.
    RuleDrop = "rule-drop",
    /// A rule rejects it.
    RuleReject = "rule-reject",
    /// No rule matches, and the default drops.
    DefaultDrop = "default-drop",
    /// No rule matches, and the default rejects.
    DefaultReject = "default-reject",

    // The device.
    /// A descriptor chain that cannot be read: outside memory, wrong way, a loop, too long.
    BadDescriptor = "bad-descriptor",
    /// The guest's buffers are too small for the frame.
    RxBufferTooSmall = "rx-buffer-too-small",
    /// The uplink had no room.
    UplinkFull = "uplink-full",
    /// The uplink refused the frame.
    UplinkRefused = "uplink-refused",
    /// The NIC is frozen.
    Frozen = "frozen",

    // Handover.
    /// The conn table that was handed over to the NIC is refused, and the NIC is closed.
    HandoverRefused = "handover-refused",
    /// A saved conn that no living one could be: its ports, state or windows do not hold together.
    RecordImpossible = "record-impossible",
    /// A saved conn whose flow the table already has.
    RecordTwice = "record-twice",
}

impl Reason {
    /// Whether frames with this reason were forwarded.
    #[must_use]
    pub const fn is_pass(self) -> bool {
        (self as u8) <= (Self::Guard as u8)
    }

    /// Its place in [`Reason::ALL`], for arrays of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Reason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.name() == text)
            .ok_or_else(|| format!("`{text}` is no reason"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indices_are_places() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place);
            assert_eq!(reason.name().parse(), Ok(*reason));
            assert!(reason.meaning().ends_with('.'), "{reason}");
        }
    }

    #[test]
    fn only_the_first_five_pass() {
        let passing: Vec<_> =
            Reason::ALL.iter().filter(|reason| reason.is_pass()).map(|r| r.name()).collect();
        assert_eq!(passing, ["new", "established", "related", "stateless", "guard"]);
    }
}
