//! `history`: who made which version of the policy, when and what for.
//!
//! Never changes anything.

use std::io::Write;
use std::process::ExitCode;

use super::asking::{VerbError, run, show};
use crate::config::remote::HistoryArgs;

/// Runs the verb.
///
/// # Errors
/// Serve says no.
pub fn history(args: &HistoryArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let client = args.asking.client()?;
    let rows = run(client.get(&format!("/v1/history?count={}", args.count)))??;
    show(out, args.asking.form, &rows, &["version", "at_ms", "who", "note"])
}
