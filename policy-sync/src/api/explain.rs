//! May one speak to another: what the policy says, and what the engines at both ends say themselves.
//!
//! Knows both answers and sets them side by side. Never believes one for the other.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use fw_model::{DefaultAction, Direction, Explanation, VerdictName};
use policy_compiler::{EndVerdict, Origin, SharedForm};
use serde::Deserialize;
use serde_json::{Value, json};

use super::documents::need_everything;
use super::{Caller, Problem, Served, blocking, policy};
use crate::plane::Plane;

/// Most pairs of addresses and ports that are asked at once.
const PAIRS_MAX: usize = 64;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
pub(super) struct Asked {
    /// Who opens: a workload, a NIC or an address.
    source: String,
    /// Who is spoken to.
    destination: String,
    /// On what: `tcp/443`, or a service's name.
    service: String,
}

/// Asks the engines at both ends, and says why each side is in which group. An end that does not answer is named.
#[utoipa::path(get, path = "/v1/explain", params(Asked), responses((status = 200, description = "an answer for every pair of addresses"), (status = 400, description = "no such end or service")))]
pub(super) async fn explain(
    State(plane): Served,
    caller: Caller,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    need_everything(&caller)?;
    let wanted = Arc::clone(&plane.wanted().borrow());
    let version = wanted.version;
    let (form, answers) = blocking(move || {
        let form = Arc::clone(policy(&wanted)?);
        let Asked { source, destination, service } = &asked;
        let answers = form.explain(source, destination, service).map_err(Problem::bad)?;
        Ok((form, answers))
    })
    .await?;
    if answers.len() > PAIRS_MAX {
        let found = answers.len();
        return Err(Problem::bad(format!("{found} pairs, and {PAIRS_MAX} are asked at once: ask for less")));
    }
    let mut told = Vec::new();
    for answer in &answers {
        let [out, in_] = [(Direction::Out, &answer.out), (Direction::In, &answer.in_)]
            .map(|(direction, end)| End { plane: &plane, form: &form, end, probe: answer.probe(direction) });
        let ((out, out_said), (in_, in_said)) = tokio::join!(out.ask(), in_.ask());
        let votes: Vec<Vote> = [out_said, in_said].into_iter().flatten().collect();
        told.push(json!({
            "verdict": verdict(&votes),
            "one_end_only": answer.is_one_end_only(),
            "source": answer.source.to_string(),
            "destination": answer.destination.to_string(),
            "service": answer.service,
            "realm": answer.realm.to_string(),
            "out": out,
            "in": in_,
        }));
    }
    Ok(Json(json!({"version": version, "answers": told})))
}

/// What an end of ours says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vote {
    Passes,
    Refuses,
    Silent,
}

fn verdict(votes: &[Vote]) -> &'static str {
    if votes.is_empty() {
        "nobody-ours"
    } else if votes.contains(&Vote::Refuses) {
        "denied"
    } else if votes.contains(&Vote::Silent) {
        "unknown"
    } else {
        "delivered"
    }
}

/// One end of a pair.
struct End<'a> {
    plane: &'a Plane,
    form: &'a SharedForm,
    end: &'a EndVerdict,
    probe: Option<fw_model::Probe>,
}

impl End<'_> {
    /// What it says; no vote where no NIC of ours is.
    async fn ask(self) -> (Value, Option<Vote>) {
        let groups = &self.end.groups;
        let Some(nic) = &self.end.nic else { return (json!({"nic": null, "groups": groups}), None) };
        let realized = self.plane.realized.nic_of(nic);
        let answer = match (&realized, self.probe) {
            (None, _) => Err("no agent sees this NIC".to_owned()),
            (Some(_), None) => Err("engines are asked about echo requests alone, of all ICMP".to_owned()),
            (Some(realized), Some(probe)) => self.plane.questions.ask(&realized.host, nic, probe).await,
        };
        let vote = match &answer {
            Ok(said) if said.verdict == VerdictName::Pass => Vote::Passes,
            Ok(_) => Vote::Refuses,
            Err(_) => Vote::Silent,
        };
        let decision = self.end.decision.as_ref();
        let told = json!({
            "nic": nic,
            "host": realized.as_ref().map(|realized| &realized.host),
            "generation": realized.as_ref().map(|realized| realized.enforced),
            "enforced": answer.as_ref().ok().map(|said| self.enforced(said)),
            "silent": answer.as_ref().err(),
            "wanted": decision.map(|decision| json!({
                "verdict": word(decision.action),
                "rule": decision.rule.as_ref().map(ToString::to_string),
                "origin": self.end.origin.as_ref().map(origin),
            })),
            "groups": groups,
        });
        (told, Some(vote))
    }

    fn enforced(&self, said: &Explanation) -> Value {
        let written = said.rule.as_ref().and_then(|rule| self.form.origin(rule));
        json!({
            "verdict": said.verdict,
            "reason": said.reason,
            "by": said.by,
            "rule": said.rule.as_ref().map(ToString::to_string),
            "origin": written.as_ref().map(origin),
        })
    }
}

fn origin(origin: &Origin) -> Value {
    json!({
        "policy": origin.policy.to_string(),
        "rule": origin.rule.to_string(),
        "tier": origin.tier.word(),
        "place": origin.place,
    })
}

const fn word(action: DefaultAction) -> &'static str {
    match action {
        DefaultAction::Allow => "pass",
        DefaultAction::Drop => "drop",
        DefaultAction::Reject => "reject",
    }
}
