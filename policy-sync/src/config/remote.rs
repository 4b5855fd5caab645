//! The flags of the daemons, and of the verbs that ask serve.
//!
//! Knows flags. Never knows what is done with them.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Form;

/// `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Where people ask, over HTTPS.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// Where agents ask, over gRPC with certificates at both ends.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8444")]
    pub listen_agents: SocketAddr,
    /// The folder of the database, the authority and the first admin's token.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/portcullis/serve")]
    pub state_dir: PathBuf,
    /// A name or address in serve's certificate; may be repeated.
    #[arg(long = "name", value_name = "NAME", default_values = ["localhost", "127.0.0.1"])]
    pub names: Vec<String>,
    /// A certificate chain of your own for people, PEM, in place of one by our authority.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
}

/// `agent`.
#[derive(Debug, Clone, Args)]
pub struct AgentArgs {
    /// Where serve listens for agents, HOST:PORT; HOST is a name in its certificate.
    #[arg(long, value_name = "HOST:PORT")]
    pub serve: String,
    /// The folder of this agent's certificate and of the policy it keeps.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/portcullis/agent")]
    pub state_dir: PathBuf,
    /// The folder with a folder per NIC.
    #[arg(long, value_name = "DIR", default_value = "/run/portcullis")]
    pub run_dir: PathBuf,
}

/// `enrol`.
#[derive(Debug, Clone, Args)]
pub struct EnrolArgs {
    /// Where serve listens for people, HOST:PORT.
    #[arg(long, value_name = "HOST:PORT")]
    pub serve: String,
    /// The authority's certificate, copied from serve's host (ca.pem).
    #[arg(long, value_name = "FILE")]
    pub ca: PathBuf,
    /// A file with the word that `policy-sync host invite` printed.
    #[arg(long, value_name = "FILE")]
    pub word_file: PathBuf,
    /// The folder for this agent's certificate.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/portcullis/agent")]
    pub state_dir: PathBuf,
}

/// Where serve is, and who asks.
#[derive(Debug, Clone, Args)]
pub struct Asking {
    /// Where serve listens for people.
    #[arg(long, value_name = "HOST:PORT", env = "PORTCULLIS_SERVE", default_value = "localhost:8443")]
    pub serve: String,
    /// The certificate of the authority that serve's is by.
    #[arg(
        long,
        value_name = "FILE",
        env = "PORTCULLIS_CA",
        default_value = "/var/lib/portcullis/serve/ca.pem"
    )]
    pub ca: PathBuf,
    /// A file with the token.
    #[arg(
        long,
        value_name = "FILE",
        env = "PORTCULLIS_TOKEN_FILE",
        default_value = "/var/lib/portcullis/serve/admin.token"
    )]
    pub token_file: PathBuf,
    /// How answers are written.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Form::Text)]
    pub form: Form,
}

/// Whether a change is waited for.
#[derive(Debug, Clone, Args)]
pub struct Waiting {
    /// Wait until every attached NIC enforces it; exit code 1 names those that do not.
    #[arg(long, value_name = "WHAT", value_parser = ["enforced"])]
    pub wait: Option<String>,
    /// The longest wait, seconds.
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub timeout_s: u64,
}

impl Waiting {
    /// For how many seconds at most; `None`: not at all.
    pub(crate) fn seconds(&self) -> Option<u64> {
        self.wait.as_ref().map(|_| self.timeout_s)
    }
}

/// `apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// Where serve is.
    #[command(flatten)]
    pub asking: Asking,
    /// A document (YAML or JSON), or a folder of them; may be repeated. Its name is the file's, without the ending.
    #[arg(short, long = "file", value_name = "PATH")]
    pub files: Vec<PathBuf>,
    /// Who owns the documents: a tenant, or `provider`.
    #[arg(long, value_name = "OWNER", default_value = "provider")]
    pub owner: String,
    /// The name of a document of that owner that goes; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub remove: Vec<String>,
    /// The version this was made for; refused if there is a newer one.
    #[arg(long, value_name = "N")]
    pub base: Option<u64>,
    /// What for; `history` shows it.
    #[arg(short = 'm', long, value_name = "TEXT", default_value = "")]
    pub note: String,
    /// Say what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Whether to wait.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `get`.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// Where serve is.
    #[command(flatten)]
    pub asking: Asking,
    /// `documents`, `OWNER/NAME` for one document, `nics`, `rules/NIC`, `hosts`.
    pub what: String,
    /// An older version of documents.
    #[arg(long, value_name = "N")]
    pub version: Option<u64>,
}

/// `who`.
#[derive(Debug, Clone, Args)]
pub struct WhoArgs {
    /// Where serve is.
    #[command(flatten)]
    pub asking: Asking,
    /// The group, as OWNER/GROUP.
    #[arg(value_name = "GROUP")]
    pub group: String,
}

/// `facts`.
#[derive(Debug, Clone, Args)]
pub struct FactsArgs {
    /// Where serve is.
    #[command(flatten)]
    pub asking: Asking,
    /// What to do.
    #[command(subcommand)]
    pub act: FactsAct,
}

/// What is done about facts and labels.
#[derive(Debug, Clone, Subcommand)]
pub enum FactsAct {
    /// All of them, each with who wrote it and where.
    List {
        /// Of this workload alone.
        workload: Option<String>,
    },
    /// Set one.
    Set {
        /// The workload.
        workload: String,
        /// Key and value.
        #[arg(value_name = "KEY=VALUE")]
        pair: String,
        /// Which kind, and whether to wait.
        #[command(flatten)]
        how: Tagging,
    },
    /// Take one away that was set so.
    Remove {
        /// The workload.
        workload: String,
        /// Its key.
        key: String,
        /// Which kind, and whether to wait.
        #[command(flatten)]
        how: Tagging,
    },
}

/// How a fact or label is set.
#[derive(Debug, Clone, Args)]
pub struct Tagging {
    /// It is a label, not a fact.
    #[arg(long)]
    pub label: bool,
    /// Whether to wait.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// `history`.
#[derive(Debug, Clone, Args)]
pub struct HistoryArgs {
    /// Where serve is.
    #[command(flatten)]
    pub asking: Asking,
    /// How many versions.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub count: u32,
}

/// `rollback`.
#[derive(Debug, Clone, Args)]
pub struct RollbackArgs {
    /// Where serve is.
    #[command(flatten)]
    pub asking: Asking,
    /// The version whose documents come again.
    pub version: u64,
    /// Whether to wait.
    #[command(flatten)]
    pub waiting: Waiting,
}

/// Verbs with nothing but where serve is.
#[derive(Debug, Clone, Args)]
pub struct PlainArgs {
    /// Where serve is.
    #[command(flatten)]
    pub asking: Asking,
}

/// `doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Where serve is.
    #[command(flatten)]
    pub asking: Asking,
    /// The folder of this host's agent.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/portcullis/agent")]
    pub state_dir: PathBuf,
    /// The folder with a folder per NIC.
    #[arg(long, value_name = "DIR", default_value = "/run/portcullis")]
    pub run_dir: PathBuf,
}

/// `host`.
#[derive(Debug, Clone, Args)]
pub struct HostArgs {
    /// Where serve is.
    #[command(flatten)]
    pub asking: Asking,
    /// What to do.
    #[command(subcommand)]
    pub act: HostAct,
}

/// What is done about hosts.
#[derive(Debug, Clone, Subcommand)]
pub enum HostAct {
    /// Print a word with which this host's agent may enrol once, within the hour.
    Invite {
        /// The host's name.
        host: String,
    },
    /// Trust this host no more, at once.
    Revoke {
        /// The host's name.
        host: String,
    },
}

/// `token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// Where serve is.
    #[command(flatten)]
    pub asking: Asking,
    /// What to do.
    #[command(subcommand)]
    pub act: TokenAct,
}

/// What is done about tokens.
#[derive(Debug, Clone, Subcommand)]
pub enum TokenAct {
    /// Make one; its secret is printed once.
    Add {
        /// Its name, which the audit log shows.
        name: String,
        /// What its holder may do.
        #[arg(long, value_parser = ["viewer", "tenant-editor", "operator", "admin"])]
        role: String,
        /// The one tenant it is for.
        #[arg(long, value_name = "TENANT")]
        tenant: Option<String>,
        /// Seconds until it ends.
        #[arg(long, value_name = "S")]
        expires_in_s: Option<u32>,
    },
    /// End one.
    Remove {
        /// Its name.
        name: String,
    },
}
