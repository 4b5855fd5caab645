//! What can be wrong with a frame's bytes: one closed list, finer than the reasons that operators see.
//!
//! Knows which reason each fault is counted under. Never knows how a fault was found.

use fw_model::Reason;

/// What is wrong with the bytes. [`Malformed::reason`] says what it is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// Shorter than an Ethernet header.
    Runt,
    /// A header ends beyond [`crate::HEAD_LEN`].
    HeadersTooLong,
    /// The frame ends inside its VLAN tag.
    TagShort,
    /// VLAN 0 or 4095.
    TagReserved,
    /// A second tag, or a service tag (IEEE 802.1ad and its forerunners).
    TagTwice,
    /// A length where the ethertype stands: LLC and SNAP.
    NotEthernet2,

    ArpShort,
    /// Not between Ethernet and IPv4.
    ArpForm,
    ArpOperation,

    Ipv4Short,
    Ipv4Version,
    /// IHL below 5 or beyond the datagram.
    Ipv4HeaderLength,
    /// Total length beyond the frame or inside the header.
    Ipv4TotalLength,
    /// The flag that must be zero (RFC 791 section 3.1).
    Ipv4ReservedFlag,
    Ipv4Checksum,
    Ipv4Option,
    /// Time to live or hop limit 0.
    TtlZero,

    Ipv6Short,
    Ipv6Version,
    /// Payload length beyond the frame.
    Ipv6PayloadLength,
    /// An IPv4-mapped address on the wire (RFC 4291 section 2.5.5.2).
    MappedAddress,
    /// An extension header ends beyond the datagram.
    ExtensionShort,
    /// An extension header that is not on the list, too often, or out of its place.
    ExtensionRefused,
    /// An option in an extension header that is neither padding nor a router alert where it belongs.
    ExtensionOption,

    /// An IPv6 fragment header ends beyond the datagram, or has reserved bits set.
    FragmentHeader,
    FragmentTwice,
    /// "Don't fragment" on a fragment.
    FragmentFlags,
    /// No data, data beyond a datagram's greatest length, or a length that leaves a gap.
    FragmentLength,

    TcpShort,
    TcpPort,
    /// Data offset below 5 or beyond the datagram.
    TcpDataOffset,
    TcpOption,
    TcpFlags,
    /// A SYN or RST that needs more than one ordinary frame.
    TcpControlPayload,

    UdpShort,
    /// Length below 8 or not the datagram's.
    UdpLength,
    UdpPort,
    /// No checksum over IPv6 (RFC 8200 section 8.1).
    UdpNoChecksum,

    DhcpShort,
    /// A DHCP port with another one on the other side, or a message that does not go to this port.
    DhcpPorts,
    /// Not Ethernet, not DHCP, or options that overrun.
    DhcpForm,

    IcmpShort,
    /// ICMP over IPv6 or `ICMPv6` over IPv4.
    IcmpFamily,
    IcmpChecksum,
    /// Echo with a code.
    IcmpCode,
    /// A next-hop MTU below the least the family allows.
    IcmpMtu,
    /// A quote that is cut short, no first fragment, to a group, or of a message no error may answer.
    IcmpQuote,
    /// RFC 4884 length that is not the quote's.
    IcmpQuoteLength,
    /// A quote from another source than the error's destination.
    IcmpQuoteSource,

    NdHopLimit,
    NdCode,
    NdShort,
    /// An option of length 0, one that overruns, or a link-layer address that is not Ethernet's.
    NdOption,
    /// Two link-layer addresses that differ.
    NdTwoAddresses,
    /// A source, destination or target that the message may not have (RFC 4861 sections 6.1, 7.1).
    NdAddress,
    /// Behind a fragment header (RFC 6980 section 5).
    NdFragment,

    GroupShort,
    GroupKind,
    GroupHopLimit,
    /// No router alert.
    GroupAlert,
    GroupAddress,
    GroupChecksum,
}

impl Malformed {
    /// The reason it is counted as.
    pub(crate) const fn reason(self) -> Reason {
        match self {
            Self::Runt => Reason::Runt,
            Self::HeadersTooLong => Reason::HeadersTooLong,
            Self::TagShort | Self::TagReserved | Self::TagTwice => Reason::VlanRefused,
            Self::NotEthernet2 => Reason::EthertypeRefused,
            Self::ArpShort | Self::ArpForm | Self::ArpOperation => Reason::ArpMalformed,
            Self::Ipv4Short
            | Self::Ipv4Version
            | Self::Ipv4HeaderLength
            | Self::Ipv4TotalLength
            | Self::Ipv4ReservedFlag => Reason::Ipv4Malformed,
            Self::Ipv4Checksum => Reason::Ipv4Checksum,
            Self::Ipv4Option => Reason::Ipv4Option,
            Self::TtlZero => Reason::TtlZero,
            Self::Ipv6Short | Self::Ipv6Version | Self::Ipv6PayloadLength => Reason::Ipv6Malformed,
            Self::MappedAddress => Reason::Martian,
            Self::ExtensionShort | Self::ExtensionRefused | Self::ExtensionOption => Reason::ExtensionHeader,
            Self::FragmentHeader | Self::FragmentTwice | Self::FragmentFlags | Self::FragmentLength => {
                Reason::FragmentMalformed
            }
            Self::TcpShort
            | Self::TcpPort
            | Self::TcpDataOffset
            | Self::TcpOption
            | Self::TcpControlPayload => Reason::TcpMalformed,
            Self::TcpFlags => Reason::TcpFlags,
            Self::UdpShort | Self::UdpLength | Self::UdpPort => Reason::UdpMalformed,
            Self::UdpNoChecksum | Self::IcmpChecksum | Self::GroupChecksum => Reason::Checksum,
            Self::DhcpShort | Self::DhcpPorts | Self::DhcpForm => Reason::DhcpRefused,
            Self::IcmpShort
            | Self::IcmpFamily
            | Self::IcmpCode
            | Self::IcmpMtu
            | Self::IcmpQuote
            | Self::IcmpQuoteLength => Reason::IcmpMalformed,
            Self::IcmpQuoteSource => Reason::Unrelated,
            Self::NdHopLimit
            | Self::NdCode
            | Self::NdShort
            | Self::NdOption
            | Self::NdTwoAddresses
            | Self::NdAddress
            | Self::NdFragment => Reason::NdMalformed,
            Self::GroupShort
            | Self::GroupKind
            | Self::GroupHopLimit
            | Self::GroupAlert
            | Self::GroupAddress => Reason::GroupMessageRefused,
        }
    }
}

impl From<Malformed> for Reason {
    fn from(malformed: Malformed) -> Self {
        malformed.reason()
    }
}
