//! `state-migrate` at both hosts: a receiver on each, and the program that moves a guest.
//!
//! It may know the program's flags and make certificates for it. It must never know how a table travels.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use super::hosts::HOSTS;
use super::progress;
use crate::process::Process;
use crate::program;
use crate::rung::Vmm;
use crate::vm::Moving;

/// How long a receiver may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);
/// The NIC that moves.
const NIC: &str = "mover";

/// Where the VMM takes the program's orders, in the program's words.
pub(super) fn orders(vmm: &Vmm, moving: &Moving) -> String {
    match vmm {
        Vmm::Qemu(..) => format!("qemu:{}", moving.orders().display()),
        Vmm::CloudHypervisor(_) => format!("cloud-hypervisor:{}", moving.monitor.display()),
    }
}

/// The program at both hosts.
#[derive(Debug)]
pub(super) struct Mover {
    folder: PathBuf,
    addresses: Vec<String>,
    receivers: Vec<Process>,
}

impl Mover {
    /// Starts a receiver on each host.
    ///
    /// # Errors
    /// One does not start.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        certify(folder)?;
        let mut mover = Self { folder: folder.to_owned(), addresses: Vec::new(), receivers: Vec::new() };
        for host in 0..HOSTS.len() {
            let (receiver, address) = mover.receiver(host)?;
            mover.addresses.push(address);
            mover.receivers.push(receiver);
        }
        Ok(mover)
    }

    /// A receiver on a host, and where it listens.
    fn receiver(&self, host: usize) -> Result<(Process, String)> {
        let home = self.folder.join(HOSTS.get(host).context("a host")?);
        let log = home.join("receiver.log");
        let _ = fs::remove_file(&log);
        let mut command = self.command("receive")?;
        command.args(["--listen", "127.0.0.1:0"]).arg("--run-dir").arg(&home);
        let mut receiver = Process::start("receiver", &mut command, &home)?;
        let mut address = None;
        receiver.wait_until(PATIENCE, || {
            let log = fs::read_to_string(&log).unwrap_or_default();
            address = log.split("VMs may arrive: 127.0.0.1:").nth(1).map(|rest| {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                format!("localhost:{port}")
            });
            address.is_some()
        })?;
        Ok((receiver, address.context("a receiver without an address")?))
    }

    /// Kills a host's receiver.
    pub(super) fn kill_receiver(&mut self, host: usize) {
        if let Some(receiver) = self.receivers.get_mut(host) {
            receiver.kill();
        }
    }

    /// Starts a host's receiver again.
    ///
    /// # Errors
    /// It does not start.
    pub(super) fn revive_receiver(&mut self, host: usize) -> Result<()> {
        self.kill_receiver(host);
        let (receiver, address) = self.receiver(host)?;
        if let (Some(place), Some(at)) = (self.receivers.get_mut(host), self.addresses.get_mut(host)) {
            (*place, *at) = (receiver, address);
        }
        Ok(())
    }

    /// Moves the guest from host `at`, whose VMM takes orders there, to the VMM of the other that waits at `door`.
    ///
    /// # Errors
    /// The program says that it did not.
    pub(super) fn migrate(&self, at: usize, orders: &str, door: &Path) -> Result<()> {
        let output = self.order(at, orders, door)?.output()?;
        let (said, told) = (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
        if !output.status.success() {
            bail!("state-migrate ended with {}:\n{said}", output.status);
        }
        progress(told.trim());
        Ok(())
    }

    /// The order to move it, not yet given.
    pub(super) fn order(&self, at: usize, orders: &str, door: &Path) -> Result<Command> {
        let mut command = self.command("migrate")?;
        let home = self.folder.join(HOSTS.get(at).context("a host")?);
        let to = self.addresses.get(1 - at).context("the other host")?;
        command.args(["--vmm", orders, "--nic", NIC, "--to", to, "--ahead-from", "1", "--keep-source"]);
        command.args(["-o", "json", "--vm-to"]).arg(format!("unix:{}", door.display()));
        command.arg("--run-dir").arg(home);
        Ok(command)
    }

    fn command(&self, verb: &str) -> Result<Command> {
        let mut command = Command::new(program::ours("state-migrate")?);
        command.arg(verb);
        for (flag, file) in [("--ca", "ca.pem"), ("--cert", "host.pem"), ("--key", "host.key")] {
            command.arg(flag).arg(self.folder.join(file));
        }
        Ok(command)
    }
}

/// An authority, and one certificate for both hosts, which share a loopback here.
fn certify(folder: &Path) -> Result<()> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_cert = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate()?;
    let host = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &issuer)?;
    fs::write(folder.join("ca.pem"), authority_cert.pem())?;
    fs::write(folder.join("host.pem"), host.pem())?;
    let mut file =
        fs::File::options().write(true).create_new(true).mode(0o600).open(folder.join("host.key"))?;
    Ok(file.write_all(key.serialize_pem().as_bytes())?)
}
