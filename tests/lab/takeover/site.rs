//! One guest, its firewall with a keeper, and everybody's conns while one of the two processes goes.
//!
//! It may know how the laboratory's parts fit together and which process is which. It must never know how a table
//! outlives a worker.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::machine::Machine;
use super::{Event, Keeping, Options, Under, progress};
use crate::firewall::{Firewall, Uplink};
use crate::host::{BRIDGE, ip};
use crate::image::Image;
use crate::migrate::RULES;
use crate::rung::Rung;
use crate::traffic::shell;
use crate::traffic::talks::{Asked, Talks};

/// The firewall's tap, which stays when nobody has it open, as `nic add` makes them.
const TAP: &str = "fw0";
/// Of so many conns one speaks all the time; the others say a word after each event.
const CHATTY: usize = 4;
/// Traffic goes on for so long before an event: all conns are older than that.
const BEFORE: Duration = Duration::from_millis(400);
/// And so long after it.
const AFTER: Duration = Duration::from_millis(800);
/// QEMU looks for a backend that is gone once a second.
const AFTER_QEMU: Duration = Duration::from_millis(3000);
/// How long a new process may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// The guest with its firewall.
#[derive(Debug)]
pub(super) struct Site {
    machine: Machine,
    firewall: Firewall,
    talks: Talks,
    rounds: u16,
}

/// What one event came to.
#[derive(Debug, Clone)]
pub(super) struct Round {
    /// Conns that did not survive it.
    pub(super) lost: usize,
    /// Frames the guest got and conns it opened although no rule allows them.
    pub(super) denied_passed: u64,
    /// The longest silence of the guest, on the peer's clock.
    pub(super) gap: Duration,
}

impl Site {
    /// Starts everything and opens the conns.
    pub(super) fn open(
        rung: Option<&Rung>,
        image: Option<&Image>,
        options: Options,
        folder: &Path,
    ) -> Result<Self> {
        // The NIC's own user passes through.
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
        if ip(&format!("link show {TAP}")).is_err() {
            ip(&format!("tuntap add {TAP} mode tap vnet_hdr"))?;
            ip(&format!("link set {TAP} addrgenmode none master {BRIDGE} up"))?;
        }
        let state = folder.join("state").display().to_string();
        let words = ["--keeper", "--state-dir", &state];
        let words = if options.keeping == Keeping::Copies { &words[..] } else { &words[..1] };
        let firewall = Firewall::start_with("mover", RULES, Uplink::Tap(TAP.to_owned()), words, folder)?;
        let mut machine = match options.under {
            Under::Qemu => {
                let (rung, image) = rung.zip(image).context("no rung for a VM")?;
                Machine::real(rung, image, &firewall, folder)?
            }
            Under::Played => Machine::played(&firewall, folder)?,
        };
        shell::watch(&mut machine).with_context(|| firewall.log_tail())?;
        let patience = options.keeping.patience();
        let talks = Talks::open(&mut machine, options.conns, CHATTY, patience, |by_guest, chatty| {
            let conns = options.conns;
            progress(&format!(
                "{conns} conns are established, {by_guest} by the guest; {chatty} speak all the time"
            ));
        })?;
        Ok(Self { machine, firewall, talks, rounds: 0 })
    }

    /// Lets something happen under traffic and asks every conn.
    pub(super) fn round(&mut self, event: Event) -> Result<Round> {
        self.rounds += 1;
        let denied_before = shell::marked_frames(&mut self.machine)?;
        let busy = self.talks.begin(self.rounds)?;
        thread::sleep(BEFORE);
        self.let_happen(event).with_context(|| self.firewall.log_tail())?;
        let is_long = event == Event::KeeperKill && matches!(self.machine, Machine::Real(_));
        thread::sleep(if is_long { AFTER_QEMU } else { AFTER });
        self.machine.check()?;
        let asked = self.talks.end(busy);
        let Asked { lost, met } =
            asked.with_context(|| format!("after {event}:\n{}", self.firewall.log_tail()))?;
        // A flow that died has an end of its own.
        let flow =
            if self.talks.flow_lives() { met.flow.silence.max(met.flow.since_last) } else { Duration::ZERO };
        let gap = met.ping.silence.max(met.ping.since_last).max(flow);
        let seen = shell::marked_frames(&mut self.machine)?.saturating_sub(denied_before);
        progress(&format!(
            "{event} {}: {lost} lost; silent {:.1} ms; {} KiB went there and back, {} of {} echoes and {} of {} datagrams \
             answered; {} denied frames sent, {seen} seen",
            self.rounds,
            gap.as_secs_f64() * 1000.0,
            met.carried / 1024,
            met.ping.answered,
            met.ping.asked,
            met.flow.answered,
            met.flow.asked,
            met.tried.sent,
        ));
        if lost > 0 {
            progress(&format!(
                "drops since: {:?}; its log ends:\n{}",
                self.firewall.drops(),
                self.firewall.log_tail()
            ));
        }
        Ok(Round { lost, denied_passed: seen + met.tried.opened, gap })
    }

    fn let_happen(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Nothing => Ok(()),
            Event::Upgrade => self.firewall.ctl(&["upgrade"]).map(drop),
            // As a service manager does.
            Event::KeeperKill => {
                self.firewall.kill();
                self.firewall.revive()
            }
            Event::WorkerKill => {
                let before = self.worker()?;
                kill_process(before, Signal::KILL)?;
                let end = Instant::now() + PATIENCE;
                while self.worker().is_ok_and(|worker| worker == before) || self.worker().is_err() {
                    ensure!(Instant::now() < end, "no new worker");
                    thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            }
        }
    }

    fn worker(&self) -> Result<Pid> {
        let keeper = self.firewall.id();
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children"))?;
        let worker = children.split_whitespace().next().context("no worker")?;
        Pid::from_raw(worker.parse()?).context("a process id")
    }
}
