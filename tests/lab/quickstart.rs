//! The first five minutes of an operator: two real VMs, two firewalls, and what the rules make of their traffic.
//!
//! It may know the laboratory and the rules in `quickstart/`. It must never call anything right that traffic did
//! not show.

use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::host::{self, Stay};
use crate::image::Image;
use crate::probe::{Expected, Family, Probe, Service};
use crate::program;
use crate::rung::{Rung, Wiring};
use crate::site::{Site, Who};

const WEB_RULES: &str = include_str!("quickstart/web.yaml");
const CLIENT_RULES: &str = include_str!("quickstart/client.yaml");

/// What the rules in `quickstart/` say.
const PROBES: &[Probe] = &[
    ask(Who::Client, Who::Web, Service::Http(80), Family::V4, Expected::Passes),
    ask(Who::Client, Who::Web, Service::Http(80), Family::V6, Expected::Passes),
    ask(Who::Client, Who::Web, Service::Ping, Family::V4, Expected::Passes),
    ask(Who::Client, Who::Web, Service::Ping, Family::V6, Expected::Passes),
    ask(Who::Client, Who::Web, Service::Tcp(22), Family::V4, Expected::Denied("default-drop")),
    ask(Who::Client, Who::Web, Service::Tcp(22), Family::V6, Expected::Denied("default-drop")),
    ask(Who::Client, Who::Web, Service::Udp(7), Family::V4, Expected::Denied("default-drop")),
    ask(Who::Client, Who::Web, Service::Tcp(23), Family::V4, Expected::Denied("no-telnet")),
    ask(Who::Client, Who::Web, Service::Tcp(25), Family::V4, Expected::Denied("no-mail")),
    ask(Who::Web, Who::Client, Service::Tcp(22), Family::V4, Expected::Denied("default-drop")),
    ask(Who::Client, Who::Web, Service::PingAs("10.0.0.66"), Family::V4, Expected::Denied("guard/address")),
];

/// What only a bridge lets the host try.
const HOST_PROBES: &[Probe] = &[
    ask(Who::Host, Who::Web, Service::Http(80), Family::V4, Expected::Passes),
    ask(Who::Host, Who::Client, Service::Tcp(22), Family::V4, Expected::Denied("default-drop")),
];

const fn ask(from: Who, to: Who, service: Service, family: Family, expected: Expected) -> Probe {
    Probe { from, to, service, family, expected }
}

/// Runs the quickstart; whether all was as the policy says.
///
/// # Errors
/// A part does not start.
pub fn run(stay: Stay) -> Result<bool> {
    if std::env::var_os(host::INSIDE).is_none() {
        say("making the guest image (Debian's cloud kernel and busybox)")?;
    }
    // It needs the network that the namespaces will not have.
    let image = Image::ensure()?;
    let wiring = match host::enter(stay) {
        Ok(()) => Wiring::Bridge,
        Err(why) => {
            say(&format!("no bridge here ({why:#}); going on without"))?;
            Wiring::Switch
        }
    };
    let start = Instant::now();
    let step = |what: &str| say(&format!("[{:3} s] {what}", start.elapsed().as_secs()));
    program::ours("vhost-fw")?;
    step("looking for the best VMM this machine carries")?;
    let rung = Rung::pick(&image, wiring)?;
    step(&format!("rung: {rung}"))?;
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    step("starting two firewalls and booting two VMs behind them: web and client")?;
    let mut site = Site::open(rung, &image, [WEB_RULES, CLIENT_RULES], folder.path())?;
    step("both are up; asking what the rules allow and what they refuse")?;
    say("")?;
    let mut wrong = 0_u32;
    let host_probes = if wiring == Wiring::Bridge { HOST_PROBES } else { &[] };
    for probe in PROBES.iter().chain(host_probes) {
        let finding = probe.ask(&mut site)?;
        wrong += u32::from(!finding.is_right());
        say(&finding.to_string())?;
    }
    say("")?;
    step(&match wrong {
        0 => "all is as the policy says".to_owned(),
        wrong => format!(
            "{wrong} probes were not as the policy says; logs are kept in {}",
            folder.path().display()
        ),
    })?;
    if stay == Stay::Remains {
        keep(site, &folder.keep())?;
    } else if wrong > 0 {
        let _ = folder.keep();
    }
    Ok(wrong == 0)
}

fn keep(site: Site, folder: &Path) -> Result<()> {
    let web = site.web.firewall.control();
    let bridged = site.host.is_some();
    let ids: Vec<String> = site.let_go().iter().map(u32::to_string).collect();
    let vhost_fw = program::ours("vhost-fw")?;
    say(&format!("still running, with its logs in {}", folder.display()))?;
    say(&format!("  look:  {} ctl --control {} stats", vhost_fw.display(), web.display()))?;
    if let Some(vm) = ids.first().filter(|_| bridged) {
        let probe = program::ours("guest-probe")?;
        say(&format!(
            "  visit: nsenter --target {vm} {} {} http 10.0.0.10 80",
            host::way_in(),
            probe.display()
        ))?;
    }
    say(&format!("  stop:  kill {}; rm -rf {}", ids.join(" "), folder.display()))
}

fn say(line: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
