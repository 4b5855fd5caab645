//! `state-migrate`: one verb, and its exit code.
//!
//! Knows the verbs by their front doors. Never knows what happens behind one.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use state_migrate::config::{Cli, Form, MigrateArgs, ReceiveArgs, Verb};
use state_migrate::files::FileError;
use state_migrate::receiver::Receiver;
use state_migrate::{diff, files, inspect, orchestrator};

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let mut out = io::stdout().lock();
    match Cli::parse().verb {
        Verb::Migrate(args) => migrate(&args, &mut out),
        Verb::Receive(args) => receive(&args),
        Verb::Inspect(args) => ended(inspect::inspect(&args, &mut out)),
        Verb::Export(args) => ended(files::export(&args).map(|header| {
            let _ = writeln!(
                out,
                "{} conns of NIC {} are in {}",
                header.records,
                header.nic,
                args.file.display()
            );
        })),
        Verb::Import(args) => ended(files::import(&args).map(|()| {
            let _ = writeln!(out, "taken; `vhost-fw ctl stats` says what became of each");
        })),
        // As diff(1): 0 the same, 1 different, 2 trouble.
        Verb::Diff(args) => match diff::diff(&args, &mut out) {
            Ok(differs) => ExitCode::from(u8::from(differs)),
            Err(error) => trouble(&error, 2),
        },
    }
}

fn ended(went: Result<(), FileError>) -> ExitCode {
    match went {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => trouble(&error, 1),
    }
}

fn migrate(args: &MigrateArgs, out: &mut impl Write) -> ExitCode {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        if let Err(error) = flag::register(signal, Arc::clone(&stop)) {
            return trouble(&error, 1);
        }
    }
    match orchestrator::migrate(args, &stop) {
        Ok(report) => {
            let line = match args.output {
                Form::Json => serde_json::to_string(&report).unwrap_or_default(),
                Form::Text if args.check => "the target would take it".to_owned(),
                Form::Text => report.to_string(),
            };
            let _ = writeln!(out, "{line}");
            ExitCode::SUCCESS
        }
        Err(error) => trouble(&error, error.exit_code()),
    }
}

fn receive(args: &ReceiveArgs) -> ExitCode {
    let receiver = match Receiver::new(args) {
        Ok(receiver) => receiver,
        Err(error) => return trouble(&error, 1),
    };
    match receiver.address() {
        Ok(address) => log::info!("VMs may arrive: {address}"),
        Err(error) => log::warn!("listening, but where: {error}"),
    }
    match receiver.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => trouble(&error, 1),
    }
}

fn trouble(error: &dyn std::error::Error, code: u8) -> ExitCode {
    let _ = writeln!(io::stderr(), "state-migrate: {error}");
    ExitCode::from(code)
}
