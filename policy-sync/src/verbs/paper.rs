//! `completions` and `man`: shell completions and man pages, made from the command line itself.
//!
//! Knows clap's description of the verbs. Never repeats one.

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::CommandFactory;

use super::asking::VerbError;
use crate::config::{Cli, CompletionsArgs, ManArgs};

/// Prints the completions of a shell.
///
/// # Errors
/// They cannot be written.
pub fn completions(args: &CompletionsArgs, out: &mut impl Write) -> Result<ExitCode, VerbError> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "policy-sync", &mut text);
    out.write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes a man page for the program and one for every verb into a folder.
///
/// # Errors
/// They cannot be written.
pub fn man(args: &ManArgs) -> Result<ExitCode, VerbError> {
    fs::create_dir_all(&args.out)?;
    let told = |error: io::Error| VerbError(format!("{}: {error}", args.out.display()));
    clap_mangen::generate_to(Cli::command(), &args.out).map_err(told)?;
    Ok(ExitCode::SUCCESS)
}
