//! What two guests go through, step by step.
//!
//! It may know the site, the probes and the rules of `rules.rs`. It must never start a guest or a firewall.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fw_tests::host;
use fw_tests::probe::{Expected, Family, Finding, Probe, Service};
use fw_tests::site::{Place, Site, WEB, Who};
use fw_tests::suite::Size;
use serde_json::Value;

use crate::nested;
use crate::rules;

/// `None` = done, a text = why this rung cannot do it.
type Outcome = Result<Option<String>>;

/// A step with its sentence.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&mut Site) -> Outcome,
}

macro_rules! steps {
    ($($name:ident),+ $(,)?) => { &[$(Step { name: stringify!($name), run: $name }),+] };
}

/// With taps on a bridge.
pub(crate) const BRIDGE: &[Step] = steps![
    each_guest_takes_its_address_by_dhcp,
    what_the_rules_allow_gets_through,
    what_the_rules_refuse_is_refused_by_the_rule_that_says_so,
    the_host_is_judged_like_any_neighbour,
    a_borrowed_address_is_not_heard,
    fragments_arrive_whole,
    a_burst_of_datagrams_comes_back,
    tcp_with_segmentation_offload_loses_nothing,
    a_flow_survives_a_rule_change_that_keeps_it,
    a_flow_dies_by_the_rule_change_that_revokes_it,
    a_rebooted_guest_is_served_again,
    nothing_passes_without_a_firewall_and_a_restarted_one_serves_again,
];

/// With `unix:` uplinks and the switch in user space.
pub(crate) const SWITCH: &[Step] = steps![
    what_the_rules_allow_gets_through,
    what_the_rules_refuse_is_refused_by_the_rule_that_says_so,
    a_burst_of_datagrams_comes_back,
    a_little_tcp_arrives,
];

const PASSING: &[Probe] = &[
    ask(Service::Http(80), Family::V4, Expected::Passes),
    ask(Service::Http(80), Family::V6, Expected::Passes),
    ask(Service::Ping, Family::V4, Expected::Passes),
    ask(Service::Ping, Family::V6, Expected::Passes),
    ask(Service::Tcp(7), Family::V4, Expected::Passes),
    ask(Service::Udp(7), Family::V4, Expected::Passes),
    ask(Service::Udp(7), Family::V6, Expected::Passes),
];

const REFUSED: &[Probe] = &[
    ask(Service::Tcp(22), Family::V4, Expected::Denied("default-drop")),
    ask(Service::Tcp(22), Family::V6, Expected::Denied("default-drop")),
    ask(Service::Udp(9), Family::V4, Expected::Denied("default-drop")),
    ask(Service::Tcp(23), Family::V4, Expected::Denied("no-telnet")),
    ask(Service::Tcp(23), Family::V6, Expected::Denied("no-telnet")),
    ask(Service::Tcp(25), Family::V4, Expected::Denied("no-mail")),
    Probe {
        from: Who::Web,
        to: Who::Client,
        service: Service::Tcp(22),
        family: Family::V4,
        expected: Expected::Denied("default-drop"),
    },
];

const fn ask(service: Service, family: Family, expected: Expected) -> Probe {
    Probe { from: Who::Client, to: Who::Web, service, family, expected }
}

fn all_right(site: &mut Site, probes: &[Probe]) -> Outcome {
    let findings: Vec<Finding> = probes.iter().map(|probe| probe.ask(site)).collect::<Result<_>>()?;
    let wrong: Vec<String> =
        findings.iter().filter(|finding| !finding.is_right()).map(ToString::to_string).collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(None)
}

fn each_guest_takes_its_address_by_dhcp(site: &mut Site) -> Outcome {
    if !site.host.as_ref().is_some_and(host::Host::leases) {
        return Ok(Some("there is no dnsmasq on this machine".to_owned()));
    }
    for place in [&mut site.web, &mut site.client] {
        let lease = place.vm.must("cat /tmp/udhcpc.lease")?;
        let wanted = format!("lease {} from {}", place.end.v4, host::HOST_V4);
        ensure!(lease.trim() == wanted, "{} got `{}`", place.end.name, lease.trim());
    }
    Ok(None)
}

fn what_the_rules_allow_gets_through(site: &mut Site) -> Outcome {
    all_right(site, PASSING)
}

fn what_the_rules_refuse_is_refused_by_the_rule_that_says_so(site: &mut Site) -> Outcome {
    all_right(site, REFUSED)?;
    // A reject is told at once, where a drop lets the other end wait.
    let told = site.run_as(Who::Client, &format!("guest-probe tcp {} 23", WEB.v4))?;
    ensure!(told.trim() == "refused", "a rejected connection met `{}`", told.trim());
    Ok(None)
}

fn the_host_is_judged_like_any_neighbour(site: &mut Site) -> Outcome {
    let from_host =
        |to, service, expected| Probe { from: Who::Host, to, service, family: Family::V4, expected };
    let probes = [
        from_host(Who::Web, Service::Tcp(7), Expected::Passes),
        from_host(Who::Web, Service::Ping, Expected::Passes),
        from_host(Who::Client, Service::Tcp(22), Expected::Denied("default-drop")),
        from_host(Who::Client, Service::Ping, Expected::Denied("default-drop")),
    ];
    all_right(site, &probes)
}

fn a_borrowed_address_is_not_heard(site: &mut Site) -> Outcome {
    all_right(site, &[ask(Service::PingAs("10.0.0.66"), Family::V4, Expected::Denied("guard/address"))])
}

fn fragments_arrive_whole(site: &mut Site) -> Outcome {
    for command in ["ping -c 3 -W 3 -s 4000", "ping6 -c 3 -W 3 -s 4000"] {
        let target = if command.starts_with("ping6") { WEB.v6 } else { WEB.v4 };
        let said = site.client.vm.must(&format!("busybox {command} {target}"))?;
        ensure!(said.contains(" 0% packet loss"), "{said}");
    }
    Ok(None)
}

fn a_burst_of_datagrams_comes_back(site: &mut Site) -> Outcome {
    for target in [WEB.v4, WEB.v6] {
        let said = site.client.vm.must(&format!("guest-probe burst {target} 7 300"))?;
        ensure!(said.trim() == "echoed 300/300", "{target}: {}", said.trim());
    }
    Ok(None)
}

fn tcp_with_segmentation_offload_loses_nothing(site: &mut Site) -> Outcome {
    // The rest is still under way when the counters are read: how iperf3 ends its stream is not what is asked here.
    let (megabytes, rest) = match Size::asked() {
        _ if nested::is_inside() => (8, 8),
        Size::Fast => (64, 64),
        Size::Whole => (1024, 256),
        Size::Long => (8192, 1024),
    };
    let before = counters(site)?;
    start_stream(site, megabytes + rest)?;
    let end = Instant::now() + patience(megabytes);
    let after = loop {
        let now = counters(site)?;
        if now.bytes - before.bytes >= megabytes << 20 {
            break now;
        }
        ensure!(Instant::now() < end, "{} bytes in {:?}", now.bytes - before.bytes, patience(megabytes));
        thread::sleep(Duration::from_millis(20));
    };
    ensure!(after.drops == before.drops, "drops went from {:?} to {:?}", before.drops, after.drops);
    ensure!(
        after.tap_drops == before.tap_drops,
        "taps dropped: {:?} to {:?}",
        before.tap_drops,
        after.tap_drops
    );
    let each = (after.bytes - before.bytes) / (after.out - before.out).max(1);
    ensure!(each > 2000, "frames had {each} bytes in the middle: that was no segmentation offload");
    end_stream(site, megabytes, rest).map(|()| None)
}

fn a_little_tcp_arrives(site: &mut Site) -> Outcome {
    start_stream(site, 24)?;
    end_stream(site, 16, 8).map(|()| None)
}

/// The slowest machine is one that is emulated in an emulated one.
fn patience(megabytes: u64) -> Duration {
    Duration::from_secs(if nested::is_inside() { 240 } else { 60 + megabytes / 2 })
}

/// Starts sending this much from the client to the web guest.
fn start_stream(site: &mut Site, megabytes: u64) -> Result<()> {
    let command = format!(
        "rm -f /tmp/stream.done; (iperf3 -c {} -n {megabytes}M -i 0 -J --connect-timeout 5000 >/tmp/stream 2>&1; \
         touch /tmp/stream.done) &",
        WEB.v4
    );
    site.client.vm.must(&command).map(drop)
}

/// Waits for the end and makes sure that this much arrived. The receiver stops counting when the sender is done: of
/// the rest, some may be missing.
fn end_stream(site: &mut Site, megabytes: u64, rest: u64) -> Result<()> {
    let end = Instant::now() + patience(megabytes + rest);
    while site.client.vm.run("test -e /tmp/stream.done")?.status != 0 {
        ensure!(Instant::now() < end, "the stream does not end");
        thread::sleep(Duration::from_millis(200));
    }
    let said = site.client.vm.must("cat /tmp/stream")?;
    let told: Value = serde_json::from_str(&said).with_context(|| format!("iperf3 said: {said}"))?;
    let received = told.pointer("/end/sum_received/bytes").and_then(Value::as_u64).unwrap_or(0);
    ensure!(received >= megabytes << 20, "{received} bytes arrived; iperf3 said: {said}");
    Ok(())
}

/// What neighbours' solicitations and announcements to everybody meet, at any time.
const NOISE: [&str; 3] = ["default-drop", "dhcp-refused", "group-message-refused"];

struct Counters {
    drops: [BTreeMap<String, u64>; 2],
    tap_drops: BTreeMap<String, u64>,
    out: u64,
    bytes: u64,
}

fn counters(site: &Site) -> Result<Counters> {
    let stats = site.client.firewall.stats()?;
    let number = |place: &str| stats.pointer(place).and_then(Value::as_u64);
    let mut drops = [site.client.firewall.drops()?, site.web.firewall.drops()?];
    for drops in &mut drops {
        drops.retain(|reason, _| !NOISE.contains(&reason.as_str()));
    }
    Ok(Counters {
        drops,
        tap_drops: host::tap_drops()?,
        out: number("/frames/out").context("stats without frames")?,
        bytes: number("/rules/local/bytes").context("stats without the rule's bytes")?,
    })
}

fn a_flow_survives_a_rule_change_that_keeps_it(site: &mut Site) -> Outcome {
    hold_a_flow(&mut site.client)?;
    site.web.firewall.install(&rules::web(2, &rules::ECHO_BY_ANOTHER))?;
    thread::sleep(Duration::from_secs(2));
    let before = last_word(&mut site.client)?;
    thread::sleep(Duration::from_secs(1));
    let after = last_word(&mut site.client)?;
    ensure!(
        after.starts_with("alive") && after != before,
        "two seconds after the change: {before}, then: {after}"
    );
    Ok(None)
}

fn a_flow_dies_by_the_rule_change_that_revokes_it(site: &mut Site) -> Outcome {
    if !last_word(&mut site.client).is_ok_and(|word| word.starts_with("alive")) {
        site.web.firewall.install(&rules::web(2, &rules::ECHO))?;
        hold_a_flow(&mut site.client)?;
    }
    site.web.firewall.install(&rules::web(3, &rules::NO_ECHO))?;
    let end = Instant::now() + Duration::from_secs(5);
    while !last_word(&mut site.client)?.starts_with("dead") {
        ensure!(Instant::now() < end, "the flow lives on: {}", last_word(&mut site.client)?);
        thread::sleep(Duration::from_millis(100));
    }
    let word = last_word(&mut site.client)?;
    ensure!(word.starts_with("dead reset"), "the client was not told: {word}");
    all_right(site, &[ask(Service::Tcp(7), Family::V4, Expected::Denied("default-drop"))])?;
    site.web.firewall.install(&rules::web(4, &rules::ECHO))?;
    all_right(site, &[ask(Service::Tcp(7), Family::V4, Expected::Passes)])
}

fn hold_a_flow(client: &mut Place) -> Result<()> {
    client.vm.must(&format!("guest-probe hold {} 7 >/tmp/hold 2>&1 &", WEB.v4))?;
    let end = Instant::now() + Duration::from_secs(10);
    while !last_word(client)?.starts_with("alive") {
        if Instant::now() > end {
            bail!("no flow to hold: {}", client.vm.run("cat /tmp/hold")?.text);
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn last_word(client: &mut Place) -> Result<String> {
    Ok(client.vm.run("tail -n 1 /tmp/hold")?.text.trim().to_owned())
}

fn a_rebooted_guest_is_served_again(site: &mut Site) -> Outcome {
    site.web.vm.reboot()?;
    site.wait()?;
    all_right(site, PASSING)
}

fn nothing_passes_without_a_firewall_and_a_restarted_one_serves_again(site: &mut Site) -> Outcome {
    let ping = format!("busybox ping -c 1 -W 2 {} >/dev/null && echo open || echo closed", WEB.v4);
    site.web.firewall.kill();
    ensure!(site.run_as(Who::Client, &ping)?.trim() == "closed", "a guest was reached without a firewall");
    site.web.firewall.revive()?;
    let end = Instant::now() + Duration::from_secs(60);
    while site.run_as(Who::Client, &ping)?.trim() != "open" {
        ensure!(Instant::now() < end, "{} is not reached again within a minute", WEB.name);
    }
    all_right(site, PASSING)
}
