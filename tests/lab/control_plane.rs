//! Serve and its agents, on sockets of their own.
//!
//! The real programs, asked by the real verbs. It may know their flags. It must never know what a policy means.

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
    running: Vec<Process>,
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
            running: Vec::new(),
        };
        let (people, agents) = (format!("127.0.0.1:{}", plane.people), format!("127.0.0.1:{}", plane.agents));
        let mut command = Command::new(program::ours("policy-sync")?);
        command.args(["serve", "--listen", &people, "--listen-agents", &agents, "--state-dir"]);
        let mut serve = Process::start("serve", command.arg(folder.join("serve")), folder)?;
        serve.wait_until(PATIENCE, || plane.verb(&["history"]).is_ok_and(|said| said.status.success()))?;
        plane.running.push(serve);
        Ok(plane)
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
        let state = self.folder.join(format!("agent-{host}"));
        let word = self.folder.join(format!("word-{host}"));
        fs::write(&word, self.must(&["host", "invite", host])?)?;
        let mut enrol = Command::new(program::ours("policy-sync")?);
        enrol.args(["enrol", "--serve", &self.address(), "--ca"]).arg(self.folder.join("serve/ca.pem"));
        enrol.arg("--word-file").arg(&word).arg("--state-dir").arg(&state);
        succeeded(&enrol.output()?)?;
        let mut agent = Command::new(program::ours("policy-sync")?);
        agent.args(["agent", "--serve", &format!("localhost:{port}"), "--state-dir"]).arg(&state);
        agent.arg("--run-dir").arg(self.run_dir(host)?);
        self.running.push(Process::start(&format!("agent-{host}"), &mut agent, &self.folder)?);
        Ok(())
    }

    /// Runs a verb with the token in `token`.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn verb_as(&self, token: &Path, words: &[&str]) -> Result<Output> {
        Command::new(program::ours("policy-sync")?)
            .args(words)
            .env("PORTCULLIS_SERVE", self.address())
            .env("PORTCULLIS_CA", self.folder.join("serve/ca.pem"))
            .env("PORTCULLIS_TOKEN_FILE", token)
            .output()
            .context("policy-sync")
    }

    /// Runs a verb as the first admin.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn verb(&self, words: &[&str]) -> Result<Output> {
        self.verb_as(&self.folder.join("serve/admin.token"), words)
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

    /// Lets serve and the agents live on after their owner; their process ids.
    #[must_use]
    pub fn let_go(self) -> Vec<u32> {
        self.running.into_iter().map(Process::let_go).collect()
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
