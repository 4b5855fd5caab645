//! A running `vhost-fw` of the laboratory.
//!
//! It may know the program's flags and its control verbs. It must never know what the rules mean.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::host;
use crate::process::Process;
use crate::program;

/// The network side of a firewall under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// A tap of its own on this bridge.
    Bridge(String),
    /// A tap of this name.
    Tap(String),
    /// A socket of records, for the switch in user space.
    Unix(PathBuf),
    /// Nothing: judged frames are discarded.
    Null,
}

/// A running firewall.
#[derive(Debug)]
pub struct Firewall {
    nic: String,
    process: Process,
    uplink: Uplink,
    words: Vec<String>,
    folder: PathBuf,
    place: Option<String>,
    program: PathBuf,
}

/// What the program would do with a first frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// `pass`, `drop`, `hold` or `reject`.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// The rule that admitted or refused it.
    pub rule: Option<String>,
}

impl Explained {
    /// The rule where one decided, else the reason.
    #[must_use]
    pub fn why(&self) -> &str {
        self.rule.as_deref().unwrap_or(&self.reason)
    }
}

impl Firewall {
    /// Starts a firewall for `nic` with these rules; its files are in `folder/nic`.
    ///
    /// # Errors
    /// It does not start, or refuses the rules: the error shows what it said.
    pub fn start(nic: &str, rules: &str, uplink: Uplink, folder: &Path) -> Result<Self> {
        Self::start_with(nic, rules, uplink, &[], folder)
    }

    /// As [`Firewall::start`], with more words on its command line.
    ///
    /// # Errors
    /// As there.
    pub fn start_with(nic: &str, rules: &str, uplink: Uplink, words: &[&str], folder: &Path) -> Result<Self> {
        Self::start_in(None, nic, rules, uplink, words, folder)
    }

    /// As [`Firewall::start_with`], on another host: in the network namespace `place`.
    ///
    /// # Errors
    /// As there.
    pub fn start_in(
        place: Option<&str>,
        nic: &str,
        rules: &str,
        uplink: Uplink,
        words: &[&str],
        folder: &Path,
    ) -> Result<Self> {
        Self::start_as(&program::ours("vhost-fw")?, place, nic, rules, uplink, words, folder)
    }

    /// As [`Firewall::start_in`], from a program of one's choice.
    ///
    /// # Errors
    /// As there.
    pub fn start_as(
        program: &Path,
        place: Option<&str>,
        nic: &str,
        rules: &str,
        uplink: Uplink,
        words: &[&str],
        folder: &Path,
    ) -> Result<Self> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let folder = folder.join(nic);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("rules.yaml"), rules)?;
        let place = place.map(str::to_owned);
        let process = launch(program, place.as_deref(), nic, &uplink, &words, &folder)?;
        let program = program.to_owned();
        let mut firewall = Self { nic: nic.to_owned(), process, uplink, words, folder, place, program };
        firewall.wait()?;
        Ok(firewall)
    }

    /// The socket on which it waits for a VMM.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("vhost.sock")
    }

    /// Its control socket.
    #[must_use]
    pub fn control(&self) -> PathBuf {
        self.folder.join("control.sock")
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Kills it as a crash would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again with the rules it was started with.
    ///
    /// # Errors
    /// It does not come back.
    pub fn revive(&mut self) -> Result<()> {
        self.process.kill();
        for socket in [self.socket(), self.control()] {
            let _ = fs::remove_file(socket);
        }
        if let Uplink::Unix(path) = &self.uplink {
            let _ = fs::remove_file(path);
        }
        let place = self.place.as_deref();
        self.process = launch(&self.program, place, &self.nic, &self.uplink, &self.words, &self.folder)?;
        self.wait()
    }

    fn wait(&mut self) -> Result<()> {
        // Its sockets are there before its sandbox is: only an answer tells that it is up.
        let ask = |process: &mut Process| {
            let (control, program) = (self.folder.join("control.sock"), program::ours("vhost-fw")?);
            process.wait_until(Duration::from_secs(10), || {
                let mut ask = Command::new(&program);
                ask.arg("ctl").arg("--control").arg(&control).args(["-o", "json", "stats"]);
                ask.output().is_ok_and(|answer| answer.status.success())
            })
        };
        ask(&mut self.process).with_context(|| format!("vhost-fw for {}", self.nic))
    }

    /// One control verb; what it answers.
    ///
    /// # Errors
    /// It is refused: the error is what the program said.
    pub fn ctl(&self, verb: &[&str]) -> Result<Value> {
        let output = Command::new(program::ours("vhost-fw")?)
            .arg("ctl")
            .arg("--control")
            .arg(self.control())
            .args(["-o", "json"])
            .args(verb)
            .output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{}: ctl {}: {}", self.nic, verb.join(" "), said.trim());
        }
        let said = String::from_utf8_lossy(&output.stdout);
        if said.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(said.trim()).with_context(|| format!("ctl {} printed `{said}`", verb.join(" ")))
    }

    /// Puts other rules in force and waits until they are enforced.
    ///
    /// # Errors
    /// They are refused.
    pub fn install(&self, rules: &str) -> Result<()> {
        let file = self.folder.join("next.yaml");
        fs::write(&file, rules)?;
        self.ctl(&["install", &file.display().to_string()])?;
        Ok(())
    }

    /// Its counters.
    ///
    /// # Errors
    /// It does not answer.
    pub fn stats(&self) -> Result<Value> {
        self.ctl(&["stats"])
    }

    /// Refused frames by reason.
    ///
    /// # Errors
    /// It does not answer.
    pub fn drops(&self) -> Result<BTreeMap<String, u64>> {
        let stats = self.stats()?;
        let drops = stats.get("drops").and_then(Value::as_object).context("stats without drops")?;
        Ok(drops.iter().filter_map(|(reason, count)| Some((reason.clone(), count.as_u64()?))).collect())
    }

    /// What it would do with a first frame (`tcp SRC DST:PORT`).
    ///
    /// # Errors
    /// It does not answer.
    pub fn explain(&self, direction: &str, flow: &[String]) -> Result<Explained> {
        let mut verb = vec!["explain", direction];
        verb.extend(flow.iter().map(String::as_str));
        let line = self.ctl(&verb)?;
        let text = |key: &str| line.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(Explained {
            verdict: text("verdict").context("an explanation without a verdict")?,
            reason: text("reason").context("an explanation without a reason")?,
            rule: text("rule"),
        })
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Lets it live on after this program; its process id.
    pub fn let_go(self) -> u32 {
        self.process.let_go()
    }
}

fn launch(
    program: &Path,
    place: Option<&str>,
    nic: &str,
    uplink: &Uplink,
    words: &[String],
    folder: &Path,
) -> Result<Process> {
    let mut command = host::command_in(place, program)?;
    command.arg("--socket").arg(folder.join("vhost.sock")).args(["--nic", nic]);
    command.arg("--rules").arg(folder.join("rules.yaml")).arg("--control").arg(folder.join("control.sock"));
    match uplink {
        Uplink::Bridge(name) => command.args(["--bridge", name]),
        Uplink::Tap(name) => command.args(["--tap", name]),
        Uplink::Unix(path) => command.arg("--uplink").arg(format!("unix:{}", path.display())),
        Uplink::Null => command.args(["--uplink", "null"]),
    };
    if host::is_only_root() {
        command.arg("--allow-missing-sandbox");
    }
    command.args(words);
    Process::start("vhost-fw", &mut command, folder)
}
