//! What may be asked of a running NIC, as words of a command line.
//!
//! Knows spellings. Never knows what is answered.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use fw_model::{Direction, HandoverId, NicId};

/// `ctl`.
#[derive(Debug, Args)]
pub struct CtlArgs {
    /// The NIC's id, which names its default socket
    #[arg(long, value_name = "ID", group = "target", required = true)]
    pub nic: Option<NicId>,
    /// The control socket
    #[arg(long, value_name = "PATH", group = "target", required = true)]
    pub control: Option<PathBuf>,
    /// How answers are written
    #[arg(short, long, value_name = "FORM", default_value = "text", global = true)]
    pub output: Form,
    /// What to ask.
    #[command(subcommand)]
    pub verb: CtlVerb,
}

/// How `ctl` writes answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Tables for people.
    Text,
    /// One JSON value.
    Json,
}

/// What `ctl` asks or tells.
#[derive(Debug, Subcommand)]
pub enum CtlVerb {
    /// Put a rules file in force
    Install {
        /// The rules file
        file: PathBuf,
    },
    /// Counters and generations
    Stats,
    /// Living conns
    Conns {
        /// list (if nothing is said) or kill
        #[command(subcommand)]
        verb: Option<ConnsVerb>,
    },
    /// What would happen to a first frame
    Explain {
        /// out or in
        #[arg(value_parser = direction)]
        direction: Direction,
        /// tcp, udp or icmp
        protocol: ProbeProtocol,
        /// SRC[:PORT]; an IPv6 address with a port stands in brackets
        source: String,
        /// DST[:PORT]
        destination: String,
    },
    /// Stop reading rings and uplink; timers run on
    Freeze,
    /// Go on after a freeze
    Thaw,
    /// Let a new version of this program take over, unseen by the VMM (with --keeper)
    Upgrade,
    /// Name the handover of a table that leaves or arrives
    Handover {
        /// What is named.
        #[command(subcommand)]
        verb: HandoverVerb,
    },
}

/// What is said of a handover.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum HandoverVerb {
    /// The next table that leaves belongs to it
    Announce {
        /// 32 hexadecimal digits
        id: HandoverId,
    },
    /// The next table that arrives must be its; it is believed exactly, once
    Expect {
        /// 32 hexadecimal digits
        id: HandoverId,
    },
}

/// What is done with conns.
#[derive(Debug, Clone, Subcommand)]
pub enum ConnsVerb {
    /// Show those that match everything written
    List {
        /// proto=tcp local=PREFIX remote=PREFIX port=N rule=ID
        words: Vec<String>,
    },
    /// Close those that match everything written
    Kill {
        /// As for list; the word all for every conn
        #[arg(required = true)]
        words: Vec<String>,
    },
}

/// The protocols `explain` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProbeProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// An echo request of the addresses' family.
    Icmp,
}

fn direction(text: &str) -> Result<Direction, String> {
    match text {
        "out" => Ok(Direction::Out),
        "in" => Ok(Direction::In),
        _ => Err("expected out or in".to_owned()),
    }
}
