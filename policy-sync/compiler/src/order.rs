//! One total order of all rules: tier, then the policy's position, then the rule's place.
//!
//! Knows intent and groups by number. Never knows which NIC carries what.

use std::collections::BTreeSet;

use fw_model::{Action, Cidr, Direction, RemoteMatch, Rule, RuleId};

use crate::diagnostic::{Findings, Place};
use crate::group::Placed;
use crate::intent::Intent;
use crate::membership::{GroupKey, Groups};
use crate::name::{Name, Ref};
use crate::policy::{Ends, Peer, Peers, PolicyRule, Tier, Verb};
use crate::services;

/// One end of a rule, its groups by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Side {
    Any,
    These {
        groups: Vec<usize>,
        prefixes: Vec<Cidr>,
    },
    /// Those with the same value of this label as the other end.
    Same(Name),
}

/// What a rule needs of one protocol: its rule at either end, but for the remote addresses.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Template {
    pub(crate) out: Rule,
    pub(crate) in_: Rule,
}

/// A rule in its place, before it is asked which NICs carry it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SharedRule {
    pub(crate) policy: Ref,
    pub(crate) name: Name,
    pub(crate) place: Place,
    pub(crate) tier: Tier,
    pub(crate) position: u32,
    pub(crate) verb: Verb,
    pub(crate) from: Side,
    pub(crate) to: Side,
    /// The groups whose workloads carry it; both ends if absent.
    pub(crate) applied_to: Option<Vec<usize>>,
    pub(crate) reply_from: Side,
    pub(crate) expires_at_ms: Option<i64>,
    pub(crate) templates: Vec<Template>,
}

/// Every rule in order. Rules that can never match are left out: expired ones, and those that allow by what is not known
/// wholly.
pub(crate) fn ordered(
    intent: &Intent,
    groups: &Groups,
    now_ms: i64,
    findings: &mut Findings,
) -> Vec<SharedRule> {
    let mut policies: Vec<_> = intent.policies.iter().collect();
    // Tenants' policies never meet on a NIC, so their names may break the tie between them.
    policies.sort_by_key(|(key, policy)| (policy.tier, policy.position, (*key).clone()));
    let mut rules = Vec::with_capacity(policies.iter().map(|(_, policy)| policy.rules.len()).sum());
    for (key, policy) in policies {
        for rule in &policy.rules {
            if rule.expires_at_ms.is_some_and(|at| at <= now_ms) {
                findings.warn(rule.place, format!("rule `{}` has expired; remove it", rule.name));
                continue;
            }
            let numbering = Numbering { groups, rule, findings };
            let Some(sides) = numbering.sides(policy.applied_to.as_deref()) else { continue };
            let templates = templates(key, rule, sides.verb, intent);
            rules.push(SharedRule {
                policy: key.clone(),
                name: rule.name.clone(),
                place: rule.place,
                tier: policy.tier,
                position: policy.position,
                verb: sides.verb,
                from: sides.from,
                to: sides.to,
                applied_to: sides.applied_to,
                reply_from: sides.reply_from,
                expires_at_ms: rule.expires_at_ms,
                templates,
            });
        }
    }
    rules
}

struct Sides {
    verb: Verb,
    from: Side,
    to: Side,
    applied_to: Option<Vec<usize>>,
    reply_from: Side,
}

/// Turns one rule's names into numbers.
struct Numbering<'a> {
    groups: &'a Groups,
    rule: &'a PolicyRule,
    findings: &'a mut Findings,
}

impl Numbering<'_> {
    /// `None` if the rule can never match.
    fn sides(self, of_policy: Option<&[Placed<Ref>]>) -> Option<Sides> {
        let (from, from_whole) = self.end(&self.rule.ends, Direction::Out);
        let (to, to_whole) = self.end(&self.rule.ends, Direction::In);
        let named = self.rule.applied_to.as_deref().or(of_policy);
        let (applied_to, applied_whole) = named.map_or((None, true), |named| {
            let numbers: Vec<usize> = named.iter().filter_map(|group| self.number(&group.value)).collect();
            let whole = numbers.iter().all(|group| self.is_complete(*group));
            (Some(numbers), whole)
        });
        let replies: Vec<_> = self.rule.reply_from.clone();
        let (reply_from, _) = self.peers(&Peers::These(replies));
        let reply_from = self.known_part(reply_from);
        let (verb, place) = (self.rule.verb, self.rule.place);
        if from_whole && to_whole && applied_whole {
            return Some(Sides { verb, from, to, applied_to, reply_from });
        }
        let widened = |side: Side, whole: bool| if whole { side } else { Side::Any };
        match verb {
            Verb::Allow => {
                let message = format!(
                    "rule `{}` names a group that is not complete; it does not allow by it until it is",
                    self.rule.name
                );
                self.findings.warn(place, message);
                let (from, to) = (self.known_part(from), self.known_part(to));
                let applied_to = applied_to
                    .map(|groups| groups.into_iter().filter(|group| self.is_complete(*group)).collect());
                (!is_nobody(&from) && !is_nobody(&to)).then_some(Sides {
                    verb,
                    from,
                    to,
                    applied_to,
                    reply_from,
                })
            }
            Verb::Drop | Verb::Reject | Verb::Pass => {
                let verb = if verb == Verb::Reject { Verb::Reject } else { Verb::Drop };
                let message = format!(
                    "rule `{}` names a group that is not complete; until it is, it refuses for anyone",
                    self.rule.name
                );
                self.findings.warn(place, message);
                let (from, to) = (widened(from, from_whole), widened(to, to_whole));
                let applied_to = applied_to.filter(|_| applied_whole);
                Some(Sides { verb, from, to, applied_to, reply_from })
            }
        }
    }

    /// One end, and whether all its groups are known wholly.
    fn end(&self, ends: &Ends, end: Direction) -> (Side, bool) {
        match (ends, end) {
            (Ends::Between { from, .. }, Direction::Out) => self.peers(from),
            (Ends::Between { to, .. }, Direction::In) => self.peers(to),
            (Ends::Within(group), _) => self.group_side(&group.value),
            (Ends::Same(key), _) => (Side::Same(key.value.clone()), true),
        }
    }

    fn group_side(&self, group: &Ref) -> (Side, bool) {
        let groups: Vec<usize> = self.number(group).into_iter().collect();
        let whole = groups.iter().all(|group| self.is_complete(*group));
        (Side::These { groups, prefixes: Vec::new() }, whole)
    }

    fn peers(&self, peers: &Peers) -> (Side, bool) {
        let Peers::These(list) = peers else { return (Side::Any, true) };
        let (mut groups, mut prefixes) = (BTreeSet::new(), BTreeSet::new());
        for peer in list {
            match &peer.value {
                Peer::Group(group) => groups.extend(self.number(group)),
                Peer::Prefix(prefix) => {
                    prefixes.insert(*prefix);
                }
            }
        }
        let whole = groups.iter().all(|group| self.is_complete(*group));
        let groups = groups.into_iter().collect();
        (Side::These { groups, prefixes: prefixes.into_iter().collect() }, whole)
    }

    fn number(&self, group: &Ref) -> Option<usize> {
        self.groups.number(&GroupKey::Named(group.clone()))
    }

    fn is_complete(&self, group: usize) -> bool {
        self.groups.get(group).is_some_and(|group| group.is_complete)
    }

    fn known_part(&self, side: Side) -> Side {
        match side {
            Side::These { groups, prefixes } => {
                let groups = groups.into_iter().filter(|group| self.is_complete(*group)).collect();
                Side::These { groups, prefixes }
            }
            Side::Any | Side::Same(_) => side,
        }
    }
}

fn is_nobody(side: &Side) -> bool {
    matches!(side, Side::These { groups, prefixes } if groups.is_empty() && prefixes.is_empty())
}

fn templates(policy: &Ref, rule: &PolicyRule, verb: Verb, intent: &Intent) -> Vec<Template> {
    let action = match verb {
        Verb::Allow => Action::Allow,
        // Where it goes on is known when the NIC's rules stand.
        Verb::Drop | Verb::Pass => Action::Drop,
        Verb::Reject => Action::Reject,
    };
    let mut templates = Vec::new();
    for part in services::of_rule(rule, intent) {
        let of = |direction: Direction, end: &str| {
            let id: RuleId =
                format!("{policy}/{}:{end}.{}", rule.name, services::word(&part)).parse().ok()?;
            Some(Rule {
                id,
                direction,
                action: action.clone(),
                protocol: part.protocol,
                remote: Vec::<RemoteMatch>::new(),
                ports: part.ports.clone(),
                icmp: part.icmp.clone(),
                ethertype: part.ethertype,
                log: rule.log,
                helper: rule.helper,
                expires_in_ms: None,
                on_revoke: rule.on_revoke,
                limits: rule.limits,
                reply_from: Vec::new(),
            })
        };
        if let (Some(out), Some(in_)) = (of(Direction::Out, "out"), of(Direction::In, "in")) {
            templates.push(Template { out, in_ });
        }
    }
    templates
}
