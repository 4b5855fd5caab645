//! `doctor`: what is wrong with this host, and what to do about it.
//!
//! Knows what Portcullis needs of a host. Never changes anything.

mod certificates;
mod host;

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Value, json};

use super::asking::{VerbError, run, show};
use crate::clock::now_ms;
use crate::config::Form;
use crate::config::remote::DoctorArgs;

/// Clocks further apart than this make certificates and expiry unreliable.
const CLOCKS_APART_MS: i64 = 5_000;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// As it shall be.
    Ok,
    /// It works; somebody should know.
    Note,
    /// Something does not work, or not as it says.
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    found: String,
    #[serde(rename = "do")]
    remedy: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), remedy: String::new() }
    }

    fn note(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Note, found: found.into(), remedy: remedy.into() }
    }

    fn wrong(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, state: State::Wrong, found: found.into(), remedy: remedy.into() }
    }
}

/// Runs the verb. 1 if something is wrong.
///
/// # Errors
/// The findings cannot be written.
pub fn doctor(args: &DoctorArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let mut findings = host::findings(std::path::Path::new("/"), &args.run_dir);
    findings.extend(certificates::findings(&args.state_dir, &args.asking.ca, now_ms()));
    findings.extend(serve(args));
    let rows = json!(findings);
    show(out, args.asking.form, &rows, &["check", "state", "found", "do"])?;
    let wrong = findings.iter().filter(|finding| finding.state == State::Wrong).count();
    if args.asking.form == Form::Text {
        writeln!(out, "{wrong} of {} are wrong", findings.len())?;
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether serve answers, with which version, and whether its clock is ours.
fn serve(args: &DoctorArgs) -> Vec<Finding> {
    let asking = &args.asking;
    if !asking.ca.exists() {
        let found = format!("{} is not there: serve was not asked", asking.ca.display());
        return vec![Finding::note("serve", found, "name the authority's certificate with --ca")];
    }
    let client =
        crate::client::Client { serve: asking.serve.clone(), authority: asking.ca.clone(), token: None };
    let before = now_ms();
    let health = run(client.get("/v1/health")).map_err(|error| error.to_string());
    match health.and_then(|answer| answer.map_err(|error| error.to_string())) {
        Ok(health) => told(&health, i64::midpoint(before, now_ms())),
        Err(why) => {
            let remedy =
                "start `policy-sync serve`, or name it with --serve; NICs go on with what they enforce";
            vec![Finding::wrong("serve", why, remedy)]
        }
    }
}

fn told(health: &Value, now_ms: i64) -> Vec<Finding> {
    let (ours, theirs) = (env!("CARGO_PKG_VERSION"), health.get("version").and_then(Value::as_str));
    let version = match theirs {
        Some(theirs) if theirs == ours => {
            Finding::ok("versions", format!("serve and this program are {ours}"))
        }
        theirs => Finding::note(
            "versions",
            format!("serve is {}, this program {ours}", theirs.unwrap_or("of no version it tells")),
            "bring both to one version, serve first",
        ),
    };
    let apart = health.get("now_ms").and_then(Value::as_i64).map(|theirs| (theirs - now_ms).abs());
    let clock = match apart {
        Some(apart) if apart <= CLOCKS_APART_MS => Finding::ok("clock", format!("{apart} ms from serve's")),
        Some(apart) => Finding::wrong(
            "clock",
            format!("{} s from serve's", apart / 1000),
            "let both hosts follow one time source (chrony, systemd-timesyncd)",
        ),
        None => Finding::note("clock", "serve does not tell its time", "bring serve to this version"),
    };
    vec![Finding::ok("serve", "answers"), version, clock]
}
