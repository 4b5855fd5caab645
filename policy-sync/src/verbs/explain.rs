//! `explain`: the verdict at both ends, with rule, policy, line and why each side is in which group.
//!
//! Knows how an answer is shown. Never knows what NICs enforce: this is what the files ask for.

use std::io::{self, Write};
use std::process::ExitCode;

use fw_model::DefaultAction;
use policy_compiler::{Answer, EndVerdict};
use serde_json::{Value, json};

use crate::config::{ExplainArgs, Form};
use crate::files::{PolicyError, load};

/// Runs the verb. 0 if every pair is delivered, 1 if one is not.
///
/// # Errors
/// The policy cannot be read or is wrong, or there is no such end or service.
pub fn explain(
    args: &ExplainArgs,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<ExitCode, PolicyError> {
    let compiled = load(&args.files, 1)?;
    for warning in &compiled.warnings {
        writeln!(notes, "{warning}").map_err(PolicyError::Unwritten)?;
    }
    let asked = compiled.form.explain(&args.source, &args.destination, &args.service);
    let answers = asked.map_err(PolicyError::Unknown)?;
    for answer in &answers {
        match args.asking.form {
            Form::Text => text(answer, out),
            Form::Json => writeln!(out, "{}", machine(answer)),
        }
        .map_err(PolicyError::Unwritten)?;
    }
    let all = answers.iter().all(Answer::is_delivered);
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    let verdict = if answer.is_delivered() { "DELIVERED" } else { "DENIED" };
    let one_end = if answer.is_one_end_only() { " (one end only)" } else { "" };
    let Answer { source, destination, service, realm, .. } = answer;
    writeln!(out, "{verdict}{one_end}  {source} -> {destination} {service} in realm {realm}")?;
    for (side, end) in [("out", &answer.out), ("in", &answer.in_)] {
        let Some((nic, decision)) = end.nic.as_ref().zip(end.decision.as_ref()) else {
            writeln!(out, "  {side:<3} no NIC of ours: no vote")?;
            groups(end, out)?;
            continue;
        };
        let by = match (&end.origin, &decision.rule) {
            (Some(origin), _) => format!("by {origin}"),
            (None, Some(rule)) => format!("by {rule}"),
            (None, None) => "because no rule allows it".to_owned(),
        };
        writeln!(out, "  {side:<3} at {nic}: {} {by}", word(decision.action))?;
        groups(end, out)?;
    }
    Ok(())
}

fn groups(end: &EndVerdict, out: &mut impl Write) -> io::Result<()> {
    for group in &end.groups {
        writeln!(out, "      in {group}")?;
    }
    Ok(())
}

const fn word(action: DefaultAction) -> &'static str {
    match action {
        DefaultAction::Allow => "allow",
        DefaultAction::Drop => "drop",
        DefaultAction::Reject => "reject",
    }
}

fn machine(answer: &Answer) -> Value {
    let end = |end: &EndVerdict| {
        let decision = end.decision.as_ref();
        json!({
            "nic": end.nic.as_ref().map(ToString::to_string),
            "verdict": decision.map(|decision| word(decision.action)),
            "rule": decision.and_then(|decision| decision.rule.as_ref()).map(ToString::to_string),
            "policy": end.origin.as_ref().map(|origin| origin.policy.to_string()),
            "tier": end.origin.as_ref().map(|origin| origin.tier.word()),
            "place": end.origin.as_ref().map(|origin| origin.place.clone()),
            "groups": end.groups,
        })
    };
    json!({
        "delivered": answer.is_delivered(),
        "one_end_only": answer.is_one_end_only(),
        "source": answer.source.to_string(),
        "destination": answer.destination.to_string(),
        "service": answer.service,
        "realm": answer.realm.to_string(),
        "out": end(&answer.out),
        "in": end(&answer.in_),
    })
}
