//! A real guest moves between two hosts; and the checks that say so can fail.
//!
//! One namespace and two hosts serve all steps, so this test brings its own harness: it reports as cargo's does. What
//! this machine cannot carry is ignored with the reason.

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use fw_tests::host::{self, Stay};
use fw_tests::image::Image;
use fw_tests::migrate::{
    self, Behind, By, Found, Options, Outcome as Ran, Phase, RULES, Site, Under, Victim,
};
use fw_tests::program;
use fw_tests::report::Report;
use fw_tests::rung::{self, Processor, Rung, Vmm, Wiring};
use fw_tests::suite::Size;
use serde_json::Value;

/// `None` = done, a text = why this machine cannot do it.
type Outcome = Result<Option<String>>;

/// What all steps stand on.
struct Ground {
    rung: Rung,
    image: Image,
}

type Step = (&'static str, fn(&Ground) -> Outcome);

const STEPS: &[Step] = &[
    ("every_conn_moves_with_its_guest", every_conn_moves_with_its_guest),
    ("without_their_table_all_conns_die", without_their_table_all_conns_die),
    ("without_a_firewall_what_is_denied_arrives", without_a_firewall_what_is_denied_arrives),
    ("killed_conns_and_an_opened_port_are_noticed", killed_conns_and_an_opened_port_are_noticed),
    ("every_conn_moves_by_state_migrate", every_conn_moves_by_state_migrate),
    ("whoever_dies_in_a_move_one_side_lives", whoever_dies_in_a_move_one_side_lives),
    ("every_conn_moves_under_cloud_hypervisor", every_conn_moves_under_cloud_hypervisor),
];

fn main() -> ExitCode {
    let Some(mut report) = Report::asked(STEPS.iter().map(|(name, _)| *name)) else {
        return ExitCode::SUCCESS;
    };
    match ground() {
        Ok(ground) => {
            report.say(&format!("rung: {}", ground.rung));
            let fast = Size::asked() == Size::Fast;
            for (at, (name, step)) in STEPS.iter().enumerate() {
                if fast && at > 0 {
                    report.ignore(name, "too long for --fast");
                } else {
                    report.run(name, || step(&ground));
                }
            }
        }
        Err(why) => report.ignore("a_moving_guest", &why),
    }
    report.close()
}

/// The hosts, or why there are none here.
fn ground() -> Result<Ground, String> {
    if program::on_path("busybox").is_none() {
        return Err("there is no busybox on this machine".to_owned());
    }
    let vmm = migrate::vmm()?;
    let made = || -> Result<Ground> {
        // Before the namespaces, which have no network to fetch a kernel from.
        if env::var_os(host::INSIDE).is_none() {
            program::build()?;
            Image::ensure()?;
        }
        host::enter(Stay::Ends)?;
        let image = Image::ensure()?;
        migrate::make_hosts()?;
        let processor = if rung::kvm_boots(&image) { Processor::Kvm } else { Processor::Emulated };
        Ok(Ground { rung: Rung { vmm, processor, wiring: Wiring::Bridge }, image })
    };
    made().map_err(|why| format!("{why:#}"))
}

fn moved(ground: &Ground, options: Options) -> Outcome {
    let found = Found::on(&ground.rung, &ground.image, options)?;
    ensure!(found.is_good(), "{}", found.line(None));
    Ok(None)
}

fn every_conn_moves_with_its_guest(ground: &Ground) -> Outcome {
    let (count, conns) = match Size::asked() {
        Size::Fast => (2, 50),
        Size::Whole => (2, 200),
        Size::Long => (20, 1000),
    };
    moved(ground, Options { count, conns, behind: Behind::Firewalls, ..Options::default() })
}

fn without_their_table_all_conns_die(ground: &Ground) -> Outcome {
    moved(ground, Options { count: 1, conns: 40, behind: Behind::Forgetful, ..Options::default() })
}

fn without_a_firewall_what_is_denied_arrives(ground: &Ground) -> Outcome {
    moved(ground, Options { count: 1, conns: 40, behind: Behind::Nothing, ..Options::default() })
}

/// Zeros prove something only if the same eyes see what is there.
fn killed_conns_and_an_opened_port_are_noticed(ground: &Ground) -> Outcome {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let options = Options { count: 3, conns: 40, behind: Behind::Firewalls, ..Options::default() };
    let mut site = Site::open(&ground.rung, &ground.image, options, folder.path())?;
    let here = site.here().context("a firewall")?;
    // The 10 conns that the guest opened.
    here.ctl(&["conns", "kill", "rule=out"])?;
    // And a host that lets in what the other does not.
    let open = "  - {id: mistake, direction: in, action: allow, protocol: udp, ports: [22]}\n";
    site.there().context("a firewall")?.install(&format!("generation: 2\n{}{open}", RULES.trim_start()))?;
    let first = site.migrate()?;
    ensure!(first.lost == 10, "of 10 killed conns {} were missed", first.lost);
    ensure!(first.denied_passed > 0, "a host let datagrams to a closed port in, and nobody saw them");
    // What the mistake let in does not move on: the other host judges it again.
    let back = site.migrate()?;
    let revoked = back.arrived.pointer("/adopted/refused/revoked").and_then(Value::as_u64);
    ensure!(revoked > Some(0), "conns that only the mistake allowed moved on: {}", back.arrived);
    // Mended, and again nothing is lost and nothing arrives.
    site.there().context("a firewall")?.install(&format!("generation: 3\n{}", RULES.trim_start()))?;
    let mended = site.migrate()?;
    ensure!(mended.lost == 0 && mended.denied_passed == 0, "after the mistake was mended: {mended:?}");
    Ok(None)
}

fn every_conn_moves_by_state_migrate(ground: &Ground) -> Outcome {
    let (count, conns) = if Size::asked() == Size::Long { (20, 1000) } else { (2, 200) };
    moved(ground, Options { count, conns, by: By::StateMigrate, ..Options::default() })
}

/// In a normal run some of the pairs, with `--long` all.
fn whoever_dies_in_a_move_one_side_lives(ground: &Ground) -> Outcome {
    let pairs: Vec<(Phase, Victim)> = if Size::asked() == Size::Long {
        let all = Phase::ALL.iter().flat_map(|phase| Victim::ALL.map(|victim| (*phase, victim)));
        // There the guest is with that VMM by then.
        all.filter(|pair| *pair != (Phase::Verify, Victim::TargetVmm)).collect()
    } else {
        vec![
            (Phase::Ahead, Victim::TargetFirewall),
            (Phase::Send, Victim::Interrupted),
            (Phase::Send, Victim::TargetVmm),
            (Phase::Send, Victim::Program),
            (Phase::Send, Victim::SourceFirewall),
        ]
    };
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let options = Options { conns: 40, by: By::StateMigrate, ..Options::default() };
    let mut site = Site::open(&ground.rung, &ground.image, options, folder.path())?;
    for (phase, victim) in pairs {
        let what = format!("{phase:?}, {victim:?}");
        let aborted = site.abort(phase, victim).with_context(|| what.clone())?;
        aborted.require_one_live_side().with_context(|| what)?;
    }
    // And the next move is a move like any other.
    let last = site.migrate()?;
    ensure!(last.lost == 0 && last.denied_passed == 0, "after all of them: {last:?}");
    Ok(None)
}

/// Once: its second move of a guest fails upstream.
fn every_conn_moves_under_cloud_hypervisor(ground: &Ground) -> Outcome {
    let Some(vmm) = program::on_path("cloud-hypervisor") else {
        return Ok(Some("there is no cloud-hypervisor on the path".to_owned()));
    };
    let options = Options { count: 1, conns: 100, under: Under::CloudHypervisor, ..Options::default() };
    if ground.rung.processor == Processor::Kvm {
        let rung = Rung { vmm: Vmm::CloudHypervisor(vmm), ..ground.rung.clone() };
        let found = Found::on(&rung, &ground.image, options)?;
        ensure!(found.is_good(), "{}", found.line(None));
        return Ok(None);
    }
    match migrate::run(options)? {
        Ran::Ran { line, good } => ensure!(good, "{line}"),
        Ran::NotRun(why) => return Ok(Some(why)),
    }
    Ok(None)
}
