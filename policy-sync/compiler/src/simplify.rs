//! A NIC's list without what can never decide, and with its forward jumps.
//!
//! Knows rules of one NIC. Never knows groups. What it leaves out changes no verdict: a property test holds it against the
//! whole list.

use std::collections::BTreeMap;

use fw_model::{Action, Direction, IcmpMatch, ProtocolMatch, RemoteMatch, Rule};

use crate::expand::{Expanded, covers as covers_prefix};
use crate::policy::{Tier, Verb};
use crate::services::plain;

/// Most earlier rules a rule is compared with. More would cost more than a shorter list saves.
const COMPARED_MAX: usize = 64;

/// Leaves out rules of which an earlier one takes everything.
pub(crate) fn without_shadowed(list: Vec<Expanded>) -> Vec<Expanded> {
    let mut kept: Vec<Expanded> = Vec::with_capacity(list.len());
    let mut by_remote: BTreeMap<Option<RemoteMatch>, Vec<usize>> = BTreeMap::new();
    let mut passes: Vec<(Tier, Direction)> = Vec::new();
    for candidate in list {
        let first = candidate.rule.remote.first();
        let alike = first.and_then(|remote| by_remote.get(&Some(remote.clone())));
        let wide = by_remote.get(&None);
        let earlier = alike
            .into_iter()
            .flatten()
            .take(COMPARED_MAX)
            .chain(wide.into_iter().flatten().take(COMPARED_MAX));
        let is_shadowed = earlier
            .filter_map(|place| kept.get(*place))
            .any(|earlier| takes_all(earlier, &candidate, &passes));
        if is_shadowed {
            continue;
        }
        let place = kept.len();
        if candidate.rule.remote.is_empty() {
            by_remote.entry(None).or_default().push(place);
        }
        for remote in &candidate.rule.remote {
            by_remote.entry(Some(remote.clone())).or_default().push(place);
        }
        if candidate.verb == Verb::Pass {
            passes.push((candidate.tier, candidate.rule.direction));
        }
        kept.push(candidate);
    }
    kept
}

/// Whether nothing that `later` matches gets past `earlier`.
fn takes_all(earlier: &Expanded, later: &Expanded, passes: &[(Tier, Direction)]) -> bool {
    // Frames may jump over an earlier rule of another tier; within a tier they jump over both.
    let is_met = earlier.tier == later.tier
        || (earlier.verb != Verb::Pass && !passes.contains(&(earlier.tier, earlier.rule.direction)));
    is_met && earlier.expires_at_ms.is_none() && covers(&earlier.rule, &later.rule)
}

/// Whether `wide` matches everything that `narrow` matches.
pub(crate) fn covers(wide: &Rule, narrow: &Rule) -> bool {
    wide.direction == narrow.direction
        && wide.ethertype == narrow.ethertype
        && (wide.ethertype.is_some() || covers_protocol(wide, narrow))
        && covers_remote(&wide.remote, &narrow.remote)
}

fn covers_protocol(wide: &Rule, narrow: &Rule) -> bool {
    let (wide_protocol, narrow_protocol) = (plain(wide.protocol), plain(narrow.protocol));
    let is_wider = match (wide_protocol, narrow_protocol) {
        (ProtocolMatch::Any, _) => return true,
        (ProtocolMatch::Usual, ProtocolMatch::Tcp | ProtocolMatch::Udp) => true,
        (ProtocolMatch::Usual, ProtocolMatch::Icmp) => {
            let echo = IcmpMatch { v4: Some(8), v6: Some(128), code: None };
            return wide.ports.is_empty()
                && !narrow.icmp.is_empty()
                && narrow.icmp.iter().all(|kind| *kind == echo);
        }
        (wide, narrow) => wide == narrow,
    };
    let ports = wide.ports.is_empty()
        || (!narrow.ports.is_empty()
            && narrow.ports.iter().all(|range| {
                wide.ports.iter().any(|wide| wide.first() <= range.first() && range.last() <= wide.last())
            }));
    let icmp = wide.icmp.is_empty()
        || (!narrow.icmp.is_empty() && narrow.icmp.iter().all(|kind| wide.icmp.contains(kind)));
    is_wider && ports && icmp
}

fn covers_remote(wide: &[RemoteMatch], narrow: &[RemoteMatch]) -> bool {
    let held = |narrow: &RemoteMatch| {
        wide.iter().any(|wide| match (wide, narrow) {
            (RemoteMatch::Prefix(wide), RemoteMatch::Prefix(narrow)) => covers_prefix(*wide, *narrow),
            (wide, narrow) => wide == narrow,
        })
    };
    wide.is_empty() || (!narrow.is_empty() && narrow.iter().all(held))
}

/// The rules as the NIC gets them: those that pass on go on at the first rule of a later tier, or at the end, where a rule
/// drops everything.
pub(crate) fn linked(list: &[Expanded], now_ms: i64) -> Vec<Rule> {
    let mut rules = Vec::with_capacity(list.len());
    let mut ends: Vec<Rule> = Vec::new();
    for (place, expanded) in list.iter().enumerate() {
        let mut rule = expanded.rule.clone();
        rule.expires_in_ms =
            expanded.expires_at_ms.map(|at| u64::try_from(at.saturating_sub(now_ms)).unwrap_or(0));
        rule.action = match expanded.verb {
            Verb::Allow => Action::Allow,
            Verb::Drop => Action::Drop,
            Verb::Reject => Action::Reject,
            Verb::Pass => {
                let further = list
                    .iter()
                    .skip(place)
                    .find(|other| other.tier > expanded.tier && other.rule.direction == rule.direction);
                match further {
                    Some(further) => Action::Pass(further.rule.id.clone()),
                    None => match end(&rule, &mut ends) {
                        Some(id) => Action::Pass(id),
                        None => Action::Drop,
                    },
                }
            }
        };
        rules.push(rule);
    }
    rules.extend(ends);
    rules
}

/// The rule at the end of `passing`'s direction, made when it is first needed.
fn end(passing: &Rule, ends: &mut Vec<Rule>) -> Option<fw_model::RuleId> {
    let id: fw_model::RuleId = format!("provider-default:{}", passing.direction).parse().ok()?;
    if !ends.iter().any(|end| end.id == id) {
        ends.push(Rule {
            id: id.clone(),
            action: Action::Drop,
            protocol: ProtocolMatch::Any,
            remote: Vec::new(),
            ports: Vec::new(),
            icmp: Vec::new(),
            ethertype: None,
            log: false,
            helper: None,
            expires_in_ms: None,
            limits: fw_model::RuleLimits { conns: None, new_per_s: None },
            reply_from: Vec::new(),
            ..passing.clone()
        });
    }
    Some(id)
}
