//! Real guests behind real firewalls.
//!
//! Two VMs are booted once per rung and meet one step after the other, so this test brings its own harness: it
//! reports as cargo's does. What this machine cannot carry is ignored with the reason.

use std::env;
use std::process::ExitCode;

use anyhow::Result;
use fw_tests::host::{self, Stay};
use fw_tests::image::Image;
use fw_tests::program;
use fw_tests::report::Report;
use fw_tests::rung::{self, Processor, Rung, Vmm, Wiring};
use fw_tests::site::Site;

mod nested;
mod rules;
mod steps;

fn main() -> ExitCode {
    let names: Vec<String> = names().collect();
    let Some(mut report) = Report::asked(names.iter().map(String::as_str)) else { return ExitCode::SUCCESS };
    // The switch's rung needs no namespace, but losing one hurts nobody: all rungs share the one entered here.
    let bridge = if env::var_os(host::INSIDE).is_none() {
        // The image needs the network that the namespaces will not have; if it fails it says so below.
        let _ = Image::ensure();
        program::build().and_then(|()| host::enter(Stay::Ends)).map_err(|why| format!("{why:#}"))
    } else {
        Ok(())
    };
    if let Err(why) = everything(&mut report, bridge) {
        report.note("the laboratory", &Err(why));
    }
    report.close()
}

fn names() -> impl Iterator<Item = String> {
    let wings = [("bridge", steps::BRIDGE), ("switch", steps::SWITCH)];
    wings.into_iter().flat_map(|(wing, steps)| steps.iter().map(move |step| name(wing, step)))
}

fn name(wing: &str, step: &steps::Step) -> String {
    format!("{wing}::{}", step.name)
}

fn everything(report: &mut Report, bridge: Result<(), String>) -> Result<()> {
    for program in ["qemu-system-x86_64", "busybox"] {
        if program::on_path(program).is_none() && env::var_os("PORTCULLIS_KVM").is_none() {
            report.ignore("real_guests", &format!("there is no {program} on this machine"));
            return Ok(());
        }
    }
    let image = Image::ensure()?;
    match bridge {
        Ok(()) => on_rung(report, "bridge", Rung::pick(&image, Wiring::Bridge)?, &image, steps::BRIDGE),
        Err(why) => report.ignore("bridge", &why),
    }
    if nested::is_inside() {
        return Ok(());
    }
    on_rung(report, "switch", Rung::pick(&image, Wiring::Switch)?, &image, steps::SWITCH);
    cloud_hypervisor(report, &image);
    Ok(())
}

/// Boots the two guests of a rung and takes them through its steps.
fn on_rung(report: &mut Report, wing: &str, rung: Rung, image: &Image, steps: &[steps::Step]) {
    if !steps.iter().any(|step| report.wants(&name(wing, step))) {
        return;
    }
    report.say(&format!("rung of {wing}: {rung}"));
    let Ok(folder) = tempfile::Builder::new().prefix("portcullis-").tempdir() else { return };
    let rules = [rules::web(1, &rules::ECHO), rules::client(1)];
    let opened = Site::open(rung, image, [&rules[0], &rules[1]], folder.path());
    let mut site = match opened {
        Ok(site) => site,
        Err(error) => {
            report.note(&format!("{wing}::two_guests_boot_behind_their_firewalls"), &Err(error));
            report.say(&format!("logs are kept in {}", folder.keep().display()));
            return;
        }
    };
    report.note(&format!("{wing}::two_guests_boot_behind_their_firewalls"), &Ok(None));
    let failed = report.failed();
    for step in steps {
        let failed = report.failed();
        report.run(&name(wing, step), || (step.run)(&mut site));
        if report.failed() > failed {
            for place in [&site.web, &site.client] {
                for (who, log) in [("firewall", place.firewall.log_tail()), ("VMM", place.vm.log_tail())] {
                    let log = log.replace('\n', "\n    ");
                    report.say(&format!("    the {who} of {} said last:\n    {log}", place.end.name));
                }
            }
        }
    }
    if report.failed() > failed {
        report.say(&format!("logs are kept in {}", folder.keep().display()));
    }
}

/// Cloud Hypervisor where QEMU was the rung: nested, because it runs on KVM only.
fn cloud_hypervisor(report: &mut Report, image: &Image) {
    const NAME: &str = "cloud_hypervisor";
    if !report.wants(NAME) {
        return;
    }
    match (program::on_path("cloud-hypervisor"), rung::kvm_boots(image)) {
        (None, _) => report.ignore(NAME, "there is no cloud-hypervisor on the path"),
        (Some(_), true) => {
            report.note("cloud_hypervisor_was_the_rung_of_bridge", &is_cloud_hypervisor(image))
        }
        (Some(vmm), false) => {
            if let Err(error) = nested::run(report, image, &vmm) {
                report.note("cloud_hypervisor::the_machine_around_it_runs", &Err(error));
            }
        }
    }
}

fn is_cloud_hypervisor(image: &Image) -> Result<Option<String>> {
    let rung = Rung::pick(image, Wiring::Bridge)?;
    anyhow::ensure!(
        matches!(rung.vmm, Vmm::CloudHypervisor(_)) && rung.processor == Processor::Kvm,
        "it was {rung}"
    );
    Ok(None)
}
