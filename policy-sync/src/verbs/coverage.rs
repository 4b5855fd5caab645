//! `coverage`: what on each host is not behind the firewall.
//!
//! Never changes anything.

use std::io::Write;
use std::process::ExitCode;

use super::asking::{VerbError, run, show};
use crate::config::remote::PlainArgs;

/// Runs the verb.
///
/// # Errors
/// Serve says no.
pub fn coverage(args: &PlainArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let client = args.asking.client()?;
    let rows = run(client.get("/v1/hosts"))??;
    show(out, args.asking.form, &rows, &["host", "connected", "unprotected"])
}
