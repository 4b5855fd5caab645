//! The `vhost-fw` program: read the command line, run the verb, say what went wrong.
use clap::Parser;
fn main() {
    let _ = vhost_fw::config::Cli::parse();
}
