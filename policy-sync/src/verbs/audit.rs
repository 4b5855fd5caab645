//! `audit`: who did what, and whether the log is whole.
//!
//! Never changes anything.

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

use super::asking::{VerbError, run, show};
use crate::config::Form;
use crate::config::remote::PlainArgs;

/// Runs the verb. 1 if a line was altered or is missing.
///
/// # Errors
/// Serve says no.
pub fn audit(args: &PlainArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let client = args.asking.client()?;
    let answer = run(client.get("/v1/audit"))??;
    let altered = answer.get("first_altered").and_then(Value::as_u64);
    let form = args.asking.form;
    let lines = answer.get("lines").cloned().unwrap_or_default();
    show(out, form, if form == Form::Json { &answer } else { &lines }, &["number", "at_ms", "who", "what"])?;
    match (altered, form) {
        (Some(line), Form::Text) => writeln!(out, "ALTERED from line {line} on")?,
        (None, Form::Text) => writeln!(out, "whole: every line follows from the one before")?,
        (_, Form::Json) => {}
    }
    Ok(if altered.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
