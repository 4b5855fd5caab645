//! `diff`: what another policy would change, NIC by NIC.
//!
//! Knows how a change is shown. Never knows what is enforced.

use std::io::{self, Write};
use std::process::ExitCode;

use fw_model::Member;
use policy_compiler::{NicDiff, PolicyDiff, RuleChange, SetDelta};
use serde_json::{Value, json};

use crate::clock::now_ms;
use crate::config::{DiffArgs, Form};
use crate::files::{PolicyError, load};
use crate::rules_file::rule;

/// Most addresses of a set that are written out for people.
const SHOWN_MAX: usize = 8;

/// Runs the verb. As diff(1): 0 the same, 1 different.
///
/// # Errors
/// One of the policies cannot be read or is wrong.
pub fn diff(args: &DiffArgs, out: &mut impl Write, notes: &mut impl Write) -> Result<ExitCode, PolicyError> {
    let (old, new) = (load(&args.against, 1)?, load(&args.files, 1)?);
    for warning in &new.warnings {
        writeln!(notes, "{warning}").map_err(PolicyError::Unwritten)?;
    }
    let diff = PolicyDiff::between(&old.form, &new.form, now_ms());
    for (nic, change) in &diff.nics {
        match args.form {
            Form::Text => text(nic.as_str(), change, out),
            Form::Json => writeln!(out, "{}", machine(nic.as_str(), change)),
        }
        .map_err(PolicyError::Unwritten)?;
    }
    Ok(ExitCode::from(u8::from(!diff.nics.is_empty())))
}

fn text(nic: &str, change: &NicDiff, out: &mut impl Write) -> io::Result<()> {
    match change {
        NicDiff::Added(rules) => writeln!(out, "{nic}: new, {} rules", rules.rules.len()),
        NicDiff::Removed => writeln!(out, "{nic}: gone"),
        NicDiff::Changed { identity, rules, sets } => {
            writeln!(out, "{nic}:")?;
            if *identity {
                writeln!(out, "  ! who it is changes: its conns are closed")?;
            }
            for change in rules {
                match change {
                    RuleChange::Added(new) => writeln!(out, "  + {}", rule(new))?,
                    RuleChange::Removed(old) => writeln!(out, "  - {}", rule(old))?,
                    RuleChange::Altered { old, new } => {
                        writeln!(out, "  < {}\n  > {}", rule(old), rule(new))?
                    }
                    RuleChange::Moved(moved) => writeln!(out, "  ~ {} is asked at another place", moved.id)?,
                }
            }
            sets.iter().try_for_each(|delta| set(delta, out))
        }
    }
}

fn set(delta: &SetDelta, out: &mut impl Write) -> io::Result<()> {
    for (sign, members) in [('+', &delta.added), ('-', &delta.removed)] {
        if members.is_empty() {
            continue;
        }
        let shown: Vec<String> =
            members.iter().take(SHOWN_MAX).map(|member| member.prefix.to_string()).collect();
        let more = members.len().saturating_sub(SHOWN_MAX);
        let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
        writeln!(out, "  {sign} {}: {}{rest}", delta.set, shown.join(", "))?;
    }
    Ok(())
}

fn machine(nic: &str, change: &NicDiff) -> Value {
    match change {
        NicDiff::Added(rules) => json!({"nic": nic, "change": "added", "rules": rules.rules.len()}),
        NicDiff::Removed => json!({"nic": nic, "change": "removed"}),
        NicDiff::Changed { identity, rules, sets } => {
            let of = |change: &RuleChange| match change {
                RuleChange::Added(new) => json!({"change": "added", "rule": rule(new)}),
                RuleChange::Removed(old) => json!({"change": "removed", "rule": rule(old)}),
                RuleChange::Altered { old, new } => {
                    json!({"change": "altered", "old": rule(old), "rule": rule(new)})
                }
                RuleChange::Moved(moved) => json!({"change": "moved", "rule": rule(moved)}),
            };
            let members =
                |list: &[Member]| list.iter().map(|member| member.prefix.to_string()).collect::<Vec<_>>();
            let sets: Vec<Value> = sets
                .iter()
                .map(|delta| json!({"set": delta.set.to_string(), "added": members(&delta.added), "removed": members(&delta.removed)}))
                .collect();
            let rules: Vec<Value> = rules.iter().map(of).collect();
            json!({"nic": nic, "change": "changed", "identity": identity, "rules": rules, "sets": sets})
        }
    }
}
