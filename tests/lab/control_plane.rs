//! Serve and its agents, on sockets of their own.
//!
//! The real programs, asked by the real verbs. It may know their flags. It must never know what a policy means.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::Process;
use crate::program;

const PATIENCE: Duration = Duration::from_secs(20);

/// Serve, and the hosts whose agents follow it. Ends with its owner.
#[derive(Debug)]
pub struct ControlPlane {
    folder: PathBuf,
    people: u16,
    agents: u16,
    serve: Option<Process>,
    /// By host.
    running: BTreeMap<String, Process>,
}

impl ControlPlane {
    /// Starts serve; everything of it is in `folder`.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start(folder: &Path) -> Result<Self> {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let mut plane = Self {
            folder: folder.to_owned(),
            people: free_port()?,
            agents: free_port()?,
            serve: None,
            running: BTreeMap::new(),
        };
        plane.start_serve()?;
        Ok(plane)
    }

    /// Starts serve, for the first time or again.
    ///
    /// # Errors
    /// It does not come up.
    pub fn start_serve(&mut self) -> Result<()> {
        let (people, agents) = (format!("127.0.0.1:{}", self.people), format!("127.0.0.1:{}", self.agents));
        let mut command = Command::new(program::ours("policy-sync")?);
        command.args(["serve", "--listen", &people, "--listen-agents", &agents, "--state-dir"]);
        let mut serve = Process::start("serve", command.arg(self.folder.join("serve")), &self.folder)?;
        serve.wait_until(PATIENCE, || self.verb(&["history"]).is_ok_and(|said| said.status.success()))?;
        self.serve = Some(serve);
        Ok(())
    }

    /// Kills serve.
    pub fn kill_serve(&mut self) {
        self.serve = None;
    }

    /// Where people ask, as `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("localhost:{}", self.people)
    }

    /// The folder in which the NICs of `host` have a folder each.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn run_dir(&self, host: &str) -> Result<PathBuf> {
        let folder = self.folder.join(format!("run-{host}"));
        fs::create_dir_all(&folder)?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777))?;
        Ok(folder)
    }

    /// Where agents ask.
    #[must_use]
    pub const fn agents_port(&self) -> u16 {
        self.agents
    }

    /// The folder of what the agent of `host` keeps.
    #[must_use]
    pub fn state_dir(&self, host: &str) -> PathBuf {
        self.folder.join(format!("agent-{host}"))
    }

    /// Enrols a host and starts its agent.
    ///
    /// # Errors
    /// Serve does not let it in, or the agent cannot be started.
    pub fn add_host(&mut self, host: &str) -> Result<()> {
        self.add_host_at(host, self.agents)
    }

    /// As [`Self::add_host`], with an agent that asks at `port`.
    ///
    /// # Errors
    /// Serve does not let it in, or the agent cannot be started.
    pub fn add_host_at(&mut self, host: &str, port: u16) -> Result<()> {
        let word = self.word(host);
        fs::write(&word, self.must(&["host", "invite", host])?)?;
        self.enrol(&word, &self.state_dir(host))?;
        self.start_agent_at(host, port)
    }

    /// The file with the word by which `host` enrolled.
    #[must_use]
    pub fn word(&self, host: &str) -> PathBuf {
        self.folder.join(format!("word-{host}"))
    }

    /// Enrols by the word in a file, for an agent that keeps what it has in `state`.
    ///
    /// # Errors
    /// Serve does not let it in.
    pub fn enrol(&self, word: &Path, state: &Path) -> Result<()> {
        let mut enrol = Command::new(program::ours("policy-sync")?);
        enrol.args(["enrol", "--serve", &self.address(), "--ca"]).arg(self.folder.join("serve/ca.pem"));
        enrol.arg("--word-file").arg(word).arg("--state-dir").arg(state);
        succeeded(&enrol.output()?).map(drop)
    }

    /// Starts the agent of an enrolled host again.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_agent(&mut self, host: &str) -> Result<()> {
        self.start_agent_at(host, self.agents)
    }

    fn start_agent_at(&mut self, host: &str, port: u16) -> Result<()> {
        let mut agent = Command::new(program::ours("policy-sync")?);
        agent.args(["agent", "--serve", &format!("localhost:{port}"), "--state-dir"]);
        agent.arg(self.state_dir(host)).arg("--run-dir").arg(self.run_dir(host)?);
        let agent = Process::start(&format!("agent-{host}"), &mut agent, &self.folder)?;
        self.running.insert(host.to_owned(), agent);
        Ok(())
    }

    /// Kills the agent of a host.
    pub fn kill_agent(&mut self, host: &str) {
        self.running.remove(host);
    }

    /// Runs a verb with the token in `token`.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn verb_as(&self, token: &Path, words: &[&str]) -> Result<Output> {
        self.order(token, words)?.output().context("policy-sync")
    }

    /// Runs a verb as the first admin.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn verb(&self, words: &[&str]) -> Result<Output> {
        self.verb_as(&self.admin(), words)
    }

    /// Starts a verb as the first admin and does not wait for it.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn begin(&self, words: &[&str]) -> Result<Process> {
        Process::start("verb", &mut self.order(&self.admin(), words)?, &self.folder)
    }

    fn admin(&self) -> PathBuf {
        self.folder.join("serve/admin.token")
    }

    fn order(&self, token: &Path, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(program::ours("policy-sync")?);
        command.args(words).env("PORTCULLIS_SERVE", self.address());
        command.env("PORTCULLIS_CA", self.folder.join("serve/ca.pem"));
        command.env("PORTCULLIS_TOKEN_FILE", token);
        Ok(command)
    }

    /// What a verb prints that ends well.
    ///
    /// # Errors
    /// It does not.
    pub fn must(&self, words: &[&str]) -> Result<String> {
        succeeded(&self.verb(words)?).with_context(|| words.join(" "))
    }

    /// Applies a document and waits until it is enforced.
    ///
    /// # Errors
    /// It is refused, or not enforced.
    pub fn apply(&self, owner: &str, name: &str, text: &str) -> Result<String> {
        let file = self.folder.join(format!("{name}.yaml"));
        fs::write(&file, text)?;
        self.must(&["apply", "--owner", owner, "-f", &file.display().to_string(), "--wait", "enforced"])
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn succeeded(output: &Output) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}
