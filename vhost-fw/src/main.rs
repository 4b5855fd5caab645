//! The `vhost-fw` program: read the command line, run the verb, say what went wrong.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use vhost_fw::config::{Cli, DeviceArgs, Verb};
use vhost_fw::{ctl, nic, reasons, run, simulate};

/// Wrong words on the command line, a wrong file.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.verb {
        Some(Verb::Simulate(args)) => {
            told(simulate::run(&args, io::stdin().lock(), io::stdout().lock()), |_| USAGE)
        }
        Some(Verb::Ctl(args)) => told(ctl::run(&args, io::stdout().lock()), ctl::CtlError::exit_code),
        Some(Verb::Nic(args)) => told(nic::run(&args, io::stdout().lock()), nic::NicError::exit_code),
        Some(Verb::Reasons) => told(io::stdout().write_all(reasons::document().as_bytes()), |_| 1),
        None => device(cli.device),
    }
}

fn device(args: DeviceArgs) -> ExitCode {
    let config = match args.resolve() {
        Ok(config) => config,
        Err(error) => return told(Err(error), |_| USAGE),
    };
    env_logger::Builder::new().filter_level(config.log_level).init();
    if config.check {
        let said = run::check(&config).map(|summary| writeln!(io::stdout(), "{summary}"));
        return told(said.map(drop), |_| USAGE);
    }
    told(run::run(&config), run::RunError::exit_code)
}

/// Success, or the error on stderr and its exit code.
fn told<E: std::fmt::Display>(result: Result<(), E>, code: impl FnOnce(&E) -> u8) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "vhost-fw: {error}");
            ExitCode::from(code(&error))
        }
    }
}
