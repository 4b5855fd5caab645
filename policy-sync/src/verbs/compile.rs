//! `compile`: checks a policy and writes what each NIC gets.
//!
//! Knows tables, JSON and rules files. Never knows a server.

use std::fs;
use std::io::Write;
use std::process::ExitCode;

use fw_model::{NicId, RuleSet};
use serde_json::json;

use crate::clock::now_ms;
use crate::config::{CompileArgs, Form};
use crate::files::{PolicyError, load};
use crate::rules_file::rules_file;

/// Runs the verb: warnings to `notes`, the result to `out`. 0, or 1 where a warning counts as an error.
///
/// # Errors
/// The policy cannot be read or is wrong, there is no such NIC, or the result cannot be written.
pub fn compile(
    args: &CompileArgs,
    out: &mut impl Write,
    notes: &mut impl Write,
) -> Result<ExitCode, PolicyError> {
    let compiled = load(&args.files, args.generation)?;
    for warning in &compiled.warnings {
        writeln!(notes, "{warning}").map_err(PolicyError::Unwritten)?;
    }
    if args.strict && !compiled.warnings.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    let form = &compiled.form;
    let now = now_ms();
    let of = |nic: &NicId| form.rules_of(nic, now);
    let ids: Vec<NicId> = form.nics().cloned().collect();
    if !args.nics.is_empty() {
        for id in &args.nics {
            let rules = id.parse().ok().and_then(|nic| of(&nic));
            let rules = rules.ok_or_else(|| unknown_nic(id, &ids))?;
            write_file(&rules, out).map_err(PolicyError::Unwritten)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(folder) = &args.out {
        fs::create_dir_all(folder).map_err(PolicyError::Unwritten)?;
        for rules in ids.iter().filter_map(of) {
            let mut text = Vec::new();
            write_file(&rules, &mut text).map_err(PolicyError::Unwritten)?;
            fs::write(folder.join(format!("{}.json", rules.nic.id)), text).map_err(PolicyError::Unwritten)?;
        }
    }
    let rows: Vec<_> = ids.iter().filter_map(of).collect();
    table(&rows, args.form, out).map_err(PolicyError::Unwritten)?;
    Ok(ExitCode::SUCCESS)
}

fn unknown_nic(id: &str, ids: &[NicId]) -> PolicyError {
    let known: Vec<&str> = ids.iter().map(NicId::as_str).take(1000).collect();
    PolicyError::Unknown(format!("there is no NIC `{id}`{}", fw_document::read::suggestion(id, &known)))
}

fn write_file(rules: &RuleSet, out: &mut impl Write) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &rules_file(rules))?;
    writeln!(out)
}

fn table(rows: &[RuleSet], form: Form, out: &mut impl Write) -> std::io::Result<()> {
    let members = |rules: &RuleSet| rules.address_sets.values().map(|set| set.members.len()).sum::<usize>();
    if form == Form::Text {
        writeln!(out, "{:<24} {:>10} {:>6} {:>5} {:>9}", "NIC", "GENERATION", "RULES", "SETS", "ADDRESSES")?;
    }
    for rules in rows {
        let (nic, generation) = (rules.nic.id.to_string(), rules.generation);
        let (count, sets, addresses) = (rules.rules.len(), rules.address_sets.len(), members(rules));
        match form {
            Form::Text => writeln!(out, "{nic:<24} {generation:>10} {count:>6} {sets:>5} {addresses:>9}")?,
            Form::Json => {
                let row = json!({"nic": nic, "generation": generation, "rules": count, "sets": sets, "addresses": addresses});
                writeln!(out, "{row}")?;
            }
        }
    }
    Ok(())
}
