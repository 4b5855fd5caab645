//! What rules match on and what they may ask for, as files write it: protocols, ports, ICMP messages, limits.
//!
//! Knows how each is written. Never knows a whole rule.

use fw_model::{Helper, IcmpMatch, OnRevoke, PortRange, ProtocolMatch, RuleLimits};

use crate::nic::each;
use crate::problems::Problems;
use crate::read::{self, Fields};
use crate::tree::Node;

const PROTOCOLS: &[(&str, ProtocolMatch)] = &[
    ("tcp", ProtocolMatch::Tcp),
    ("udp", ProtocolMatch::Udp),
    ("icmp", ProtocolMatch::Icmp),
    ("any", ProtocolMatch::Any),
];
/// The words of `helper`.
pub const HELPERS: &[(&str, Helper)] = &[("ftp", Helper::Ftp), ("tftp", Helper::Tftp)];
/// The words of `on_revoke`.
pub const REVOKES: &[(&str, OnRevoke)] =
    &[("kill", OnRevoke::Kill), ("drain", OnRevoke::Drain), ("keep", OnRevoke::Keep)];

/// Most living conns of a rule or a NIC.
pub const CONNS_MAX: u32 = 1 << 24;
/// The highest rate per second of anything that is counted.
pub const PER_SECOND_MAX: u32 = 1_000_000_000;
/// Smaller numbers are lengths, not ethertypes (IEEE 802.3 section 3.2.6).
const ETHERTYPE_MIN: u64 = 0x600;

/// A protocol by name or number.
pub fn protocol(node: &Node<'_>, problems: &mut Problems) -> Option<ProtocolMatch> {
    let number = read::text(node).and_then(read::digits).and_then(|number| u8::try_from(number).ok());
    if let Some(number) = number {
        return Some(ProtocolMatch::Number(number));
    }
    let found = read::text(node).and_then(|text| PROTOCOLS.iter().find(|(word, _)| *word == text));
    if found.is_none() {
        let known: Vec<_> = PROTOCOLS.iter().map(|(word, _)| *word).collect();
        let nearest = read::text(node).map(|text| read::suggestion(text, &known)).unwrap_or_default();
        problems.add(
            node.line,
            format!(
                "`protocol`: expected tcp, udp, icmp, any or a number from 0 to 255, found {node}{nearest}"
            ),
        );
    }
    found.map(|(_, protocol)| *protocol)
}

/// Ports and ranges of them; never none.
pub fn ports(node: &Node<'_>, problems: &mut Problems) -> Option<Vec<PortRange>> {
    let items = read::some_list(node, "ports", "[80, 8000-8010]", problems)?;
    each(items, |item| read::parsed(item, "ports", "a port or a range first-last", problems))
}

/// ICMP messages; never none.
pub fn icmp(node: &Node<'_>, problems: &mut Problems) -> Option<Vec<IcmpMatch>> {
    let items = read::some_list(node, "icmp", "[echo-request]", problems)?;
    each(items, |item| {
        let Some(text) = read::text(item) else {
            problems.add(item.line, format!("`icmp`: expected a name, a type or type/code, found {item}"));
            return None;
        };
        let known: Vec<_> = IcmpMatch::names().collect();
        let parsed: Result<IcmpMatch, String> = text.parse();
        parsed
            .map_err(|error| {
                problems.add(item.line, format!("`icmp`: {error}{}", read::suggestion(text, &known)))
            })
            .ok()
    })
}

/// An ethertype: decimal, or hexadecimal as `0x88cc`.
pub fn ethertype(node: &Node<'_>, problems: &mut Problems) -> Option<u16> {
    let number = read::text(node).and_then(|text| match text.strip_prefix("0x") {
        Some(hex) if hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => u64::from_str_radix(hex, 16).ok(),
        Some(_) => None,
        None => read::digits(text),
    });
    let found =
        number.filter(|number| *number >= ETHERTYPE_MIN).and_then(|number| u16::try_from(number).ok());
    if found.is_none() {
        problems
            .add(node.line, format!("`ethertype`: expected a number from 0x0600 to 0xffff, found {node}"));
    }
    found
}

/// No limit written.
pub const NO_LIMITS: RuleLimits = RuleLimits { conns: None, new_per_s: None };

/// The limits of one rule.
pub fn limits(node: &Node<'_>, problems: &mut Problems) -> Option<RuleLimits> {
    let fields = Fields::read(node, "a rule's limits", &["conns", "new_per_s"], problems)?;
    let mut bound = |key, max| fields.get(key).and_then(|node| read::number(node, key, 1, max, problems));
    Some(RuleLimits { conns: bound("conns", CONNS_MAX), new_per_s: bound("new_per_s", PER_SECOND_MAX) })
}
