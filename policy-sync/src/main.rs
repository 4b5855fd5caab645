//! `policy-sync`: one verb, and its exit code.
//!
//! Knows the verbs by their front doors. Never knows what happens behind one.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use clap::Parser;
use policy_sync::config::{Cli, Verb};
use policy_sync::verbs::{
    apply, audit, compile, coverage, daemon, diff, doctor, explain, explain_enforced, facts, get, history,
    host, paper, rollback, token, watch, who,
};

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    // Unlocked: daemons log to the same place from other threads.
    let (mut out, mut notes) = (io::stdout(), io::stderr());
    let ended = run(Cli::parse().verb, &mut out, &mut notes);
    ended.unwrap_or_else(|error| {
        let _ = io::Write::write_fmt(&mut notes, format_args!("policy-sync: {error}\n"));
        ExitCode::from(2)
    })
}

fn run(verb: Verb, out: &mut impl io::Write, notes: &mut impl io::Write) -> Result<ExitCode, Box<dyn Error>> {
    Ok(match verb {
        Verb::Compile(args) => compile::compile(&args, out, notes)?,
        Verb::Explain(args) if args.files.is_empty() => explain_enforced::explain(&args, out)?,
        Verb::Explain(args) => explain::explain(&args, out, notes)?,
        Verb::Diff(args) => diff::diff(&args, out, notes)?,
        Verb::Serve(args) => daemon::serve(&args)?,
        Verb::Agent(args) => daemon::agent(&args)?,
        Verb::Enrol(args) => daemon::enrol(&args, out)?,
        Verb::Apply(args) => apply::apply(&args, out)?,
        Verb::Get(args) => get::get(&args, out)?,
        Verb::Who(args) => who::who(&args, out)?,
        Verb::Facts(args) => facts::facts(&args, out)?,
        Verb::History(args) => history::history(&args, out)?,
        Verb::Rollback(args) => rollback::rollback(&args, out)?,
        Verb::Watch(args) => watch::watch(&args, out)?,
        Verb::Coverage(args) => coverage::coverage(&args, out)?,
        Verb::Audit(args) => audit::audit(&args, out)?,
        Verb::Host(args) => host::host(&args, out)?,
        Verb::Token(args) => token::token(&args, out)?,
        Verb::Doctor(args) => doctor::doctor(&args, out)?,
        Verb::Completions(args) => paper::completions(&args, out)?,
        Verb::Man(args) => paper::man(&args)?,
    })
}
