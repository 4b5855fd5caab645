//! `watch`: a line for every new version of the policy, with who does not enforce it yet.
//!
//! Runs until it is interrupted. Never changes anything.

use std::io::Write;
use std::process::ExitCode;

use serde_json::Value;

use super::asking::{VerbError, run};
use crate::config::Form;
use crate::config::remote::PlainArgs;

/// Runs the verb.
///
/// # Errors
/// Serve says no, or is gone.
pub fn watch(args: &PlainArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let client = args.asking.client()?;
    let mut known = 0;
    loop {
        let answer = run(client.get(&format!("/v1/watch?version={known}")))??;
        let version = answer.get("version").and_then(Value::as_u64).unwrap_or(0);
        if version == known {
            continue;
        }
        known = version;
        let pending = answer.get("pending").and_then(Value::as_array).map_or(0, Vec::len);
        match args.asking.form {
            Form::Json => writeln!(out, "{answer}")?,
            Form::Text => writeln!(out, "version {version}: {pending} attached NICs do not enforce it yet")?,
        }
        out.flush()?;
    }
}
