//! `rollback`: a new version of the policy that says what an older one said.
//!
//! Knows versions. Never knows what one says.

use std::io::Write;
use std::process::ExitCode;

use hyper::Method;
use serde_json::json;

use super::apply::show_applied;
use super::asking::{VerbError, run};
use crate::config::remote::RollbackArgs;

/// Runs the verb. 1 if somebody who was waited for does not enforce it.
///
/// # Errors
/// There is no such version, or serve says no.
pub fn rollback(args: &RollbackArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let client = args.asking.client()?;
    let body = json!({"version": args.version, "wait-enforced-s": args.waiting.seconds()});
    let answer = run(client.ask(Method::POST, "/v1/rollback", Some(&body)))??;
    show_applied(&answer, args.asking.form, false, out)
}
