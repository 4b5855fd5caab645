//! One guest with its conns and its two possible hosts.
//!
//! It may know how the laboratory's parts fit together and what must live and must not pass. It must never know how a
//! table travels.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::hosts::{self, HOSTS};
use super::monitor::Monitor;
use super::mover::{self, Mover};
use super::{Behind, By, Options, progress};
use crate::firewall::{Firewall, Uplink};
use crate::host::BRIDGE;
use crate::image::Image;
use crate::rung::{Rung, Vmm};
use crate::traffic::denied::CLOSED;
use crate::traffic::shell::{self, ECHO, GUEST};
use crate::traffic::talks::{Asked, Talks};
use crate::vm::{Moving, Spec, Vm, Wire};

const MAC: &str = "52:54:00:00:00:01";
/// Of so many conns one is chatty; the others say a word after each move.
const CHATTY: usize = 20;
/// Traffic goes on for so long before a move, so that there is a rhythm to compare with.
const BEFORE: Duration = Duration::from_millis(500);
/// And so long after it.
const AFTER: Duration = Duration::from_millis(1500);

/// The rules on both hosts.
pub const RULES: &str = r#"
nic: {id: mover, mac: "52:54:00:00:00:01", addresses: [10.0.0.10]}
defaults: {out: drop, in: drop}
rules:
  - {id: echo, direction: in, action: allow, protocol: tcp, ports: [7]}
  - {id: witness, direction: in, action: allow, protocol: udp, ports: [7]}
  - {id: ping, direction: in, action: allow, protocol: icmp, icmp: [echo-request]}
  - {id: out, direction: out, action: allow, protocol: tcp, ports: [9000]}
  - {id: flow, direction: out, action: allow, protocol: udp, ports: [9000]}
"#;

/// One VM with its two possible hosts.
#[derive(Debug)]
pub struct Site<'a> {
    pub(super) rung: &'a Rung,
    pub(super) image: &'a Image,
    pub(super) folder: &'a Path,
    pub(super) firewalls: Option<[Firewall; 2]>,
    /// On which host the guest is.
    pub(super) at: usize,
    pub(super) moves: u16,
    pub(super) vm: Vm,
    /// Where its VMM takes another's orders.
    pub(super) orders: String,
    pub(super) monitor: Monitor,
    pub(super) mover: Option<Mover>,
    pub(super) talks: Talks,
}

/// What one move came to.
#[derive(Debug, Clone)]
pub struct Move {
    /// Conns that did not survive it.
    pub lost: usize,
    /// Frames the guest got and conns it opened although no rule allows them.
    pub denied_passed: u64,
    /// Downtime in milliseconds, as the source VMM counts it; [`Move::stopped`] where it does not.
    pub downtime_ms: u64,
    /// How long the VM ran nowhere, from one VMM's event to the other's.
    pub stopped: Duration,
    /// The longest silence of the guest, on the peer's clock.
    pub blackout: Duration,
    /// What the firewall says of the table that arrived.
    pub arrived: Value,
}

impl<'a> Site<'a> {
    /// Starts a firewall on each host and the guest on the first, and opens the conns.
    ///
    /// # Errors
    /// A part does not start, or a conn cannot be opened.
    pub fn open(rung: &'a Rung, image: &'a Image, options: Options, folder: &'a Path) -> Result<Self> {
        for host in HOSTS {
            fs::create_dir_all(folder.join(host))?;
        }
        let firewalls = match options.behind {
            Behind::Firewalls => Some(start_firewalls(folder, "revalidate")?),
            Behind::Forgetful => Some(start_firewalls(folder, "empty")?),
            Behind::Nothing => {
                hosts::make_taps()?;
                None
            }
        };
        let spec = spec(rung, folder, 0, firewalls.as_ref(), None);
        let mut vm = Vm::start(rung, image, &spec, folder)?;
        vm.wait()?;
        let moving = spec.moving.context("a VM that moves")?;
        let monitor = Monitor::connect(&rung.vmm, &moving)?;
        let mover = match options.by {
            By::Vmm => None,
            By::StateMigrate => Some(Mover::start(folder)?),
        };
        shell::watch(&mut vm)?;
        let conns = options.conns;
        let talks = Talks::open(&mut vm, conns, CHATTY, options.behind.patience(), |by_guest, chatty| {
            progress(&format!("{conns} conns are established, {by_guest} by the guest; {chatty} are chatty"));
        })?;
        let orders = mover::orders(&rung.vmm, &moving);
        Ok(Self { rung, image, folder, firewalls, at: 0, moves: 0, vm, orders, monitor, mover, talks })
    }

    /// Moves the guest to the other host under traffic and asks every conn.
    ///
    /// # Errors
    /// The move fails, or the guest is not reached after it.
    pub fn migrate(&mut self) -> Result<Move> {
        self.moves += 1;
        let to = 1 - self.at;
        let door = self.folder.join(format!("arrive-{}", self.moves));
        let spec =
            spec(self.rung, self.folder, self.moves, self.firewalls.as_ref(), Some((to, door.clone())));
        let arriving = Vm::start(self.rung, self.image, &spec, self.folder)?;
        let moving = spec.moving.context("a VM that moves")?;
        let mut there = Monitor::connect(&self.rung.vmm, &moving)?;
        let orders = mover::orders(&self.rung.vmm, &moving);
        let denied_before = shell::marked_frames(&mut self.vm)?;
        let busy = self.talks.begin(self.moves)?;
        thread::sleep(BEFORE);
        let left = match &self.mover {
            None => self.monitor.migrate(&door),
            Some(mover) => mover.migrate(self.at, &self.orders, &door).and_then(|()| self.monitor.left()),
        };
        let left = left.with_context(|| self.said(&arriving))?;
        let resumed_us = there.wait_running().with_context(|| self.said(&arriving))?;
        self.vm = arriving;
        self.orders = orders;
        self.monitor = there;
        self.at = to;
        thread::sleep(AFTER);
        self.vm.wait()?;
        let Asked { lost, met } =
            self.talks.end(busy).with_context(|| format!("on {}", HOSTS.get(to).unwrap_or(&"")))?;
        let arrived = match self.here() {
            Some(firewall) => firewall.stats()?.get("arrived").cloned().unwrap_or(Value::Null),
            None => Value::Null,
        };
        let seen = shell::marked_frames(&mut self.vm)?.saturating_sub(denied_before);
        let stopped = Duration::from_micros(resumed_us.saturating_sub(left.stopped_us));
        let downtime_ms = left.downtime_ms.unwrap_or(u64::try_from(stopped.as_millis())?);
        let number = self.moves;
        progress(&format!(
            "move {number}: {lost} lost; the VM stood {} ms ({} by its VMM), was silent {} ms; {} KiB went there and back, \
             {} of {} echoes and {} of {} datagrams answered; {} denied frames sent, {seen} seen; arrived {arrived}",
            stopped.as_millis(),
            downtime_ms,
            met.ping.silence.as_millis(),
            met.carried / 1024,
            met.ping.answered,
            met.ping.asked,
            met.flow.answered,
            met.flow.asked,
            met.tried.sent,
        ));
        Ok(Move {
            lost,
            denied_passed: seen + met.tried.opened,
            downtime_ms,
            stopped,
            blackout: met.ping.silence,
            arrived,
        })
    }

    /// The firewall of the host on which the guest is, if it is behind one.
    #[must_use]
    pub fn here(&self) -> Option<&Firewall> {
        let [a, b] = self.firewalls.as_ref()?;
        Some(if self.at == 0 { a } else { b })
    }

    /// The firewall of the other host.
    #[must_use]
    pub fn there(&self) -> Option<&Firewall> {
        let [a, b] = self.firewalls.as_ref()?;
        Some(if self.at == 0 { b } else { a })
    }

    fn said(&self, arriving: &Vm) -> String {
        let mut said = format!("source VMM:\n{}\ntarget VMM:\n{}", self.vm.log_tail(), arriving.log_tail());
        for (host, firewall) in HOSTS.iter().zip(self.firewalls.iter().flatten()) {
            said.push_str(&format!("\n{host}:\n{}", firewall.log_tail()));
        }
        said
    }
}

/// One on each host, with the same key.
fn start_firewalls(folder: &Path, restore: &str) -> Result<[Firewall; 2]> {
    let key = folder.join("key");
    write_key(&key)?;
    let key = key.display().to_string();
    let start = |host: &str| {
        // Its table outlives a firewall that is killed.
        let copies = folder.join(host).join("copies");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&copies)?;
        let copies = copies.display().to_string();
        let words = ["--state-key", &key, "--restore", restore, "--state-dir", &copies];
        let uplink = Uplink::Bridge(BRIDGE.to_owned());
        Firewall::start_in(Some(host), "mover", RULES, uplink, &words, &folder.join(host))
    };
    let [a, b] = HOSTS;
    Ok([start(a)?, start(b)?])
}

pub(super) fn spec(
    rung: &Rung,
    folder: &Path,
    number: u16,
    firewalls: Option<&[Firewall; 2]>,
    arrives: Option<(usize, PathBuf)>,
) -> Spec {
    let at = arrives.as_ref().map_or(0, |(at, _)| *at);
    let [host_a, host_b] = HOSTS;
    let host = if at == 0 { host_a } else { host_b };
    let wire = match firewalls {
        Some([a, b]) => Wire::VhostUser(if at == 0 { a } else { b }.socket()),
        None => Wire::Tap(hosts::TAP.to_owned()),
    };
    // QEMU's files are each one's own; Cloud Hypervisor takes the names along.
    let name = match rung.vmm {
        Vmm::Qemu(..) => format!("mover-{number}"),
        Vmm::CloudHypervisor(_) => "mover".to_owned(),
    };
    Spec {
        mac: MAC.to_owned(),
        wire,
        orders: vec![
            format!("serve=tcp:{ECHO},udp:{ECHO},tcp:{CLOSED},udp:{CLOSED}"),
            format!("addr={GUEST}/24"),
        ],
        moving: Some(Moving {
            place: host.to_owned(),
            home: folder.join(host),
            monitor: folder.join(format!("{number}.monitor")),
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
