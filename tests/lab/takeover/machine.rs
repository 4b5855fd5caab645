//! The guest that stays while its firewall is replaced: a real VM, or one played by hand with a namespace for a kernel.
//!
//! It may know how either is started. It must never know what happens to its firewall.

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::pump::Pump;
use crate::firewall::Firewall;
use crate::host::{self, ip};
use crate::image::Image;
use crate::process::{Process, run};
use crate::program;
use crate::rung::Rung;
use crate::tap::Tap;
use crate::traffic::denied::CLOSED;
use crate::traffic::shell::{ECHO, GUEST, Shell};
use crate::vm::{Answer, Spec, Vm, Wire};

const MAC: &str = "52:54:00:00:00:01";
/// The namespace whose kernel is the played guest's.
const PLACE: &str = "guest";

/// A guest.
#[derive(Debug)]
pub(super) enum Machine {
    /// A VM.
    Real(Box<Vm>),
    /// Played by hand.
    Played(Played),
}

impl Machine {
    /// A VM on this rung behind the firewall.
    pub(super) fn real(rung: &Rung, image: &Image, firewall: &Firewall, folder: &Path) -> Result<Self> {
        let spec = Spec {
            name: "stays".to_owned(),
            mac: MAC.to_owned(),
            wire: Wire::VhostUser(firewall.socket()),
            orders: vec![
                format!("serve=tcp:{ECHO},udp:{ECHO},tcp:{CLOSED},udp:{CLOSED}"),
                format!("addr={GUEST}/24"),
            ],
            moving: None,
        };
        let mut vm = Vm::start(rung, image, &spec, folder)?;
        vm.wait()?;
        Ok(Self::Real(Box::new(vm)))
    }

    /// One played by hand.
    pub(super) fn played(firewall: &Firewall, folder: &Path) -> Result<Self> {
        Played::start(firewall.socket(), folder).map(Self::Played)
    }

    /// Whether it runs; why not.
    pub(super) fn check(&mut self) -> Result<()> {
        match self {
            Self::Real(vm) => vm.wait(),
            Self::Played(played) => played.pump.check(),
        }
    }
}

impl Shell for Machine {
    fn run(&mut self, command: &str) -> Result<Answer> {
        match self {
            Self::Real(vm) => vm.run(command),
            Self::Played(played) => played.run(command),
        }
    }

    fn scratch(&self) -> String {
        match self {
            Self::Real(vm) => vm.scratch(),
            Self::Played(played) => played.folder.display().to_string(),
        }
    }
}

/// One whose kernel is a namespace's.
#[derive(Debug)]
pub(super) struct Played {
    pump: Pump,
    folder: PathBuf,
    _services: Vec<Process>,
}

impl Played {
    fn start(socket: PathBuf, folder: &Path) -> Result<Self> {
        let folder = folder.join(PLACE);
        fs::create_dir_all(&folder)?;
        let _ = ip(&format!("netns del {PLACE}"));
        ip(&format!("netns add {PLACE}"))?;
        let tap = Tap::open("inside").context("the guest's tap")?;
        ip(&format!("link set inside netns {PLACE}"))?;
        ip(&format!("-n {PLACE} link set lo up"))?;
        ip(&format!("-n {PLACE} link set inside address {MAC} addrgenmode none"))?;
        ip(&format!("-n {PLACE} addr add {GUEST}/24 dev inside"))?;
        ip(&format!("-n {PLACE} link set inside up"))?;
        let mut services = Vec::new();
        for (kind, port) in [("tcp", ECHO), ("udp", ECHO), ("tcp", CLOSED), ("udp", CLOSED)] {
            let mut command = host::command_in(Some(PLACE), &program::ours("guest-probe")?)?;
            command.args(["serve", kind, &port.to_string()]);
            services.push(Process::start(&format!("serve-{kind}-{port}"), &mut command, &folder)?);
        }
        Ok(Self { pump: Pump::start(socket, tap)?, folder, _services: services })
    }

    fn run(&self, command: &str) -> Result<Answer> {
        let path = format!("{}:{}", program::folder()?.display(), env::var("PATH").unwrap_or_default());
        let mut shell: Command = host::command_in(Some(PLACE), Path::new("/bin/sh"))?;
        let output = shell.args(["-c", command]).env("PATH", path).stdin(Stdio::null()).output()?;
        let status = output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        let text = [output.stdout, output.stderr].concat();
        Ok(Answer { status: status.unwrap_or(-1), text: String::from_utf8_lossy(&text).into_owned() })
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        // What its command line started, and nothing else, lives in its namespace.
        if let Ok(ids) = run("ip", &["netns", "pids", PLACE]) {
            let ids: Vec<&str> = ids.split_whitespace().collect();
            if !ids.is_empty() {
                let _ = run("kill", &[&["-9"], ids.as_slice()].concat());
            }
        }
        let _ = ip(&format!("netns del {PLACE}"));
    }
}
