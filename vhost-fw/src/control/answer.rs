//! What a request is answered: checked here, done by the NIC.
//!
//! Knows which rules are this NIC's. Never knows where a request came from.

use std::sync::Arc;

use fw_control::{Advance, Reply, Request};
use fw_engine::PreparedRules;
use fw_model::{NicId, RuleSet};

use super::Nic;

pub(super) fn to(nic: &dyn Nic, id: &NicId, request: Request) -> Reply {
    match request {
        Request::Install(rules) => match PreparedRules::new(*rules) {
            Ok(rules) => install(nic, id, Arc::new(rules)),
            Err(error) => Reply::Refused(error.to_string()),
        },
        Request::Advance(advance) => match advanced(nic.in_force(), advance) {
            Ok(rules) => install(nic, id, Arc::new(rules)),
            Err(why) => Reply::Refused(why),
        },
        request @ (Request::Stats
        | Request::Conns(_)
        | Request::Kill(_)
        | Request::Explain(_)
        | Request::Freeze
        | Request::Thaw
        | Request::AnnounceHandover(_)
        | Request::ExpectHandover(_)
        | Request::Upgrade
        | Request::CancelHandover
        | Request::Terms
        | Request::SendAhead(_)
        | Request::ReceiveAhead(_)
        | Request::Export
        | Request::Import) => nic.ask(request),
    }
}

/// What the control plane sent, made ready; refused whole unless it rises from what is in force.
fn advanced(before: Option<RuleSet>, advance: Advance) -> Result<PreparedRules, String> {
    let generation = before.as_ref().map(|rules| rules.generation);
    let rules = match advance {
        Advance::Whole(rules) => *rules,
        Advance::Sets(change) => {
            let before = before.ok_or("a change to rules, and none are in force: send all of them")?;
            change.onto(before).map_err(|misfit| misfit.to_string())?
        }
    };
    match generation.filter(|generation| rules.generation <= *generation) {
        Some(generation) => {
            Err(format!("generation {} does not rise: {generation} is in force", rules.generation))
        }
        None => PreparedRules::new(rules).map_err(|error| error.to_string()),
    }
}

pub(super) fn install(nic: &dyn Nic, id: &NicId, rules: Arc<PreparedRules>) -> Reply {
    let named = &rules.rules().nic.id;
    if named != id {
        return Reply::Refused(format!("nic.id: these are the rules of `{named}`, and this NIC is `{id}`"));
    }
    nic.install(rules)
}

/// The generation in force; 0 without rules.
pub(super) fn generation(nic: &dyn Nic) -> u64 {
    match nic.ask(Request::Stats) {
        Reply::Stats(stats) => stats.generation.unwrap_or(0),
        Reply::Enforced(_)
        | Reply::Conns(_)
        | Reply::Killed(_)
        | Reply::Explanation(_)
        | Reply::Terms(_)
        | Reply::Done
        | Reply::Refused(_) => 0,
    }
}

/// Why something was refused.
pub(super) fn refusal(reply: &Reply) -> &str {
    match reply {
        Reply::Refused(why) => why,
        Reply::Stats(_)
        | Reply::Enforced(_)
        | Reply::Conns(_)
        | Reply::Killed(_)
        | Reply::Explanation(_)
        | Reply::Terms(_)
        | Reply::Done => "the NIC gave an answer that belongs to another question",
    }
}
