//! The command line.
//!
//! Knows every flag of every verb. Never knows what is done with them.

pub mod remote;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// One policy for every NIC: rules about groups, compiled for each.
#[derive(Debug, Parser)]
#[command(name = "policy-sync", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Check a policy and write each NIC's rules.
    Compile(CompileArgs),
    /// May one speak to another, and why: asked of the engines at both ends, or of files.
    Explain(ExplainArgs),
    /// What another policy would change, NIC by NIC.
    Diff(DiffArgs),
    /// Keep the one policy, and bring every NIC to it through the hosts' agents.
    Serve(remote::ServeArgs),
    /// Keep this host's NICs at the policy that serve keeps.
    Agent(remote::AgentArgs),
    /// Get this host's agent its certificate, with a word from `host invite`.
    Enrol(remote::EnrolArgs),
    /// Change the policy, whole or not at all.
    Apply(remote::ApplyArgs),
    /// Show documents, NICs, rules and hosts.
    Get(remote::GetArgs),
    /// Who is in a group, and by what.
    Who(remote::WhoArgs),
    /// Facts and labels of workloads: list, set, remove.
    Facts(remote::FactsArgs),
    /// Who made which version, when and what for.
    History(remote::HistoryArgs),
    /// Make a new version that says what an older one said.
    Rollback(remote::RollbackArgs),
    /// A line for every new version.
    Watch(remote::PlainArgs),
    /// What on each host is not behind the firewall.
    Coverage(remote::PlainArgs),
    /// Who did what, and whether that log is whole.
    Audit(remote::PlainArgs),
    /// Let a host's agent in, or no more.
    Host(remote::HostArgs),
    /// Make or end tokens.
    Token(remote::TokenArgs),
    /// What is wrong with this host, and what to do about it.
    Doctor(remote::DoctorArgs),
    /// Print the completions of a shell.
    Completions(CompletionsArgs),
    /// Write man pages, one for each verb, into a folder.
    Man(ManArgs),
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// `compile`.
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// A file of policy documents (YAML or JSON), or a folder of them; may be repeated.
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// Print this NIC's rules file; may be repeated. Without it and without --out: a table of NICs.
    #[arg(long = "nic", value_name = "ID")]
    pub nics: Vec<String>,
    /// Write a rules file for every NIC, ID.json, into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "nics")]
    pub out: Option<PathBuf>,
    /// The generation the rules files carry.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub generation: u64,
    /// A warning is an error.
    #[arg(long)]
    pub strict: bool,
    /// How the table is written.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Form::Text)]
    pub form: Form,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Where serve is, and how the answer is written.
    #[command(flatten)]
    pub asking: remote::Asking,
    /// Ask these documents and no engine: a file (YAML or JSON) or a folder of them; may be repeated.
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// Who opens: a workload, a NIC or an address.
    #[arg(value_name = "SRC")]
    pub source: String,
    /// Who is spoken to: a workload, a NIC or an address.
    #[arg(value_name = "DST")]
    pub destination: String,
    /// On what: tcp/443, udp/53, icmp/echo-request, or a service's name.
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

/// `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// The folder; made if absent.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// `diff`.
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// The new policy: a file of documents or a folder of them; may be repeated.
    #[arg(short, long = "file", value_name = "PATH", required = true)]
    pub files: Vec<PathBuf>,
    /// The policy it is compared with; may be repeated.
    #[arg(long, value_name = "PATH", required = true)]
    pub against: Vec<PathBuf>,
    /// How the changes are written.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Form::Text)]
    pub form: Form,
}
