//! `explain` against serve: what the engines at both ends say, by which rule at which line, and why each side is in which group.
//!
//! Knows how an answer is shown. Never decides anything itself.

use std::io::{self, Write};
use std::process::ExitCode;

use serde_json::Value;

use super::asking::{VerbError, escaped, run};
use crate::config::{ExplainArgs, Form};

/// Runs the verb. 0 if every pair is delivered, 1 if one is not or an end does not answer.
///
/// # Errors
/// There is no such end or service, or serve says no.
pub fn explain(args: &ExplainArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let ExplainArgs { source, destination, service, .. } = args;
    let asked = [source, destination, service].map(|word| escaped(word));
    let [source, destination, service] = asked;
    let path = format!("/v1/explain?source={source}&destination={destination}&service={service}");
    let answer = run(args.asking.client()?.get(&path))??;
    let answers = answer.get("answers").and_then(Value::as_array).cloned().unwrap_or_default();
    for pair in &answers {
        match args.asking.form {
            Form::Text => show(pair, out)?,
            Form::Json => writeln!(out, "{pair}")?,
        }
    }
    let all = answers.iter().all(|pair| text(pair, "verdict") == "delivered");
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(pair: &Value, out: &mut impl Write) -> io::Result<()> {
    let verdict = match text(pair, "verdict") {
        "delivered" => "DELIVERED",
        "denied" => "DENIED",
        "unknown" => "UNKNOWN",
        _ => "NOBODY OURS",
    };
    let is_one = pair.get("one_end_only").and_then(Value::as_bool) == Some(true);
    let one_end = if is_one { " (one end only)" } else { "" };
    let [source, destination, service, realm] =
        ["source", "destination", "service", "realm"].map(|key| text(pair, key));
    writeln!(out, "{verdict}{one_end}  {source} -> {destination} {service} in realm {realm}")?;
    for side in ["out", "in"] {
        let end = pair.get(side).unwrap_or(&Value::Null);
        show_end(side, end, out)?;
        for group in end.get("groups").and_then(Value::as_array).into_iter().flatten() {
            writeln!(out, "      in {}", group.as_str().unwrap_or_default())?;
        }
    }
    Ok(())
}

fn show_end(side: &str, end: &Value, out: &mut impl Write) -> io::Result<()> {
    let nic = text(end, "nic");
    if nic.is_empty() {
        return writeln!(out, "  {side:<3} no NIC of ours: no vote");
    }
    let host = Some(text(end, "host")).filter(|host| !host.is_empty());
    let at = host.map_or_else(|| nic.to_owned(), |host| format!("{nic} on {host}"));
    let wanted = end.get("wanted").unwrap_or(&Value::Null);
    let Some(said) = end.get("enforced").filter(|said| !said.is_null()) else {
        writeln!(out, "  {side:<3} NO ANSWER from {at}: {}", text(end, "silent"))?;
        return writeln!(out, "      the policy wants: {} {}", text(wanted, "verdict"), by(wanted));
    };
    let generation = end.get("generation").and_then(Value::as_u64).unwrap_or(0);
    writeln!(
        out,
        "  {side:<3} at {at}: {} {} ({}; generation {generation})",
        text(said, "verdict"),
        by(said),
        text(said, "reason")
    )?;
    if text(wanted, "verdict") != text(said, "verdict") {
        writeln!(out, "      ! the policy wants: {} {}", text(wanted, "verdict"), by(wanted))?;
    }
    Ok(())
}

fn by(said: &Value) -> String {
    let rule = text(said, "rule");
    match said.get("origin").filter(|origin| !origin.is_null()) {
        Some(origin) => {
            let [rule, policy, tier, place] =
                ["rule", "policy", "tier", "place"].map(|key| text(origin, key));
            format!("by rule {rule} of policy {policy} ({tier}) at {place}")
        }
        None if rule.is_empty() => "because no rule allows it".to_owned(),
        None => format!("by {rule}"),
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}
