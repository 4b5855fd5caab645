//! `host`: lets a host's agent in, or no more.
//!
//! Knows names of hosts. Never knows certificates.

use std::io::Write;
use std::process::ExitCode;

use hyper::Method;
use serde_json::Value;

use super::asking::{VerbError, escaped, run};
use crate::config::remote::{HostAct, HostArgs};

/// Runs the verb.
///
/// # Errors
/// There is no such host, or serve says no.
pub fn host(args: &HostArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let client = args.asking.client()?;
    let (method, path) = match &args.act {
        HostAct::Invite { host } => (Method::POST, format!("/v1/hosts/{}/invite", escaped(host))),
        HostAct::Revoke { host } => (Method::DELETE, format!("/v1/hosts/{}", escaped(host))),
    };
    let answer = run(client.ask(method, &path, None))??;
    if let Some(word) = answer.get("word").and_then(Value::as_str) {
        writeln!(out, "{word}")?;
    }
    Ok(ExitCode::SUCCESS)
}
