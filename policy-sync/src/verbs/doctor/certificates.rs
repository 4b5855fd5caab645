//! Certificates on this host, and how long they are good.
//!
//! Knows files. Never knows whom a certificate lets in.

use std::path::Path;

use x509_parser::pem::Pem;

use super::Finding;
use crate::authority;

/// An agent renews after 10 of 30 days: with fewer left than this it has failed for long.
const WARN_DAYS: i64 = 10;
const DAY_S: i64 = 24 * 3600;

pub(super) fn findings(agent: &Path, authority: &Path, now_ms: i64) -> Vec<Finding> {
    let own = agent.join("agent.pem");
    let renew = "the agent renews it by itself while it reaches serve; else `policy-sync host invite` and `policy-sync enrol` again";
    let mut found = vec![if own.exists() {
        finding("agent certificate", &own, now_ms, renew)
    } else {
        let text = format!("{} is not there: no agent is enrolled here", own.display());
        Finding::note("agent certificate", text, "where this host has NICs: `policy-sync enrol`")
    }];
    if authority.exists() {
        let remedy = "make a new authority for serve, and enrol every host again";
        found.push(finding("authority", authority, now_ms, remedy));
    }
    found
}

fn finding(check: &'static str, path: &Path, now_ms: i64, remedy: &str) -> Finding {
    let now_s = now_ms.div_euclid(1000);
    let shown = path.display();
    match validity(path) {
        Err(why) => Finding::wrong(check, format!("{shown}: {why}"), remedy),
        Ok((from, _)) if now_s < from => {
            Finding::wrong(check, format!("{shown} is not good yet"), "set this host's clock")
        }
        Ok((_, until)) if now_s >= until => Finding::wrong(check, format!("{shown} has expired"), remedy),
        Ok((_, until)) => {
            let days = (until - now_s) / DAY_S;
            let text = format!("{shown} is good for {days} days");
            if days < WARN_DAYS { Finding::note(check, text, remedy) } else { Finding::ok(check, text) }
        }
    }
}

/// From when and until when the first certificate of a file is good, seconds since 1970.
fn validity(path: &Path) -> Result<(i64, i64), String> {
    let text = authority::read(path).map_err(|error| error.to_string())?;
    let mut parts = Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok);
    let pem = parts.find(|pem| pem.label == "CERTIFICATE").ok_or("there is no certificate in it")?;
    let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
    let validity = certificate.validity();
    Ok((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_certificate_is_good_then_runs_out_then_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let authority = authority::Authority::open(folder.path()).unwrap();
        let (_, request) = authority::request().unwrap();
        let chain = authority.for_agent(&request, "host-a").unwrap();
        std::fs::write(folder.path().join("agent.pem"), chain).unwrap();
        let now = crate::clock::now_ms();
        let at = |days: i64| findings(folder.path(), &folder.path().join("none"), now + days * DAY_S * 1000);
        let states = [0, 25, 31, -400].map(|days| at(days)[0].state);
        assert_eq!(states, [State::Ok, State::Note, State::Wrong, State::Wrong]);
    }
}
