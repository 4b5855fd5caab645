//! One rule, and what rules match on: remotes, ports, ICMP messages, protocols.
//!
//! Knows how each is written. Never knows the other rules.

use std::time::SystemTime;

use fw_model::{
    Action, Cidr, DefaultAction, Direction, Helper, IcmpMatch, OnRevoke, PortRange, ProtocolMatch,
    RemoteMatch, Rule, RuleId, RuleLimits, SetName,
};
use jiff::Timestamp;

use super::bounds::{CONNS_MAX, PER_SECOND_MAX};
use super::nic::each;
use crate::document::problems::Problems;
use crate::document::read::{self, Fields};
use crate::document::tree::{Node, Value};

const KEYS: &[&str] = &[
    "id",
    "direction",
    "action",
    "continue-at",
    "protocol",
    "remote",
    "ports",
    "icmp",
    "ethertype",
    "log",
    "helper",
    "expires_at",
    "expires_in_s",
    "on_revoke",
    "limits",
    "reply-from",
];

/// What an action is written as; `pass` becomes whole with `continue-at`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ActionWord {
    Final(DefaultAction),
    Pass,
}

const ACTIONS: &[(&str, ActionWord)] = &[
    ("allow", ActionWord::Final(DefaultAction::Allow)),
    ("drop", ActionWord::Final(DefaultAction::Drop)),
    ("reject", ActionWord::Final(DefaultAction::Reject)),
    ("pass", ActionWord::Pass),
];
pub(crate) const DEFAULTS: &[(&str, DefaultAction)] =
    &[("allow", DefaultAction::Allow), ("drop", DefaultAction::Drop), ("reject", DefaultAction::Reject)];
const DIRECTIONS: &[(&str, Direction)] = &[("out", Direction::Out), ("in", Direction::In)];
const PROTOCOLS: &[(&str, ProtocolMatch)] = &[
    ("tcp", ProtocolMatch::Tcp),
    ("udp", ProtocolMatch::Udp),
    ("icmp", ProtocolMatch::Icmp),
    ("any", ProtocolMatch::Any),
];
const HELPERS: &[(&str, Helper)] = &[("ftp", Helper::Ftp), ("tftp", Helper::Tftp)];
const REVOKES: &[(&str, OnRevoke)] =
    &[("kill", OnRevoke::Kill), ("drain", OnRevoke::Drain), ("keep", OnRevoke::Keep)];

/// Ten years: further away is never.
const EXPIRY_MAX_S: u64 = 10 * 366 * 86_400;
/// Smaller numbers are lengths, not ethertypes (IEEE 802.3 section 3.2.6).
const ETHERTYPE_MIN: u64 = 0x600;

pub(crate) fn rule(node: &Node<'_>, now: SystemTime, problems: &mut Problems) -> Option<Rule> {
    let fields = Fields::read(node, "a rule", KEYS, problems)?;
    let id = fields.need("id", problems).and_then(|node| read::parsed(node, "id", "a rule's name", problems));
    let direction = fields
        .need("direction", problems)
        .and_then(|node| read::word(node, "direction", DIRECTIONS, problems));
    let action = action(&fields, problems);
    let protocol = fields.get("protocol").map_or(Some(ProtocolMatch::Usual), |node| protocol(node, problems));
    let remote = optional(&fields, "remote", |node| remotes(node, "remote", problems));
    let ports = optional(&fields, "ports", |node| ports(node, problems));
    let icmp = optional(&fields, "icmp", |node| icmp(node, problems));
    let ethertype = fields.get("ethertype").map(|node| ethertype(node, problems));
    let log = fields.get("log").map_or(Some(false), |node| read::boolean(node, "log", problems));
    let helper = fields.get("helper").map(|node| read::word(node, "helper", HELPERS, problems));
    let expires = expiry(&fields, now, problems);
    let on_revoke = fields
        .get("on_revoke")
        .map_or(Some(OnRevoke::Kill), |node| read::word(node, "on_revoke", REVOKES, problems));
    let limits = fields.get("limits").map_or(Some(NO_LIMITS), |node| limits(node, problems));
    let reply_from = optional(&fields, "reply-from", |node| remotes(node, "reply-from", problems));
    Some(Rule {
        id: id?,
        direction: direction?,
        action: action?,
        protocol: protocol?,
        remote: remote?,
        ports: ports?,
        icmp: icmp?,
        ethertype: ethertype.flatten(),
        log: log?,
        helper: helper.flatten(),
        expires_in_ms: expires,
        on_revoke: on_revoke?,
        limits: limits?,
        reply_from: reply_from?,
    })
}

/// The list at `key`; an empty one if it is not written.
fn optional<'n, 't, T>(
    fields: &Fields<'n, 't>,
    key: &str,
    read: impl FnOnce(&'n Node<'t>) -> Option<Vec<T>>,
) -> Option<Vec<T>> {
    fields.get(key).map_or_else(|| Some(Vec::new()), read)
}

fn action(fields: &Fields<'_, '_>, problems: &mut Problems) -> Option<Action> {
    let node = fields.need("action", problems)?;
    let word = read::word(node, "action", ACTIONS, problems)?;
    let target = fields.get("continue-at");
    match (word, target) {
        (ActionWord::Pass, Some(target)) => {
            read::parsed::<RuleId>(target, "continue-at", "a rule's id", problems).map(Action::Pass)
        }
        (ActionWord::Pass, None) => {
            problems.add(node.line, "`action`: pass needs `continue-at`, the id of a rule further down");
            None
        }
        (ActionWord::Final(_), Some(target)) => {
            problems.add(target.line, "`continue-at` belongs to `action: pass`; leave it out");
            None
        }
        (ActionWord::Final(DefaultAction::Allow), None) => Some(Action::Allow),
        (ActionWord::Final(DefaultAction::Drop), None) => Some(Action::Drop),
        (ActionWord::Final(DefaultAction::Reject), None) => Some(Action::Reject),
    }
}

fn protocol(node: &Node<'_>, problems: &mut Problems) -> Option<ProtocolMatch> {
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

/// `{set: name}`, or a prefix.
fn remotes(node: &Node<'_>, key: &str, problems: &mut Problems) -> Option<Vec<RemoteMatch>> {
    let items = read::some_list(node, key, "[{set: name}, 10.0.0.0/24]", problems)?;
    each(items, |item| {
        if let Value::Map(_) = item.value {
            let fields = Fields::read(item, "a set reference", &["set"], problems)?;
            let set = fields.need("set", problems)?;
            return read::parsed::<SetName>(set, "set", "an address set's name", problems)
                .map(RemoteMatch::Set);
        }
        let expected = "an address, a prefix or {set: name}";
        read::parsed::<Cidr>(item, key, expected, problems).map(RemoteMatch::Prefix)
    })
}

fn ports(node: &Node<'_>, problems: &mut Problems) -> Option<Vec<PortRange>> {
    let items = read::some_list(node, "ports", "[80, 8000-8010]", problems)?;
    each(items, |item| read::parsed(item, "ports", "a port or a range first-last", problems))
}

fn icmp(node: &Node<'_>, problems: &mut Problems) -> Option<Vec<IcmpMatch>> {
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

/// Decimal, or hexadecimal as `0x88cc`.
fn ethertype(node: &Node<'_>, problems: &mut Problems) -> Option<u16> {
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

const NO_LIMITS: RuleLimits = RuleLimits { conns: None, new_per_s: None };

fn limits(node: &Node<'_>, problems: &mut Problems) -> Option<RuleLimits> {
    let fields = Fields::read(node, "a rule's limits", &["conns", "new_per_s"], problems)?;
    let mut bound = |key, max| fields.get(key).and_then(|node| read::number(node, key, 1, max, problems));
    Some(RuleLimits { conns: bound("conns", CONNS_MAX), new_per_s: bound("new_per_s", PER_SECOND_MAX) })
}

/// What remains of the rule's life in milliseconds, as of `now`.
fn expiry(fields: &Fields<'_, '_>, now: SystemTime, problems: &mut Problems) -> Option<u64> {
    match (fields.get("expires_at"), fields.get("expires_in_s")) {
        (Some(_), Some(node)) => {
            problems.add(node.line, "`expires_in_s` stands beside `expires_at`; write one of them");
            None
        }
        (Some(node), None) => {
            let expected = "an RFC 3339 time such as 2027-01-31T18:00:00Z";
            let found = read::text(node).and_then(|text| text.parse::<Timestamp>().ok());
            let Some(at) = found else {
                problems.add(node.line, format!("`expires_at`: expected {expected}, found {node}"));
                return None;
            };
            let left = SystemTime::from(at).duration_since(now).unwrap_or_default();
            Some(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
        }
        (None, Some(node)) => {
            let seconds = read::number(node, "expires_in_s", 0, EXPIRY_MAX_S, problems);
            seconds.map(|seconds| seconds.saturating_mul(1000))
        }
        (None, None) => None,
    }
}
