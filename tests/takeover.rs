//! A guest's worker and keeper are killed under traffic, and its firewall is upgraded; and the checks that say so can fail.
//!
//! Namespaces serve all steps, so this test brings its own harness: it reports as cargo's does. What this machine cannot
//! carry is ignored with the reason.

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use fw_tests::host::{self, Stay};
use fw_tests::image::Image;
use fw_tests::program;
use fw_tests::report::Report;
use fw_tests::rung::{self, Processor, Rung, Wiring};
use fw_tests::suite::Size;
use fw_tests::takeover::{self, Event, Found, Keeping, Options, Under};

/// `None` = done, a text = why this machine cannot do it.
type Outcome = Result<Option<String>>;

type Step = (&'static str, fn() -> Outcome);

const STEPS: &[Step] = &[
    ("no_conn_is_lost_whichever_process_dies", no_conn_is_lost_whichever_process_dies),
    ("without_copies_all_conns_die", without_copies_all_conns_die),
    ("a_real_guest_keeps_its_conns", a_real_guest_keeps_its_conns),
];

fn main() -> ExitCode {
    let Some(mut report) = Report::asked(STEPS.iter().map(|(name, _)| *name)) else {
        return ExitCode::SUCCESS;
    };
    match ground() {
        Ok(()) => STEPS.iter().for_each(|(name, step)| report.run(name, step)),
        Err(why) => {
            STEPS.iter().for_each(|(name, _)| report.ignore(name, &format!("{why:#}")));
        }
    }
    report.close()
}

fn ground() -> Result<()> {
    if env::var_os(host::INSIDE).is_none() {
        program::build()?;
        // Before the namespaces, which have no network to fetch a kernel from; the step that needs it says if it failed.
        let _ = Image::ensure();
    }
    host::enter(Stay::Ends)?;
    takeover::make_host()
}

fn of(all: &[Found], event: Event) -> Result<&Found> {
    all.iter().find(|found| found.event() == event).with_context(|| format!("no {event} was seen"))
}

fn no_conn_is_lost_whichever_process_dies() -> Outcome {
    let (kills, conns) = match Size::asked() {
        Size::Fast => (1, 100),
        Size::Whole => (5, 300),
        Size::Long => (50, 1000),
    };
    let options =
        Options { worker_kills: kills, keeper_kills: kills, upgrades: 0, conns, ..Options::default() };
    let all = takeover::on(None, options)?;
    for (event, median_ms, most_ms) in
        [(Event::WorkerKill, 100.0, 1000.0), (Event::KeeperKill, 1000.0, 3000.0)]
    {
        let found = of(&all, event)?;
        ensure!(found.is_good() && found.rounds() == kills, "{}", found.line());
        let (median, most) = found.gaps_ms().context("no gap")?;
        ensure!(median <= median_ms && most <= most_ms, "{}", found.line());
    }
    Ok(None)
}

/// Zeros prove something only if the same eyes see what is there.
fn without_copies_all_conns_die() -> Outcome {
    let options = Options {
        worker_kills: 1,
        keeper_kills: 0,
        upgrades: 0,
        conns: 40,
        keeping: Keeping::Nothing,
        ..Options::default()
    };
    let all = takeover::on(None, options)?;
    let (nothing, killed) = (of(&all, Event::Nothing)?, of(&all, Event::WorkerKill)?);
    ensure!(nothing.is_good(), "{}", nothing.line());
    ensure!(killed.lost() >= 40 && killed.denied_passed() == 0, "{}", killed.line());
    Ok(None)
}

fn a_real_guest_keeps_its_conns() -> Outcome {
    if Size::asked() == Size::Fast {
        return Ok(Some("too long for --fast".to_owned()));
    }
    let vmm = match rung::qemu() {
        Ok(vmm) => vmm,
        Err(why) => return Ok(Some(format!("{why:#}"))),
    };
    let image = match Image::ensure() {
        Ok(image) => image,
        Err(why) => return Ok(Some(format!("no guest's kernel: {why:#}"))),
    };
    let processor = if rung::kvm_boots(&image) { Processor::Kvm } else { Processor::Emulated };
    let rung = (Rung { vmm, processor, wiring: Wiring::Bridge }, image);
    let (kills, conns) = if Size::asked() == Size::Long { (20, 1000) } else { (2, 100) };
    let options = Options {
        worker_kills: kills,
        keeper_kills: kills,
        upgrades: kills,
        conns,
        under: Under::Qemu,
        ..Options::default()
    };
    for found in takeover::on(Some(&rung), options)? {
        ensure!(found.is_good(), "{}", found.line());
    }
    Ok(None)
}
