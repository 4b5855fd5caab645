//! A host of the laboratory's own: user and network namespaces with a bridge, addresses and a DHCP server in them.
//!
//! It may know `ip`, `unshare` and dnsmasq. It must never touch a network it did not make.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Process, run};
use crate::program;

/// Tells a program that it already is where [`enter`] would bring it, and by which flags of `unshare`.
pub const INSIDE: &str = "PORTCULLIS_NAMESPACE";

/// The bridge of the laboratory.
pub const BRIDGE: &str = "br0";

/// The host's own addresses on the bridge.
pub const HOST_V4: &str = "10.0.0.1";
/// See [`HOST_V4`].
pub const HOST_V6: &str = "2001:db8:0:1::1";

/// How long whatever runs in the namespaces lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// Ends with this program, whatever ends it.
    Ends,
    /// Goes on after this program.
    Remains,
}

/// What is tried to get namespaces, best first. Root needs no user namespace; a plain user keeps its uid where it can,
/// because a firewall that believes to be root wants a uid of its own to change to. With a process namespace nothing
/// outlives this program.
fn ways(stay: Stay, is_root: bool) -> Vec<Vec<&'static str>> {
    let as_root: &[&str] = &["--user", "--map-root-user"];
    let users: [&[&str]; 2] =
        if is_root { [&[], as_root] } else { [&["--user", "--map-current-user", "--keep-caps"], as_root] };
    let own: &[&str] = &["--net", "--mount"];
    let bound: &[&str] = &["--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut ways = Vec::new();
    for user in users {
        if stay == Stay::Ends {
            ways.push([user, own, bound].concat());
        }
        ways.push([user, own].concat());
    }
    ways
}

/// Whether this process is root with no other uid beside it, so that no program can become another user.
#[must_use]
pub fn is_only_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let fields: Vec<&str> = map.split_whitespace().collect();
    matches!(fields.as_slice(), ["0", _, "1"])
}

/// Runs this program again in namespaces of its own and does not return, or says why that cannot be. Returns at once
/// where it already is there. Call it before the first thread.
///
/// # Errors
/// No namespaces, or no bridge or tap in them.
pub fn enter(stay: Stay) -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let unshare = program::need("unshare")?;
    program::need("ip")?;
    let mut why = String::new();
    let is_root = rustix::process::geteuid().is_root();
    for flags in ways(stay, is_root) {
        let trial = "ip link add pc0 type bridge && ip tuntap add pc1 mode tap && ip link set pc1 master pc0";
        let tried =
            Command::new(&unshare).args(&flags).args(["sh", "-c", trial]).stdin(Stdio::null()).output()?;
        if tried.status.success() {
            let me = env::current_exe()?;
            let failed = Command::new(&unshare)
                .args(&flags)
                .arg(me)
                .args(env::args_os().skip(1))
                .env(INSIDE, "1")
                .exec();
            return Err(failed).context("cannot run this program in namespaces of its own");
        }
        if why.is_empty() {
            String::from_utf8_lossy(&tried.stderr).trim().clone_into(&mut why);
        }
    }
    bail!("no bridge and tap in a namespace of our own: {why}")
}

/// The flags with which `nsenter` follows into these namespaces.
#[must_use]
pub fn way_in() -> &'static str {
    let came_by = env::var(INSIDE).unwrap_or_default();
    if came_by.contains("--user") { "--user --preserve-credentials --net" } else { "--net" }
}

/// The bridge with the host's addresses on it, and its DHCP server.
#[derive(Debug)]
pub struct Host {
    dnsmasq: Option<Process>,
}

impl Host {
    /// Makes the bridge and gives out `leases` (MAC address, IPv4 address) on it where dnsmasq is installed.
    ///
    /// # Errors
    /// A network command fails; each says what.
    pub fn make(folder: &Path, leases: &[(String, String)]) -> Result<Self> {
        for command in [
            "link set lo up".to_owned(),
            format!("link add {BRIDGE} type bridge"),
            format!("addr add {HOST_V4}/24 dev {BRIDGE}"),
            format!("-6 addr add {HOST_V6}/64 dev {BRIDGE} nodad"),
            format!("link set {BRIDGE} up"),
        ] {
            ip(&command)?;
        }
        let Some(program) = program::on_path("dnsmasq") else { return Ok(Self { dnsmasq: None }) };
        let mut command = Command::new(program);
        command.args([
            "--no-daemon",
            "--conf-file=/dev/null",
            "--port=0",
            "--no-resolv",
            "--no-hosts",
            "--pid-file=",
        ]);
        command.args([
            "--bind-interfaces",
            "--log-dhcp",
            "--dhcp-range=10.0.0.100,10.0.0.199,255.255.255.0,1h",
        ]);
        command.arg(format!("--interface={BRIDGE}"));
        command.arg(format!("--dhcp-leasefile={}", folder.join("leases").display()));
        command.args(leases.iter().map(|(mac, address)| format!("--dhcp-host={mac},{address}")));
        let mut dnsmasq = Process::start("dnsmasq", &mut command, folder)?;
        let log = folder.join("dnsmasq.log");
        dnsmasq.wait_until(Duration::from_secs(5), || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("DHCP, sockets bound"))
        })?;
        Ok(Self { dnsmasq: Some(dnsmasq) })
    }

    /// Whether guests get addresses by DHCP.
    #[must_use]
    pub fn leases(&self) -> bool {
        self.dnsmasq.is_some()
    }

    /// Lets the DHCP server live on; its process id.
    pub fn let_go(self) -> Option<u32> {
        self.dnsmasq.map(Process::let_go)
    }
}

/// A command line that runs `program` in the network namespace `place`, or here.
///
/// # Errors
/// `ip` is not installed.
pub fn command_in(place: Option<&str>, program: &Path) -> Result<Command> {
    let Some(place) = place else { return Ok(Command::new(program)) };
    let mut command = Command::new(program::need("ip")?);
    command.args(["netns", "exec", place]).arg(program);
    Ok(command)
}

/// Runs one `ip` command.
///
/// # Errors
/// It fails; the error is what it said.
pub fn ip(command: &str) -> Result<String> {
    let program = program::need("ip")?;
    run(&program.display().to_string(), &command.split_whitespace().collect::<Vec<_>>())
}

/// Frames that each of the bridge's taps refused to carry to its reader (`tx_dropped`), by name.
///
/// # Errors
/// `/proc/self/net/dev` does not read as it should.
pub fn tap_drops() -> Result<BTreeMap<String, u64>> {
    let devices = fs::read_to_string("/proc/self/net/dev")?;
    let mut drops = BTreeMap::new();
    for line in devices.lines().skip(2) {
        let (name, counters) = line.split_once(':').context("a device without a name")?;
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        // Eight counters of what was received, then sent: bytes, frames, errors, drops.
        let dropped = counters.get(11).context("a device without counters")?;
        if ![BRIDGE, "lo"].contains(&name.trim()) {
            drops.insert(name.trim().to_owned(), *dropped);
        }
    }
    Ok(drops)
}
