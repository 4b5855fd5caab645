//! `vhost-fw ctl`: one question to a running NIC, and its answer for people or programs.
//!
//! Knows words, files and the control socket. Never knows how the NIC does what it is told.

pub(crate) mod table;
mod words;

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use fw_control::{Line, Reply, Request};
use serde::Serialize;

use crate::config::{ConnsVerb, CtlArgs, CtlVerb, Form, HandoverVerb, default_control};
use crate::rules_file;
use crate::simulate;

/// The NIC answers at once; building a million prefixes takes it seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why a verb did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The words make no sense; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The NIC, or the way to it, refused; exit code 1.
    #[error("{0}")]
    Refused(String),
}

impl CtlError {
    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
        }
    }
}

/// Does what the command line asks.
///
/// # Errors
/// See [`CtlError`].
pub fn run(args: &CtlArgs, mut out: impl Write) -> Result<(), CtlError> {
    let path = args.control.clone().or_else(|| args.nic.as_ref().map(default_control));
    let path = path.ok_or_else(|| CtlError::Usage("name the NIC: --nic ID or --control PATH".to_owned()))?;
    // Wrong words are told before anybody is asked.
    let request = match &args.verb {
        CtlVerb::Install { .. } | CtlVerb::Stats => Request::Stats,
        CtlVerb::Conns { verb: None } => Request::Conns(words::filter(&[])?),
        CtlVerb::Conns { verb: Some(ConnsVerb::List { words }) } => Request::Conns(words::filter(words)?),
        CtlVerb::Conns { verb: Some(ConnsVerb::Kill { words }) } => Request::Kill(words::kill_filter(words)?),
        CtlVerb::Explain { direction, protocol, source, destination } => {
            Request::Explain(words::probe(*direction, *protocol, source, destination)?)
        }
        CtlVerb::Upgrade => Request::Upgrade,
        CtlVerb::Freeze => Request::Freeze,
        CtlVerb::Thaw => Request::Thaw,
        CtlVerb::Handover { verb: HandoverVerb::Announce { id } } => Request::AnnounceHandover(*id),
        CtlVerb::Handover { verb: HandoverVerb::Expect { id } } => Request::ExpectHandover(*id),
    };
    let mut nic = Line::open(&path, PATIENCE).map_err(|error| unreachable_nic(&path, &error))?;
    let mut reply = ask(&mut nic, &path, &request)?;
    if let CtlVerb::Install { file } = &args.verb {
        reply = ask(&mut nic, &path, &install(file, &reply)?)?;
    }
    if matches!(args.verb, CtlVerb::Upgrade) {
        reply = nic.hear().map_err(|error| unreachable_nic(&path, &error))?;
        if let Reply::Refused(why) = reply {
            return Err(CtlError::Refused(why));
        }
    }
    let written = match args.output {
        Form::Json => json(&reply, &mut out),
        Form::Text => table::write(&reply, &mut out),
    };
    written.map_err(|error| CtlError::Refused(format!("stdout: {error}")))
}

/// The rules of `file`, of the generation after the one in force unless the file says its own.
fn install(file: &Path, stats: &Reply) -> Result<Request, CtlError> {
    let in_force = if let Reply::Stats(stats) = stats { stats.generation.unwrap_or(0) } else { 0 };
    let rules = rules_file::load(file, in_force).map_err(|error| CtlError::Refused(error.to_string()))?;
    Ok(Request::Install(Box::new(rules)))
}

fn ask(nic: &mut Line, path: &Path, request: &Request) -> Result<Reply, CtlError> {
    let reply = nic.ask(request).map_err(|error| unreachable_nic(path, &error))?;
    if let Reply::Refused(why) = reply { Err(CtlError::Refused(why)) } else { Ok(reply) }
}

fn unreachable_nic(path: &Path, error: &io::Error) -> CtlError {
    CtlError::Refused(format!("{}: {error}; is the NIC up, and are you its user or root?", path.display()))
}

fn json(reply: &Reply, out: &mut impl Write) -> io::Result<()> {
    match reply {
        Reply::Stats(stats) => line(stats, out),
        Reply::Conns(conns) => line(conns, out),
        Reply::Explanation(explanation) => line(&simulate::Line::from(explanation.clone()), out),
        Reply::Enforced(generation) => line(&serde_json::json!({"enforced": generation}), out),
        Reply::Killed(conns) => line(&serde_json::json!({"killed": conns}), out),
        Reply::Terms(terms) => line(terms, out),
        Reply::Done => line(&serde_json::json!({"done": true}), out),
        Reply::Refused(why) => line(&serde_json::json!({"refused": why}), out),
    }
}

fn line(value: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}
