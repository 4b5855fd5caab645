//! One rule, and what rules match on: remotes, ports, ICMP messages, protocols.
//!
//! Knows how each is written. Never knows the other rules.

use std::time::SystemTime;

use fw_model::{
    Action, Cidr, DefaultAction, Direction, OnRevoke, ProtocolMatch, RemoteMatch, Rule, RuleId, SetName,
};
use jiff::Timestamp;

use fw_document::matching::{HELPERS, NO_LIMITS, REVOKES, ethertype, icmp, limits, ports, protocol};
use fw_document::nic::each;
use fw_document::problems::Problems;
use fw_document::read::{self, Fields};
use fw_document::tree::{Node, Value};

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
/// Ten years: further away is never.
const EXPIRY_MAX_S: u64 = 10 * 366 * 86_400;
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
