//! `policy-sync`: one verb, and its exit code.
//!
//! Knows the verbs by their front doors. Never knows what happens behind one.

use std::io;
use std::process::ExitCode;

use clap::Parser;
use policy_sync::config::{Cli, Verb};
use policy_sync::verbs::{compile, diff, explain};

fn main() -> ExitCode {
    let (mut out, mut notes) = (io::stdout().lock(), io::stderr().lock());
    let ended = match Cli::parse().verb {
        Verb::Compile(args) => compile::compile(&args, &mut out, &mut notes),
        Verb::Explain(args) => explain::explain(&args, &mut out, &mut notes),
        Verb::Diff(args) => diff::diff(&args, &mut out, &mut notes),
    };
    ended.unwrap_or_else(|error| {
        let _ = io::Write::write_fmt(&mut notes, format_args!("policy-sync: {error}\n"));
        ExitCode::from(2)
    })
}
