//! A move that is interfered with: somebody is killed in the middle of it, and where the guest is then.
//!
//! It may know who takes part in a move and how to kill one of them. It must never know how anything is put back.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::monitor::Monitor;
use super::mover;
use super::progress;
use super::site::{Site, spec};
use crate::process::Process;
use crate::vm::Vm;

/// How long a move may take to come to the phase in which it is interfered with.
const PATIENCE: Duration = Duration::from_secs(30);
/// And to end then: whoever waits for somebody who is dead waits for this long at most.
const END: Duration = Duration::from_secs(120);
/// Bytes of memory per second that a guest is sent with: slow enough to be in time.
const SLOW: u64 = 4 << 20;
const FAST: u64 = 1 << 40;

/// When a move is interfered with: as soon as the program says that it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Both ends are being asked.
    Check,
    /// The table goes ahead.
    Ahead,
    /// The guest's memory goes.
    Send,
    /// The guest has left.
    Verify,
}

impl Phase {
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Check, Self::Ahead, Self::Send, Self::Verify];

    const fn word(self) -> &'static str {
        match self {
            Self::Check => " s  check ",
            Self::Ahead => " s  ahead ",
            Self::Send => "% of memory",
            Self::Verify => " s  verify",
        }
    }
}

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    /// The program, which may tidy up: SIGTERM.
    Interrupted,
    /// The program, which may not.
    Program,
    /// The receiver at the target.
    Receiver,
    /// The firewall the guest is behind. It is started again a moment later.
    SourceFirewall,
    /// The firewall it is to be behind. It is started again a moment later.
    TargetFirewall,
    /// The VMM that waits for the guest.
    TargetVmm,
}

impl Victim {
    /// All whose death a guest survives.
    pub const ALL: [Self; 6] = [
        Self::Interrupted,
        Self::Program,
        Self::Receiver,
        Self::SourceFirewall,
        Self::TargetFirewall,
        Self::TargetVmm,
    ];
}

/// What became of it.
#[derive(Debug, Clone)]
pub struct Aborted {
    /// The program's exit code; none if it was killed.
    pub exit: Option<i32>,
    /// What it said last.
    pub said: String,
    /// Whether the guest moved all the same.
    pub moved: bool,
    /// At how many hosts it runs.
    pub living: usize,
    /// Conns that did not survive.
    pub lost: usize,
    /// Frames that the firewall of the other host let pass meanwhile.
    pub passed_elsewhere: u64,
}

impl Site<'_> {
    /// Begins to move the guest and kills `victim` when the move is in `phase`.
    ///
    /// # Errors
    /// A part does not start, the phase does not come, or the guest is nowhere.
    pub fn abort(&mut self, phase: Phase, victim: Victim) -> Result<Aborted> {
        self.moves += 1;
        let to = 1 - self.at;
        let door = self.folder.join(format!("arrive-{}", self.moves));
        let spec =
            spec(self.rung, self.folder, self.moves, self.firewalls.as_ref(), Some((to, door.clone())));
        let mut arriving = Some(Vm::start(self.rung, self.image, &spec, self.folder)?);
        let moving = spec.moving.context("a VM that moves")?;
        let mut there = Monitor::connect(&self.rung.vmm, &moving)?;
        self.monitor.slow_down(if phase == Phase::Verify { FAST } else { SLOW })?;
        let name = format!("move-{}", self.moves);
        let mover = self.mover.as_ref().context("a run by state-migrate")?;
        let mut order = mover.order(self.at, &self.orders, &door)?;
        let mut program = Process::start(&name, &mut order, self.folder)?;
        let log = self.folder.join(format!("{name}.log"));
        let said = || fs::read_to_string(&log).unwrap_or_default();
        let begin = Instant::now();
        while !said().contains(phase.word()) && program.is_alive() {
            ensure!(begin.elapsed() < PATIENCE, "{phase:?} does not come:\n{}", said());
            thread::sleep(Duration::from_millis(2));
        }
        self.kill(victim, &mut program, &mut arriving)?;
        // Of the program killed outright nothing more comes; whatever its VMM does goes on.
        let exit = program.exit_code(if victim == Victim::Program { Duration::ZERO } else { END });
        ensure!(victim == Victim::Program || exit.is_some(), "the program does not end:\n{}", said());
        // Before anybody who died is back: a guest that goes on its way alone may still arrive.
        let _ = self.monitor.slow_down(FAST);
        self.revive(victim)?;
        let moved = self.settle(&mut there, arriving, &moving)?;
        let before = self.passed_elsewhere()?;
        let lost = self.talks.ask_idle();
        Ok(Aborted {
            exit,
            said: said().lines().last().unwrap_or_default().to_owned(),
            moved,
            living: usize::from(self.monitor.is_running()) + usize::from(!moved && there.is_running()),
            lost,
            passed_elsewhere: self.passed_elsewhere()?.saturating_sub(before),
        })
    }

    fn kill(&mut self, victim: Victim, program: &mut Process, arriving: &mut Option<Vm>) -> Result<()> {
        let to = 1 - self.at;
        match victim {
            Victim::Interrupted => {
                let id = i32::try_from(program.id()).ok().and_then(Pid::from_raw);
                if let Some(id) = id.filter(|_| program.is_alive()) {
                    kill_process(id, Signal::TERM)?;
                }
            }
            Victim::Program => program.kill(),
            Victim::Receiver => self.mover.as_mut().context("receivers")?.kill_receiver(to),
            Victim::SourceFirewall => self.firewall(self.at)?.revive()?,
            Victim::TargetFirewall => self.firewall(to)?.revive()?,
            Victim::TargetVmm => *arriving = None,
        }
        Ok(())
    }

    fn revive(&mut self, victim: Victim) -> Result<()> {
        let to = 1 - self.at;
        match victim {
            Victim::Receiver => self.mover.as_mut().context("receivers")?.revive_receiver(to),
            Victim::Interrupted
            | Victim::Program
            | Victim::SourceFirewall
            | Victim::TargetFirewall
            | Victim::TargetVmm => Ok(()),
        }
    }

    fn firewall(&mut self, host: usize) -> Result<&mut crate::firewall::Firewall> {
        self.firewalls.as_mut().and_then(|firewalls| firewalls.get_mut(host)).context("a firewall")
    }

    /// Waits until the guest runs somewhere; whether that is at the other host, where we go with it.
    fn settle(
        &mut self,
        there: &mut Monitor,
        arriving: Option<Vm>,
        moving: &crate::vm::Moving,
    ) -> Result<bool> {
        let end = Instant::now() + END;
        // A guest that is still on its way runs here; it has to be there or to have given up.
        while Instant::now() < end {
            let (here, elsewhere) = (self.monitor.is_running(), there.is_running());
            if elsewhere && !here {
                std::mem::swap(&mut self.monitor, there);
                self.vm = arriving.context("a guest that runs in no VMM")?;
                self.orders = mover::orders(&self.rung.vmm, moving);
                self.at = 1 - self.at;
                self.vm.wait()?;
                return Ok(true);
            }
            if here && !self.monitor.is_sending() {
                self.vm.wait()?;
                return Ok(false);
            }
            thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!("the guest runs nowhere:\n{}", self.vm.log_tail())
    }

    /// Frames that the firewall where the guest is not has let pass.
    fn passed_elsewhere(&mut self) -> Result<u64> {
        let stats = self.there().context("a firewall")?.stats()?;
        let part = |name: &str| stats.pointer(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
        Ok(part("/frames/out") + part("/frames/in"))
    }
}

impl Aborted {
    /// Whether one side lives, with all conns, and the other is silent.
    ///
    /// # Errors
    /// It is not so, in words.
    pub fn require_one_live_side(&self) -> Result<()> {
        progress(&format!(
            "  exit {:?}, {}, {} lost: {}",
            self.exit,
            if self.moved { "moved all the same" } else { "stayed" },
            self.lost,
            self.said
        ));
        ensure!(self.living == 1, "{} sides live: {self:?}", self.living);
        ensure!(self.lost == 0, "{} conns died: {self:?}", self.lost);
        ensure!(self.passed_elsewhere == 0, "the other side forwards: {self:?}");
        Ok(())
    }
}
