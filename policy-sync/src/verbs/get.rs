//! `get`: documents, NICs, rules and hosts as serve knows them.
//!
//! Knows what may be read. Never changes anything.

use std::io::Write;
use std::process::ExitCode;

use super::asking::{VerbError, escaped, run, show};
use crate::config::Form;
use crate::config::remote::GetArgs;

/// Runs the verb.
///
/// # Errors
/// There is no such thing, or serve says no.
pub fn get(args: &GetArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let client = args.asking.client()?;
    let form = args.asking.form;
    let at = args.version.map_or_else(String::new, |version| format!("?version={version}"));
    let ask = |path: String| run(client.get(&path))?.map_err(VerbError::from);
    if args.what == "documents" {
        let answer = ask(format!("/v1/policy{at}"))?;
        let rows = answer.get("documents").cloned().unwrap_or_default();
        return show(out, form, if form == Form::Json { &answer } else { &rows }, &["owner", "name", "etag"]);
    }
    if args.what == "nics" {
        let columns = ["nic", "wanted", "enforced", "host", "problem"];
        return show(out, form, &ask("/v1/nics".to_owned())?, &columns);
    }
    if args.what == "hosts" {
        let columns = ["host", "connected", "revoked", "version", "enrolled_ms"];
        return show(out, form, &ask("/v1/hosts".to_owned())?, &columns);
    }
    let Some((first, second)) = args.what.split_once('/') else {
        return Err(VerbError(format!(
            "`{}`: expected documents, OWNER/NAME, nics, rules/NIC or hosts",
            args.what
        )));
    };
    let (owner, name) = (escaped(first), escaped(second));
    match first {
        "rules" => writeln!(out, "{:#}", ask(format!("/v1/nics/{name}/rules"))?)?,
        _ => {
            let answer = ask(format!("/v1/documents/{owner}/{name}{at}"))?;
            write!(out, "{}", answer.as_str().unwrap_or_default())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
