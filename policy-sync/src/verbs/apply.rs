//! `apply`: documents from files, as one change to the policy; and who does not enforce it yet.
//!
//! Knows files. Never knows what one says.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hyper::Method;
use serde_json::Value;

use super::asking::{VerbError, run};
use crate::api::apply::{ApplyRequest, Named, PutDocument};
use crate::config::Form;
use crate::config::remote::ApplyArgs;

/// Runs the verb. 1 if somebody who was waited for does not enforce it.
///
/// # Errors
/// A file cannot be read, or serve says no: then nothing was changed.
pub fn apply(args: &ApplyArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let owner = &args.owner;
    let mut request = ApplyRequest {
        base: args.base,
        note: args.note.clone(),
        dry_run: args.dry_run,
        wait_enforced_s: args.waiting.seconds(),
        ..ApplyRequest::default()
    };
    for path in args.files.iter().map(|path| documents(path)).collect::<Result<Vec<_>, _>>()?.concat() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).map_err(|error| unread(&path, &error))?;
        request.put.push(PutDocument { owner: owner.clone(), name, text });
    }
    let named = |name: &String| Named { owner: owner.clone(), name: name.clone() };
    request.remove = args.remove.iter().map(named).collect();
    if request.put.is_empty() && request.remove.is_empty() {
        return Err(VerbError(
            "nothing to apply: name a document with --file, or one that goes with --remove".to_owned(),
        ));
    }
    let body = serde_json::to_value(&request).map_err(|error| VerbError(error.to_string()))?;
    let client = args.asking.client()?;
    let answer = run(client.ask(Method::POST, "/v1/apply", Some(&body)))??;
    show_applied(&answer, args.asking.form, args.dry_run, out)
}

/// Says which version came, and who does not enforce it.
pub(super) fn show_applied(
    answer: &Value,
    form: Form,
    dry_run: bool,
    out: &mut impl Write,
) -> Result<ExitCode, VerbError> {
    let list = |key: &str| answer.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let enforced = answer.get("enforced").and_then(Value::as_bool);
    let code = if enforced == Some(false) { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    if form == Form::Json {
        writeln!(out, "{answer}")?;
        return Ok(code);
    }
    for warning in list("warnings") {
        writeln!(out, "{}", warning.as_str().unwrap_or_default())?;
    }
    let version = answer.get("version").and_then(Value::as_u64).unwrap_or(0);
    let (changed, gone) = (list("changed").len(), list("gone").len());
    let said = if dry_run { "would be" } else { "is" };
    writeln!(out, "version {version} {said} wanted: {changed} NICs change, {gone} are gone")?;
    for nic in list("pending") {
        let text = |key: &str| nic.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        writeln!(out, "NOT ENFORCED  {} on {}: {}", text("nic"), text("host"), text("why"))?;
    }
    if enforced == Some(true) {
        writeln!(out, "every attached NIC enforces it")?;
    }
    Ok(code)
}

fn documents(path: &Path) -> Result<Vec<PathBuf>, VerbError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files = fs::read_dir(path).map_err(|error| unread(path, &error))?;
    let is_document = |path: &PathBuf| {
        path.extension().is_some_and(|ending| ["yaml", "yml", "json"].iter().any(|known| ending == *known))
    };
    let mut found: Vec<PathBuf> =
        files.filter_map(Result::ok).map(|file| file.path()).filter(is_document).collect();
    found.sort_unstable();
    Ok(found)
}

fn unread(path: &Path, error: &std::io::Error) -> VerbError {
    VerbError(format!("{}: {error}", path.display()))
}
