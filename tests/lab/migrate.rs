//! A real guest moves between two hosts, back and forth, with its conns, and what became of them.
//!
//! It may know how the laboratory's parts fit together and what must live and must not pass. It must never know how a table
//! travels.

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::firewall::{Firewall, Uplink};
use crate::host::{self, BRIDGE, HOST_V4, Stay};
use crate::image::Image;
use crate::rung::{self, Processor, Rung, Wiring};
use crate::vm::{Moving, Spec, Vm, Wire};
use hosts::HOSTS;
use peer::{Busy, Conns, Met};
use qmp::Qmp;

mod hosts;
mod peer;
mod qmp;

/// The oldest QEMU whose migration stream carries a backend's state.
const QEMU_MIN: (u32, u32) = (10, 0);
const MAC: &str = "52:54:00:00:00:01";
const GUEST: &str = "10.0.0.10";
/// Where the guest opens conns to.
const LISTEN: u16 = 9000;

const RULES: &str = r#"
nic: {id: mover, mac: "52:54:00:00:00:01", addresses: [10.0.0.10]}
defaults: {out: drop, in: drop}
rules:
  - {id: echo, direction: in, action: allow, protocol: tcp, ports: [7]}
  - {id: stamps, direction: in, action: allow, protocol: udp, ports: [7]}
  - {id: ping, direction: in, action: allow, protocol: icmp, icmp: [echo-request]}
  - {id: out, direction: out, action: allow, protocol: tcp, ports: [9000]}
"#;

/// What is asked of a run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How often the guest moves.
    pub count: usize,
    /// How many conns it has.
    pub conns: usize,
    /// Whether its table moves along.
    pub with_state: bool,
    /// Whether a firewall stands before it; without one, the VMM's own NIC on a tap shows what is the VMM's share.
    pub firewall: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { count: 2, conns: 1000, with_state: true, firewall: true }
    }
}

/// How a run ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// It ran; what it found, and whether that is as it must be.
    Ran {
        /// The last line.
        line: Value,
        /// Whether it is as it must be.
        good: bool,
    },
    /// This machine cannot run it, and why.
    NotRun(String),
}

/// Runs it in namespaces of its own and prints what it found as one JSON line.
///
/// # Errors
/// A part does not start, or a migration fails.
pub fn run(options: Options) -> Result<Outcome> {
    let rung = match rung::qemu()? {
        rung::Vmm::Qemu(program, version) if version >= QEMU_MIN => Rung {
            vmm: rung::Vmm::Qemu(program, version),
            processor: Processor::Emulated,
            wiring: Wiring::Bridge,
        },
        rung::Vmm::Qemu(_, (major, minor)) => {
            return Ok(Outcome::NotRun(format!("QEMU is {major}.{minor}, and 10.0 is needed")));
        }
        rung::Vmm::CloudHypervisor(_) => bail!("no QEMU"),
    };
    let image = Image::ensure()?;
    host::enter(Stay::Ends)?;
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let rung = if rung::kvm_boots(&image) { Rung { processor: Processor::Kvm, ..rung } } else { rung };
    progress(&format!("{rung}"));
    hosts::make()?;
    let mut site = Site::open(&rung, &image, options, folder.path())?;
    let mut found = Found::default();
    for number in 1..=options.count {
        site.migrate(number, &mut found)?;
    }
    Ok(found.outcome(options, site.conns.len()))
}

fn progress(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// One VM with its two possible hosts.
struct Site<'a> {
    rung: &'a Rung,
    image: &'a Image,
    folder: &'a Path,
    firewalls: Option<[Firewall; 2]>,
    /// Where the guest is.
    at: usize,
    vm: Vm,
    qmp: Qmp,
    conns: Conns,
}

/// What all migrations of a run came to.
#[derive(Debug, Default)]
struct Found {
    migrations: usize,
    lost: usize,
    denied_passed: u64,
    downtime_ms: Vec<u64>,
    blackout_beyond_vmm_ms: Vec<i64>,
    arrived: Vec<Value>,
}

impl<'a> Site<'a> {
    fn open(rung: &'a Rung, image: &'a Image, options: Options, folder: &'a Path) -> Result<Self> {
        let key = folder.join("key");
        write_key(&key)?;
        let key = key.display().to_string();
        let restore = if options.with_state { "revalidate" } else { "empty" };
        let words = ["--state-key", &key, "--restore", restore];
        let start = |host: &str| {
            let folder = folder.join(host);
            fs::create_dir_all(&folder)?;
            Firewall::start_in(Some(host), "mover", RULES, Uplink::Bridge(BRIDGE.to_owned()), &words, &folder)
        };
        let [a, b] = HOSTS;
        let firewalls = if options.firewall {
            Some([start(a)?, start(b)?])
        } else {
            hosts::make_taps()?;
            None
        };
        let spec = spec(folder, 0, firewalls.as_ref(), None);
        let mut vm = Vm::start(rung, image, &spec, folder)?;
        vm.wait()?;
        let qmp = Qmp::connect(&spec.moving.context("a VM that moves")?.qmp)?;
        let mut site = Self { rung, image, folder, firewalls, at: 0, vm, qmp, conns: Conns::default() };
        site.connect(options.conns)?;
        Ok(site)
    }

    /// Most conns are opened to the guest, some by it.
    fn connect(&mut self, count: usize) -> Result<()> {
        let by_guest = count / 4;
        let listener = TcpListener::bind((HOST_V4, LISTEN))?;
        let order = format!("guest-probe keep {HOST_V4} {LISTEN} {by_guest} >/tmp/keep 2>&1 </dev/null &");
        self.vm.must(&order)?;
        self.conns.accept(&listener, by_guest)?;
        self.conns.open(service(7), count - by_guest)?;
        let silent = self.conns.silent(1);
        if silent > 0 {
            bail!("{silent} of {count} conns do not answer before anything moved");
        }
        progress(&format!("{count} conns are established, {by_guest} of them opened by the guest"));
        Ok(())
    }

    fn migrate(&mut self, number: usize, found: &mut Found) -> Result<()> {
        let to = 1 - self.at;
        let door = self.folder.join(format!("arrive-{number}"));
        let spec = spec(self.folder, number, self.firewalls.as_ref(), Some((to, door.clone())));
        let arriving = Vm::start(self.rung, self.image, &spec, self.folder)?;
        let mut there = Qmp::connect(&spec.moving.context("a VM that moves")?.qmp)?;
        let busy = Busy::start(service(7), service(7), service(22))?;
        // The way before is seen too: a rhythm to compare with.
        thread::sleep(Duration::from_millis(500));
        let moved = self.qmp.migrate(&door).with_context(|| self.said(&arriving))?;
        there.wait_running()?;
        thread::sleep(Duration::from_millis(1500));
        let met = busy.end();
        // Every conn is asked every fourth time, some every time: most are idle for long.
        let stride = if number.is_multiple_of(4) { 1 } else { 4 };
        self.vm = arriving;
        self.qmp = there;
        self.at = to;
        let lost = self.conns.silent(stride);
        let arrived = match self.here() {
            Some(firewall) => firewall.stats()?.get("arrived").cloned().unwrap_or(Value::Null),
            None => Value::Null,
        };
        match met {
            Ok(met) => found.note(moved.downtime_ms, lost, &met),
            // Without its table the transfer dies like every other conn.
            Err(error) => {
                progress(&format!("{error:#}"));
                found.lost += 1;
                found.note(moved.downtime_ms, lost, &Met { denied_passed: 0, blackout_us: 0 });
            }
        }
        progress(&format!("migration {number}: {lost} conns do not answer; it arrived {arrived}"));
        found.arrived.push(arrived);
        Ok(())
    }

    fn here(&self) -> Option<&Firewall> {
        let [a, b] = self.firewalls.as_ref()?;
        Some(if self.at == 0 { a } else { b })
    }

    fn said(&self, arriving: &Vm) -> String {
        let mut said = format!("source VMM:\n{}\ntarget VMM:\n{}", self.vm.log_tail(), arriving.log_tail());
        for firewall in self.firewalls.iter().flatten() {
            said.push_str("\na firewall:\n");
            said.push_str(&firewall.log_tail());
        }
        said
    }
}

impl Found {
    fn note(&mut self, downtime_ms: u64, lost: usize, met: &Met) {
        self.migrations += 1;
        self.lost += lost;
        self.denied_passed += met.denied_passed;
        self.downtime_ms.push(downtime_ms);
        let blackout = i64::try_from(met.blackout_us / 1000).unwrap_or(i64::MAX);
        self.blackout_beyond_vmm_ms.push(blackout - i64::try_from(downtime_ms).unwrap_or(0));
    }

    fn outcome(mut self, options: Options, conns: usize) -> Outcome {
        self.blackout_beyond_vmm_ms.sort_unstable();
        let median = self.blackout_beyond_vmm_ms.get(self.blackout_beyond_vmm_ms.len() / 2);
        let line = json!({
            "migrations": self.migrations,
            "conns": conns,
            "lost": self.lost,
            "denied_passed": self.denied_passed,
            "downtime_ms": self.downtime_ms,
            "blackout_beyond_vmm_ms": self.blackout_beyond_vmm_ms,
            "blackout_beyond_vmm_median_ms": median,
        });
        // Without the table everything dies: else the run with it would prove nothing.
        let refused = self.denied_passed == 0 || !options.firewall;
        let good = refused && (self.lost == 0) == options.with_state;
        Outcome::Ran { line, good }
    }
}

fn service(port: u16) -> SocketAddr {
    SocketAddr::new(GUEST.parse().unwrap_or_else(|_| [127, 0, 0, 1].into()), port)
}

fn spec(
    folder: &Path,
    number: usize,
    firewalls: Option<&[Firewall; 2]>,
    arrives: Option<(usize, PathBuf)>,
) -> Spec {
    let at = arrives.as_ref().map_or(0, |(at, _)| *at);
    let [host_a, host_b] = HOSTS;
    let wire = match firewalls {
        Some([a, b]) => Wire::VhostUser(if at == 0 { a } else { b }.socket()),
        None => Wire::Tap(hosts::TAP.to_owned()),
    };
    let name = format!("mover-{number}");
    Spec {
        mac: MAC.to_owned(),
        wire,
        orders: vec!["serve=tcp:7,udp:7,tcp:22,udp:22".to_owned(), format!("addr={GUEST}/24")],
        moving: Some(Moving {
            place: if at == 0 { host_a } else { host_b }.to_owned(),
            qmp: folder.join(format!("{name}.qmp")),
            incoming: arrives.map(|(_, door)| door),
        }),
        name,
    }
}

fn write_key(path: &Path) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&[0x5a; 32])?;
    Ok(())
}
