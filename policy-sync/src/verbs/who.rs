//! `who`: who is in a group, and by what.
//!
//! Never changes anything.

use std::io::Write;
use std::process::ExitCode;

use super::asking::{VerbError, escaped, run, show};
use crate::config::remote::WhoArgs;

/// Runs the verb.
///
/// # Errors
/// There is no such group, or serve says no.
pub fn who(args: &WhoArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let Some((owner, group)) = args.group.split_once('/') else {
        return Err(VerbError(format!("`{}`: expected OWNER/GROUP, as shop/web", args.group)));
    };
    let client = args.asking.client()?;
    let rows = run(client.get(&format!("/v1/groups/{}/{}", escaped(owner), escaped(group))))??;
    show(out, args.asking.form, &rows, &["workload", "addresses", "why"])
}
