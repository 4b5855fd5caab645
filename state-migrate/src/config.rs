//! What the operator may set.
//!
//! Knows spellings. Never knows what is done with a setting.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fw_model::NicId;

use crate::vmm::VmmSocket;

const EXAMPLES: &str = "\
Examples:
  target$ state-migrate receive --listen 192.0.2.2:7788 --ca ca.pem --cert b.pem --key b.key
  source$ state-migrate migrate --vmm qemu:/run/vm1.qmp --nic web-1 --to host-b:7788 \\
            --vm-to tcp:host-b:4444 --ca ca.pem --cert a.pem --key a.key
  state-migrate export --nic web-1 web-1.conns
  state-migrate inspect web-1.conns --state-key /etc/portcullis/state.key";

/// Move a VM's conn table with it.
#[derive(Debug, Parser)]
#[command(name = "state-migrate", version, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What the program does.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Move a VM to another host, its conns with it
    Migrate(MigrateArgs),
    /// Let VMs and their tables arrive on this host
    Receive(ReceiveArgs),
    /// Say what is in a file of conns
    Inspect(InspectArgs),
    /// Write a running NIC's conns to a file
    Export(FileArgs),
    /// Give a NIC at rest the conns of a file
    Import(FileArgs),
    /// Say how two files of conns differ
    Diff(DiffArgs),
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Who we are to the other host, and whom we believe.
#[derive(Debug, Clone, Args)]
pub struct CredentialArgs {
    /// Certificates of the authorities that the other host's is signed by (PEM)
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// This host's certificate, and those between it and the authority (PEM)
    #[arg(long, value_name = "FILE")]
    pub cert: PathBuf,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

/// A move.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    /// The VMM that has the VM: qemu:SOCKET (QMP) or cloud-hypervisor:SOCKET (API)
    #[arg(long, value_name = "KIND:SOCKET")]
    pub vmm: VmmSocket,
    /// The VM's NICs behind firewalls, all of them
    #[arg(long = "nic", value_name = "ID", required = true)]
    pub nics: Vec<NicId>,
    /// Where `state-migrate receive` listens on the target
    #[arg(long, value_name = "HOST:PORT")]
    pub to: String,
    /// Where the target's VMM waits, in the source VMM's words [what the receiver says]
    #[arg(long, value_name = "URI")]
    pub vm_to: Option<String>,
    /// Who we are, whom we believe.
    #[command(flatten)]
    pub credentials: CredentialArgs,
    /// Tables with so many conns go ahead while the VM runs
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub ahead_from: u64,
    /// Seconds until a move that has not ended is given up
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// Only say whether the target would take the VM
    #[arg(long)]
    pub check: bool,
    /// Leave the source's VMM as it is after the move; else QEMU is told to quit
    #[arg(long)]
    pub keep_source: bool,
    /// Where NICs have their folders
    #[arg(long, value_name = "DIR", default_value = "/run/portcullis")]
    pub run_dir: PathBuf,
    /// How the report is written
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Form,
}

/// The end where VMs arrive.
#[derive(Debug, Clone, Args)]
pub struct ReceiveArgs {
    /// Where the other hosts reach us
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    /// Who we are, whom we believe.
    #[command(flatten)]
    pub credentials: CredentialArgs,
    /// Where NICs have their folders
    #[arg(long, value_name = "DIR", default_value = "/run/portcullis")]
    pub run_dir: PathBuf,
    /// A VMM that waits for a VM: qemu:SOCKET (started with -incoming defer) or cloud-hypervisor:SOCKET
    #[arg(long, value_name = "KIND:SOCKET", requires = "vm_at")]
    pub vmm: Option<VmmSocket>,
    /// Where it is told to wait, as tcp:ADDRESS:PORT or unix:PATH
    #[arg(long, value_name = "URI", requires = "vmm")]
    pub vm_at: Option<String>,
}

/// A file of conns to be shown.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// The file
    pub file: PathBuf,
    /// The cluster's key: without it only the header is shown, unbelieved
    #[arg(long, value_name = "FILE")]
    pub state_key: Option<PathBuf>,
    /// How it is written
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Form,
}

/// Two files of conns.
#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// One
    pub before: PathBuf,
    /// The other
    pub after: PathBuf,
    /// The cluster's key
    #[arg(long, value_name = "FILE")]
    pub state_key: PathBuf,
    /// How it is written
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    pub output: Form,
}

/// A NIC's table and a file.
#[derive(Debug, Clone, Args)]
pub struct FileArgs {
    /// The NIC
    #[arg(long, value_name = "ID", required_unless_present = "control")]
    pub nic: Option<NicId>,
    /// Its control socket [/run/portcullis/<nic>/control.sock]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// The file
    pub file: PathBuf,
}
