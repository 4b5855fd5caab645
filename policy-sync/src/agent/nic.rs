//! One NIC at the other end of its control socket: brought from what it enforces to what it shall.
//!
//! Knows the control socket. Never knows serve.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fw_control::{Advance, Line, Reply, Request, SetChange, SetsChange};
use fw_model::{Explanation, Probe, RuleSet};

/// How long a NIC's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a NIC enforces, as far as that is known.
#[derive(Debug, Clone, Default)]
pub(super) struct Enforced {
    /// The generation; 0 = none.
    pub(super) generation: u64,
    /// What it says; unknown if another put it in force.
    pub(super) rules: Option<Arc<RuleSet>>,
}

/// Asks the NIC at `socket` what it enforces.
pub(super) fn ask(socket: &Path) -> Result<u64, String> {
    let reply = ask_for(socket, &Request::Stats)?;
    if let Reply::Stats(stats) = &reply {
        return Ok(stats.enforced.unwrap_or(0));
    }
    Err(unexpected(&reply))
}

/// Asks the NIC at `socket` what would become of a frame.
pub(super) fn explain(socket: &Path, probe: Probe) -> Result<Explanation, String> {
    let reply = ask_for(socket, &Request::Explain(probe))?;
    if let Reply::Explanation(explanation) = reply {
        return Ok(explanation);
    }
    Err(unexpected(&reply))
}

/// Brings the NIC at `socket` from `before` to `wanted`. What it answers is what it enforces.
pub(super) fn bring(socket: &Path, before: &Enforced, wanted: RuleSet) -> Result<Enforced, String> {
    let generation = wanted.generation;
    let change = before.rules.as_deref().and_then(|before| sets_change(before, &wanted));
    let wanted = Arc::new(wanted);
    let mut replies = change.map(|change| ask_for(socket, &Request::Advance(Advance::Sets(change))));
    if !matches!(replies, Some(Ok(Reply::Enforced(_)))) {
        let whole = Advance::Whole(Box::new(RuleSet::clone(&wanted)));
        replies = Some(ask_for(socket, &Request::Advance(whole)));
    }
    match replies {
        Some(Ok(Reply::Enforced(enforced))) if enforced == generation => {
            Ok(Enforced { generation, rules: Some(wanted) })
        }
        Some(Ok(reply)) => Err(unexpected(&reply)),
        Some(Err(why)) => Err(why),
        None => Err("nothing was asked".to_owned()),
    }
}

/// What changed in the sets, if nothing else did.
fn sets_change(before: &RuleSet, after: &RuleSet) -> Option<SetsChange> {
    let same = before.rules == after.rules
        && before.nic == after.nic
        && before.defaults == after.defaults
        && before.timers == after.timers
        && before.limits == after.limits
        && before.address_sets.keys().eq(after.address_sets.keys());
    if !same {
        return None;
    }
    let pairs = before.address_sets.iter().zip(after.address_sets.values());
    let changed = pairs.filter(|((_, before), after)| before != after);
    let sets: BTreeMap<_, _> =
        changed.map(|((name, before), after)| (name.clone(), SetChange::between(before, after))).collect();
    Some(SetsChange { base: before.generation, generation: after.generation, sets })
}

fn ask_for(socket: &Path, request: &Request) -> Result<Reply, String> {
    let asked = Line::open(socket, PATIENCE).and_then(|mut line| line.ask(request));
    asked.map_err(|error: io::Error| format!("{}: {error}", socket.display()))
}

fn unexpected(reply: &Reply) -> String {
    match reply {
        Reply::Refused(why) => format!("the NIC refused: {why}"),
        Reply::Enforced(generation) => format!("the NIC enforces generation {generation}"),
        Reply::Stats(_)
        | Reply::Conns(_)
        | Reply::Killed(_)
        | Reply::Explanation(_)
        | Reply::Terms(_)
        | Reply::Done => "the NIC gave an answer that belongs to another question".to_owned(),
    }
}
