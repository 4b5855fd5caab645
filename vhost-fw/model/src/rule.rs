//! Rules as one NIC gets them: first match decides, a set is accepted whole or refused whole.
//!
//! It may know how a rule is written. It must never know how one is looked up, nor why the policy made it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::addr::serde_as_text;
use crate::{Addr, Cidr, Direction, MacAddr, NicIdentity, PortRange};

/// The name of a rule, unique in its set: 1 to 128 printable characters without white space. Names that start
/// with `guard/` are the built-in rules'.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RuleId(Arc<str>);

/// A name that no rule or address set may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name: 1 to 128 printable ASCII characters without spaces")]
pub struct RuleIdError(String);

fn checked_name(text: &str) -> Result<Arc<str>, RuleIdError> {
    let fits = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(text.into()) } else { Err(RuleIdError(text.to_owned())) }
}

impl RuleId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RuleId {
    type Err = RuleIdError;

    fn from_str(text: &str) -> Result<Self, RuleIdError> {
        checked_name(text).map(Self)
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an address set: as a [`RuleId`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SetName(Arc<str>);

impl FromStr for SetName {
    type Err = RuleIdError;

    fn from_str(text: &str) -> Result<Self, RuleIdError> {
        checked_name(text).map(Self)
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

serde_as_text!(RuleId, SetName, IcmpMatch);

/// What a rule does with a frame it matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Drop it silently.
    Drop,
    /// Drop it and tell the sender: TCP RST, else ICMP administratively prohibited.
    Reject,
    /// Go on at the named rule, which stands further down.
    Pass(RuleId),
}

/// What happens to a frame no rule matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Default {
    /// Let it pass.
    Allow,
    /// Drop it silently.
    Drop,
    /// Drop it and tell the sender.
    Reject,
}

/// The default of each direction. Both are always written out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Defaults {
    /// For frames from the guest.
    pub out: Default,
    /// For frames to the guest.
    #[serde(rename = "in")]
    pub in_: Default,
}

/// Which IP protocols a rule means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProtocolMatch {
    /// None written: TCP, UDP and ICMP echo, never a tunnel.
    Usual,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP over IPv4, `ICMPv6` over IPv6.
    Icmp,
    /// Every protocol.
    Any,
    /// This protocol number.
    Number(u8),
}

/// Addresses at the other end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemoteMatch {
    /// A prefix or one address.
    Prefix(Cidr),
    /// The members of an address set.
    Set(SetName),
}

/// ICMP messages by nft's name (one name may stand for a type of each family), by number, or `type/code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IcmpMatch {
    /// The ICMP type it means over IPv4.
    pub v4: Option<u8>,
    /// The `ICMPv6` type it means over IPv6.
    pub v6: Option<u8>,
    /// The code; any if absent.
    pub code: Option<u8>,
}

/// nft's names with the types they stand for (nft(8), "ICMP type" and "`ICMPv6` type").
const ICMP_NAMES: &[(&str, Option<u8>, Option<u8>)] = &[
    ("echo-request", Some(8), Some(128)),
    ("echo-reply", Some(0), Some(129)),
    ("destination-unreachable", Some(3), Some(1)),
    ("packet-too-big", None, Some(2)),
    ("time-exceeded", Some(11), Some(3)),
    ("parameter-problem", Some(12), Some(4)),
    ("source-quench", Some(4), None),
    ("redirect", Some(5), None),
    ("router-advertisement", Some(9), None),
    ("router-solicitation", Some(10), None),
    ("timestamp-request", Some(13), None),
    ("timestamp-reply", Some(14), None),
    ("info-request", Some(15), None),
    ("info-reply", Some(16), None),
    ("address-mask-request", Some(17), None),
    ("address-mask-reply", Some(18), None),
    ("mld-listener-query", None, Some(130)),
    ("mld-listener-report", None, Some(131)),
    ("mld-listener-done", None, Some(132)),
    ("mld-listener-reduction", None, Some(132)),
    ("nd-router-solicit", None, Some(133)),
    ("nd-router-advert", None, Some(134)),
    ("nd-neighbor-solicit", None, Some(135)),
    ("nd-neighbor-advert", None, Some(136)),
    ("nd-redirect", None, Some(137)),
    ("router-renumbering", None, Some(138)),
    ("ind-neighbor-solicit", None, Some(141)),
    ("ind-neighbor-advert", None, Some(142)),
    ("mld2-listener-report", None, Some(143)),
];

impl IcmpMatch {
    /// Every name `from_str` knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ICMP_NAMES.iter().map(|(name, ..)| *name)
    }
}

impl FromStr for IcmpMatch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, v4, v6)) = ICMP_NAMES.iter().find(|(name, ..)| *name == text) {
            return Ok(Self { v4: *v4, v6: *v6, code: None });
        }
        let wrong = || format!("`{text}` is no ICMP type: a name as nft writes it, a number, or type/code");
        let number =
            |text: &str| text.parse::<u8>().ok().filter(|_| !text.starts_with('+')).ok_or_else(wrong);
        let (kind, code) = match text.split_once('/') {
            Some((kind, code)) => (number(kind)?, Some(number(code)?)),
            None => (number(text)?, None),
        };
        Ok(Self { v4: Some(kind), v6: Some(kind), code })
    }
}

impl fmt::Display for IcmpMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { v4, v6, code } = *self;
        if let Some(kind) = v4.filter(|_| v4 == v6) {
            return match code {
                Some(code) => write!(f, "{kind}/{code}"),
                None => kind.fmt(f),
            };
        }
        let named = ICMP_NAMES.iter().find(|(_, name4, name6)| (*name4, *name6) == (v4, v6));
        f.write_str(named.map_or("?", |(name, ..)| name))
    }
}

/// A protocol helper a rule asks for. Parsed from the start; none is built yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Helper {
    /// FTP (RFC 959) data conns.
    Ftp,
    /// TFTP (RFC 1350) transfers.
    Tftp,
}

/// What revoking a rule does to the conns it admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRevoke {
    /// Close them at once; TCP is told so at both ends.
    Kill,
    /// Let them end by themselves, for 300 s at most.
    Drain,
    /// Leave them alone.
    Keep,
}

/// Limits of one rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleLimits {
    /// Living conns it may have admitted at any time.
    pub conns: Option<u32>,
    /// Conns it may admit per second.
    pub new_per_s: Option<u32>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name.
    pub id: RuleId,
    /// Which first frames it judges.
    pub direction: Direction,
    /// What it does with them.
    pub action: Action,
    /// Protocols; see [`ProtocolMatch::Usual`] for none written.
    pub protocol: ProtocolMatch,
    /// The other end; anyone if empty in writing, never empty by accident: the parser refuses `remote: []`.
    pub remote: Vec<RemoteMatch>,
    /// Destination ports of the first frame; any if none are written.
    pub ports: Vec<PortRange>,
    /// ICMP messages; any if none are written.
    pub icmp: Vec<IcmpMatch>,
    /// Makes it an L2 rule for frames of this ethertype, which carry neither IP nor ARP.
    pub ethertype: Option<u16>,
    /// Log its verdicts.
    pub log: bool,
    /// Protocol helper.
    pub helper: Option<Helper>,
    /// Milliseconds from installation until it stops matching.
    pub expires_in_ms: Option<u64>,
    /// What revoking it does.
    pub on_revoke: OnRevoke,
    /// Its limits.
    pub limits: RuleLimits,
    /// Who may answer a broadcast or multicast request it allowed (UDP, to the port that asked).
    pub reply_from: Vec<RemoteMatch>,
}

/// One member of an address set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// A prefix or one address.
    pub prefix: Cidr,
    /// The one MAC address that may use it on this link; only beside a single address.
    pub mac: Option<MacAddr>,
}

/// A group of workloads as the NIC sees it: the addresses of its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AddressSet {
    /// Its members. Empty matches nobody.
    pub members: Vec<Member>,
}

/// How long what is remembered lives without a frame, in seconds. The defaults are [`Timers::DEFAULT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each field is the state of its name")]
pub struct Timers {
    pub tcp_syn_sent: u32,
    pub syn_received: u32,
    pub established: u32,
    pub fin_wait: u32,
    pub time_wait: u32,
    pub close: u32,
    pub udp: u32,
    pub udp_replied: u32,
    pub icmp: u32,
    pub fragment: u32,
}

impl Timers {
    /// `CONTRACT.md` section 1; established as RFC 5382 section 5 asks (2 h 4 min).
    pub const DEFAULT: Self = Self {
        tcp_syn_sent: 120,
        syn_received: 60,
        established: 7440,
        fin_wait: 120,
        time_wait: 120,
        close: 10,
        udp: 30,
        udp_replied: 120,
        icmp: 30,
        fragment: 60,
    };
}

/// A rate of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bits of frames per second.
    pub bits_per_s: Option<u64>,
    /// Frames per second.
    pub frames_per_s: Option<u64>,
}

/// The rates of both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimits {
    /// Frames from the guest.
    pub out: Rate,
    /// Frames to the guest.
    #[serde(rename = "in")]
    pub in_: Rate,
}

/// Limits of the NIC; an absent one is the program's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Living conns.
    pub conns: Option<u32>,
    /// Conns never answered or half open.
    pub half_open: Option<u32>,
    /// Bytes of held fragments.
    pub fragments: Option<u32>,
    /// Expected conns.
    pub expectations: Option<u32>,
    /// Rates; none if absent.
    pub rates: Option<RateLimits>,
    /// New conns per second; no limit if absent.
    pub new_conns_per_s: Option<u32>,
}

/// All rules of one NIC, one generation of them. There is no default: a set is always written out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleSet {
    /// Its number. Installs from the control plane must rise.
    pub generation: u64,
    /// Who the NIC is.
    pub nic: NicIdentity,
    /// What happens to a frame no rule matches.
    pub defaults: Defaults,
    /// The address sets its rules name.
    pub address_sets: BTreeMap<SetName, Arc<AddressSet>>,
    /// The rules, in order.
    pub rules: Vec<Rule>,
    /// Timers.
    pub timers: Timers,
    /// Limits.
    pub limits: Limits,
}

impl RuleSet {
    /// The MAC address the set binds to `addr`, where more than one place could say so: gateways, shared
    /// addresses and set members, in this order.
    pub fn bindings(&self) -> impl Iterator<Item = (Addr, MacAddr)> + '_ {
        let nic =
            self.nic.gateways.iter().chain(&self.nic.shared).map(|binding| (binding.address, binding.mac));
        let members = self.address_sets.values().flat_map(|set| &set.members);
        nic.chain(members.filter_map(|member| member.mac.map(|mac| (member.prefix.network(), mac))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn icmp_text_round_trips() {
        for text in ["echo-request", "destination-unreachable", "packet-too-big", "8", "3/4"] {
            let parsed: IcmpMatch = text.parse().unwrap();
            assert_eq!(parsed.to_string().parse::<IcmpMatch>().unwrap(), parsed, "{text}");
        }
        assert_eq!("echo-request".parse(), Ok(IcmpMatch { v4: Some(8), v6: Some(128), code: None }));
        for text in ["", "ping", "256", "3/", "/4", "3/4/5", "+8"] {
            assert!(text.parse::<IcmpMatch>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_printable_and_short() {
        for text in ["", "a b", "a\n", "é", &"x".repeat(129)] {
            assert!(text.parse::<RuleId>().is_err(), "{text}");
        }
        assert_eq!("guard/arp".parse::<RuleId>().unwrap().as_str(), "guard/arp");
    }
}
