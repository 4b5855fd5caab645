//! Rules that an earlier one makes pointless, as people should hear of it.
//!
//! Knows the order of all rules. Never knows NICs: what shadows a rule here shadows it everywhere.

use std::collections::BTreeMap;

use fw_model::Cidr;

use crate::diagnostic::Findings;
use crate::expand::covers as covers_prefix;
use crate::form::SharedForm;
use crate::name::Owner;
use crate::order::{SharedRule, Side};
use crate::policy::Verb;
use crate::simplify::covers;

/// Most earlier rules one is compared with.
const COMPARED_MAX: usize = 1_000;

/// One end, as rules are looked up by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Any,
    Group(usize),
    Prefix(Cidr),
    Same,
}

/// Adds a warning for every rule that another takes everything from, and for rules that do nothing at one end.
pub(crate) fn warn(form: &SharedForm, findings: &mut Findings) {
    let mut by_ends: BTreeMap<(End, End), Vec<usize>> = BTreeMap::new();
    let mut passing: Vec<(Owner, crate::policy::Tier)> = Vec::new();
    for (place, rule) in form.rules().iter().enumerate() {
        let candidates = candidates(rule, &by_ends);
        let earlier = candidates.into_iter().take(COMPARED_MAX).filter_map(|place| form.rule(place));
        let jumps = |earlier: &SharedRule| passing.iter().any(|(_, tier)| *tier == earlier.tier);
        let found = earlier
            .filter(|earlier| earlier.tier == rule.tier || (earlier.verb != Verb::Pass && !jumps(earlier)));
        let mut found = found.filter(|earlier| takes_all(earlier, rule));
        if let Some(earlier) = found.next() {
            let at = form.intent.shown(earlier.place);
            let other = format!("rule `{}` of policy `{}` at {at}", earlier.name, earlier.policy);
            let message = if earlier.verb == rule.verb {
                format!("rule `{}` says again what {other} says; remove one", rule.name)
            } else {
                format!("rule `{}` never decides: {other} takes everything it would match", rule.name)
            };
            findings.warn(rule.place, message);
        }
        for ends in ends_of(rule) {
            by_ends.entry(ends).or_default().push(place);
        }
        if rule.verb == Verb::Pass {
            passing.push((rule.policy.owner.clone(), rule.tier));
        }
    }
}

fn ends_of(rule: &SharedRule) -> Vec<(End, End)> {
    let of = |side: &Side| match side {
        Side::Any => vec![End::Any],
        Side::Same(_) => vec![End::Same],
        Side::These { groups, prefixes } => {
            let groups = groups.iter().map(|group| End::Group(*group));
            groups.chain(prefixes.iter().map(|prefix| End::Prefix(*prefix))).collect()
        }
    };
    let to = of(&rule.to);
    of(&rule.from).into_iter().flat_map(|from| to.iter().map(move |to| (from.clone(), to.clone()))).collect()
}

fn candidates(rule: &SharedRule, by_ends: &BTreeMap<(End, End), Vec<usize>>) -> Vec<usize> {
    let Some((from, to)) = ends_of(rule).into_iter().next() else { return Vec::new() };
    let mut candidates = Vec::new();
    for from in [&from, &End::Any] {
        for to in [&to, &End::Any] {
            candidates
                .extend(by_ends.get(&(from.clone(), to.clone())).into_iter().flatten().take(COMPARED_MAX));
        }
    }
    candidates.sort_unstable();
    candidates.dedup();
    candidates
}

fn takes_all(earlier: &SharedRule, later: &SharedRule) -> bool {
    let same_scope = earlier.policy.owner == Owner::Provider || earlier.policy.owner == later.policy.owner;
    let applied = match (&earlier.applied_to, &later.applied_to) {
        (None, _) => true,
        (Some(earlier), Some(later)) => later.iter().all(|group| earlier.contains(group)),
        (Some(_), None) => false,
    };
    let sides = covers_side(&earlier.from, &later.from) && covers_side(&earlier.to, &later.to);
    let services = later
        .templates
        .iter()
        .all(|narrow| earlier.templates.iter().any(|wide| covers(&wide.out, &narrow.out)));
    let same = !matches!(later.from, Side::Same(_)) || earlier.policy.owner == later.policy.owner;
    same_scope && same && applied && sides && services && earlier.expires_at_ms.is_none()
}

fn covers_side(wide: &Side, narrow: &Side) -> bool {
    match (wide, narrow) {
        (Side::Any, _) => true,
        (Side::Same(wide), Side::Same(narrow)) => wide == narrow,
        (Side::These { groups, prefixes }, Side::These { groups: inner, prefixes: inner_prefixes }) => {
            inner.iter().all(|group| groups.contains(group))
                && inner_prefixes.iter().all(|inner| prefixes.iter().any(|wide| covers_prefix(*wide, *inner)))
        }
        (Side::These { .. } | Side::Same(_), _) => false,
    }
}
