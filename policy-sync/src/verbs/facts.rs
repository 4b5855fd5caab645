//! `facts`: facts and labels of workloads: listed, set, taken away.
//!
//! Knows keys and values. Never knows which group looks at them.

use std::io::Write;
use std::process::ExitCode;

use hyper::Method;
use serde_json::json;

use super::apply::show_applied;
use super::asking::{VerbError, escaped, run, show};
use crate::config::remote::{FactsAct, FactsArgs, Tagging};

/// Runs the verb. 1 if somebody who was waited for does not enforce it.
///
/// # Errors
/// There is no such workload or key, the value is none of the key's, or serve says no.
pub fn facts(args: &FactsArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let client = args.asking.client()?;
    let form = args.asking.form;
    let (method, path, body) = match &args.act {
        FactsAct::List { workload } => {
            let which =
                workload.as_ref().map_or_else(String::new, |name| format!("?workload={}", escaped(name)));
            let rows = run(client.get(&format!("/v1/workloads{which}")))??;
            return show(out, form, &rows, &["workload", "kind", "key", "value", "author", "place"]);
        }
        FactsAct::Set { workload, pair, how } => {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| VerbError(format!("`{pair}`: expected KEY=VALUE, as infected=yes")))?;
            (Method::PUT, path(workload, key, how), Some(json!({"value": value})))
        }
        FactsAct::Remove { workload, key, how } => (Method::DELETE, path(workload, key, how), None),
    };
    let answer = run(client.ask(method, &path, body.as_ref()))??;
    show_applied(&answer, form, false, out)
}

fn path(workload: &str, key: &str, how: &Tagging) -> String {
    let kind = if how.label { "labels" } else { "facts" };
    let wait =
        how.waiting.seconds().map_or_else(String::new, |seconds| format!("?wait-enforced-s={seconds}"));
    format!("/v1/workloads/{}/{kind}/{}{wait}", escaped(workload), escaped(key))
}
