//! From a change of the policy to the last acknowledgement: 100 agents with 10 NICs each, on this machine.
//!
//! Serve, its agents, their certificates, disks and the link are the real programs; the NICs are control sockets that take rules as an
//! engine does and judge nothing. It may know what an operator does and waits for. It must never count a NIC that did not say so.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use super::{Rounds, note};
use crate::control_plane::ControlPlane;

mod socket;
use socket::Nic;

const HOSTS: usize = 100;
const NICS_PER_HOST: usize = 10;
/// Members of the group that one more joins.
const MEMBERS: usize = 10_000;
/// Changes and attachments that are timed.
const CHANGES: u32 = 30;
const ATTACHED: usize = 30;
const JOINS: usize = 10;
/// The longest all changes together may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was measured, once for all benches of this family.
#[derive(Debug, Default)]
struct Figures {
    changes_ms: Vec<f64>,
    attached_ms: Vec<f64>,
    joined_bytes: Vec<f64>,
    joined_compile_ms: Vec<f64>,
    joined_ms: Vec<f64>,
}

pub(super) fn p50() -> Result<Rounds> {
    figure(|figures| vec![quantile(&figures.changes_ms, 0.5)])
}

pub(super) fn p99() -> Result<Rounds> {
    figure(|figures| vec![quantile(&figures.changes_ms, 0.99)])
}

pub(super) fn attach_p99() -> Result<Rounds> {
    figure(|figures| vec![quantile(&figures.attached_ms, 0.99)])
}

pub(super) fn member_bytes() -> Result<Rounds> {
    figure(|figures| figures.joined_bytes.clone())
}

pub(super) fn member_compile() -> Result<Rounds> {
    figure(|figures| figures.joined_compile_ms.clone())
}

pub(super) fn member_enforced() -> Result<Rounds> {
    figure(|figures| figures.joined_ms.clone())
}

fn figure(of: impl Fn(&Figures) -> Vec<f64>) -> Result<Rounds> {
    static FIGURES: OnceLock<Result<Figures, String>> = OnceLock::new();
    let measured = FIGURES.get_or_init(|| measure().map_err(|error| format!("{error:#}")));
    let ours = of(measured.as_ref().map_err(|why| anyhow!("{why}"))?);
    Ok(Rounds { ours, peer: Vec::new() })
}

fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let beyond = sorted.iter().zip(1_u32..).find(|(_, place)| {
        f64::from(*place) >= share * f64::from(u32::try_from(sorted.len()).unwrap_or(u32::MAX))
    });
    beyond.map_or(0.0, |(figure, _)| *figure)
}

fn measure() -> Result<Figures> {
    let folder = tempfile::Builder::new().prefix("portcullis-propagation-").tempdir()?;
    let mut plane = ControlPlane::start(folder.path())?;
    let counted = Counted::before(plane.agents_port())?;
    note(&format!(
        "  enrolling {HOSTS} agents (real programs) with {NICS_PER_HOST} NICs each (sockets without an engine)"
    ));
    plane.apply("provider", "base", &provider(0))?;
    plane.apply("shop", "shop", &shop(8080))?;
    let mut nics = Vec::new();
    for host in 0..HOSTS {
        let name = format!("h{host}");
        for nic in 0..NICS_PER_HOST {
            nics.push(Nic::attach(&plane.run_dir(&name)?, &format!("n{host}-{nic}"))?);
        }
        plane.add_host_at(&name, if host == 0 { counted.port } else { plane.agents_port() })?;
    }
    let begin = Instant::now();
    while nics.iter().any(|nic| nic.generation() == 0) {
        ensure!(begin.elapsed() < PATIENCE, "not every NIC got rules at first");
        thread::sleep(Duration::from_millis(100));
    }
    let mut figures = Figures::default();
    note(&format!("  {CHANGES} changes, each to all {} NICs", nics.len()));
    let begin = Instant::now();
    for change in 0..CHANGES {
        ensure!(begin.elapsed() < PATIENCE, "{change} changes took {PATIENCE:?}");
        let text = shop(9000 + u16::try_from(change)?);
        let start = Instant::now();
        plane.apply("shop", "shop", &text)?;
        figures.changes_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        let newest = nics.first().map_or(0, Nic::generation);
        ensure!(nics.iter().all(|nic| nic.generation() == newest), "acknowledged and not enforced");
    }
    note(&format!("  {ATTACHED} NICs come"));
    for spare in 0..ATTACHED {
        let host = spare % HOSTS;
        let start = Instant::now();
        let nic = Nic::attach(&plane.run_dir(&format!("h{host}"))?, &format!("n{host}-{NICS_PER_HOST}"))?;
        while nic.generation() == 0 {
            ensure!(start.elapsed() < PATIENCE, "a NIC that came gets no rules");
            thread::sleep(Duration::from_millis(1));
        }
        figures.attached_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        nics.push(nic);
    }
    note(&format!("  a group of {MEMBERS}, and {JOINS} more, one by one"));
    plane.apply("provider", "base", &provider(MEMBERS + JOINS))?;
    for member in MEMBERS..MEMBERS + JOINS {
        let before = counted.bytes.load(Ordering::Relaxed);
        let start = Instant::now();
        let words = ["facts", "set", &format!("m{member}"), "big=yes", "--wait", "enforced"];
        plane.must(&words)?;
        figures.joined_ms.push(start.elapsed().as_secs_f64() * 1000.0);
        let bytes = counted.bytes.load(Ordering::Relaxed).saturating_sub(before);
        figures.joined_bytes.push(f64::from(u32::try_from(bytes)?));
        figures.joined_compile_ms.push(compiled_ms(folder.path())?);
    }
    Ok(figures)
}

/// What serve said of its last compilation.
fn compiled_ms(folder: &Path) -> Result<f64> {
    let log = fs::read_to_string(folder.join("serve.log"))?;
    let last = log.lines().rev().find_map(|line| line.split_once("compiled in ")?.1.split_once(" ms"));
    last.and_then(|(ms, _)| ms.parse().ok()).context("serve says nothing of compiling")
}

/// Every NIC, one more for each host, and `members` in a group that every NIC's rules name.
fn provider(members: usize) -> String {
    let mut text = String::from(
        "tenants: [shop]\nfact-keys: {big: [\"yes\"]}\nsegments: {front: {tenant: shop, realm: shop}}\n\
         groups: {big: {select: {fact.big: \"yes\"}}, all: {select: {tenant: shop}}}\n\
         policies: {big: {tier: provider-emergency, position: 1, rules: [{name: big, action: drop, from: big, to: all, services: tcp/23, applied_to: [nics]}]}}\n",
    );
    text.push_str("workloads:\n");
    let mut add = |name: &str, facts: &str, number: usize| {
        let [.., a, b, c] = u32::try_from(number).unwrap_or(0).to_be_bytes();
        text.push_str(&format!(
            "  {name}: {{tenant: shop, {facts}nics: [{{id: {name}, segment: front, mac: \"52:54:01:{a:02x}:{b:02x}:{c:02x}\", addresses: [10.{a}.{b}.{c}]}}]}}\n"
        ));
    };
    let mut number = 0;
    let mut named = Vec::new();
    for host in 0..HOSTS {
        for nic in 0..=NICS_PER_HOST {
            number += 1;
            named.push(format!("n{host}-{nic}"));
            add(&format!("n{host}-{nic}"), "", number);
        }
    }
    for member in 0..members {
        number += 1;
        add(&format!("m{member}"), if member < MEMBERS { "facts: {big: \"yes\"}, " } else { "" }, number);
    }
    text.replacen("groups: {", &format!("groups: {{nics: {{members: [{}]}}, ", named.join(", ")), 1)
}

fn shop(port: u16) -> String {
    format!(
        "tenant: shop\npolicies: {{shop: {{tier: application, position: 1, rules: [{{name: a, action: allow, from: any, to: any, services: tcp/{port}}}]}}}}\n"
    )
}

/// A way from one agent to serve that counts what comes from serve, TLS and all.
struct Counted {
    port: u16,
    bytes: Arc<AtomicU64>,
}

impl Counted {
    fn before(serve: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let bytes = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&bytes);
        thread::spawn(move || {
            for agent in listener.incoming().filter_map(Result::ok) {
                if let Ok(serve) = TcpStream::connect(("127.0.0.1", serve)) {
                    let _ = pass(&agent, &serve, None);
                    let _ = pass(&serve, &agent, Some(Arc::clone(&counter)));
                }
            }
        });
        Ok(Self { port, bytes })
    }
}

/// Passes on what comes, until either end goes.
fn pass(from: &TcpStream, to: &TcpStream, counter: Option<Arc<AtomicU64>>) -> Result<()> {
    let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
    thread::spawn(move || {
        let mut some = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut some) {
            let Some(read) = some.get(..length) else { break };
            if to.write_all(read).is_err() {
                break;
            }
            if let Some(counter) = &counter {
                counter.fetch_add(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    Ok(())
}
