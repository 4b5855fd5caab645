//! `token`: makes a token for somebody, or ends one.
//!
//! Knows names and roles. Never keeps a secret.

use std::io::Write;
use std::process::ExitCode;

use hyper::Method;
use serde_json::{Value, json};

use super::asking::{VerbError, escaped, run};
use crate::config::remote::{TokenAct, TokenArgs};

/// Runs the verb.
///
/// # Errors
/// There is no such token, the name is taken, or serve says no.
pub fn token(args: &TokenArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let client = args.asking.client()?;
    let answer = match &args.act {
        TokenAct::Add { name, role, tenant, expires_in_s } => {
            let body = json!({"name": name, "role": role, "tenant": tenant, "expires-in-s": expires_in_s});
            run(client.ask(Method::POST, "/v1/tokens", Some(&body)))??
        }
        TokenAct::Remove { name } => {
            run(client.ask(Method::DELETE, &format!("/v1/tokens/{}", escaped(name)), None))??
        }
    };
    if let Some(secret) = answer.get("token").and_then(Value::as_str) {
        writeln!(out, "{secret}")?;
    }
    Ok(ExitCode::SUCCESS)
}
