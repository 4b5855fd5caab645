//! How long a policy takes to compile, what a NIC's rules cost then, and what one more member costs.
//!
//! `cargo bench -p policy-compiler --bench compile -- [NAME…]`: JSON lines on stdout, one for each bench whose name holds a
//! NAME; progress on stderr.
#![expect(clippy::print_stdout, reason = "scripts/bench reads JSON lines from stdout")]
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use policy_compiler::{Author, Intent, Owner, Ref, SharedForm, Source, compile, read};

const GROUPS: usize = 1_000;
const POLICIES: usize = 1_000;
const RULES: usize = 10;
const MEMBERS: usize = 100_000;
/// Members of the group that grows.
const LARGE: usize = 10_000;
const ROUNDS: usize = 5;

/// A tenant with 100,000 workloads of a NIC each, in 1,000 groups of 100 by label, and one of 10,000 by name.
fn documents() -> String {
    let mut text = String::from("tenants: [shop]\nsegments:\n");
    for segment in 0..500 {
        let _ = writeln!(text, "  s{segment}: {{realm: shop}}");
    }
    text.push_str("workloads:\n");
    for number in 0..MEMBERS {
        let [.., a, b, c] = u32::try_from(number).unwrap_or(0).to_be_bytes();
        let _ = writeln!(
            text,
            "  w{number}: {{tenant: shop, nics: [{{id: w{number}, segment: s{}, mac: \"52:54:00:{a:02x}:{b:02x}:{c:02x}\", \
             addresses: [10.{a}.{b}.{c}]}}]}}",
            number % 500
        );
    }
    text.push_str("---\ntenant: shop\nlabel-keys: {app: any}\nlabels:\n");
    for number in 0..MEMBERS {
        let _ = writeln!(text, "  w{number}: {{app: a{}}}", number % GROUPS);
    }
    text.push_str("groups:\n");
    for group in 0..GROUPS {
        let _ = writeln!(text, "  g{group}: {{select: {{app: a{group}}}}}");
    }
    let members: Vec<String> = (0..LARGE).map(|number| format!("w{}", number * 3)).collect();
    let _ = writeln!(text, "  large: {{members: [{}]}}\npolicies:", members.join(", "));
    for policy in 0..POLICIES {
        let _ = writeln!(text, "  p{policy}:\n    tier: application\n    position: {policy}\n    rules:");
        for rule in 0..RULES {
            let (from, to) = ((policy * 7 + rule * 131) % GROUPS, (policy + rule * 17 + 1) % GROUPS);
            let from = if policy == 0 && rule == 0 { "large".to_owned() } else { format!("g{from}") };
            let _ = writeln!(
                text,
                "      - {{name: r{rule}, action: allow, from: {from}, to: g{to}, services: tcp/{}}}",
                1_000 + policy
            );
        }
    }
    text
}

fn intent(text: &str) -> Result<Intent, String> {
    let source = Source { name: "bench.yaml", text, author: Author::Provider };
    read(&[source]).map_err(|refusal| refusal.to_string())
}

/// The time of each round in seconds, the work's set-up not counted.
fn timed<T, R>(mut set_up: impl FnMut() -> T, mut work: impl FnMut(T) -> R) -> Vec<f64> {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let input = set_up();
            let start = Instant::now();
            black_box(work(input));
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

fn say(name: &str, unit: &str, times: &[f64], factor: f64, peer: Option<(&str, f64)>) {
    let (Some(low), Some(middle), Some(high)) = (times.first(), times.get(times.len() / 2), times.last())
    else {
        return;
    };
    let ours = middle * factor;
    let spread = (high - low) / middle;
    let number = |value: f64| format!("{value:.4}");
    let (peer_name, peer, ratio) = match peer {
        Some((name, peer)) => (format!("\"{name}\""), number(peer * factor), number(middle / peer)),
        None => ("null".to_owned(), "null".to_owned(), "null".to_owned()),
    };
    println!(
        "{{\"bench\":\"{name}\",\"ours\":{},\"peer\":{peer},\"peer_name\":{peer_name},\"unit\":\"{unit}\",\"ratio\":{ratio},\
         \"better\":\"lower\",\"n\":{},\"spread\":{}}}",
        number(ours),
        times.len(),
        number(spread)
    );
}

/// What nobody who reads the documents can leave out: looking at every byte of them.
fn floor(text: &str) -> f64 {
    let times = timed(
        || (),
        |()| text.lines().map(|line| line.bytes().filter(|byte| *byte == b':').count()).sum::<usize>(),
    );
    times.get(times.len() / 2).copied().unwrap_or(0.0)
}

fn run(wanted: &[String]) -> Result<(), String> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()));
    let text = documents();
    eprintln!("compiler: documents of {} MiB", text.len() >> 20);
    let intent_once = intent(&text)?;
    if is_wanted("compiler/read-100k") {
        let times = timed(|| (), |()| intent(&text).map(|intent| intent.workloads.len()));
        say("compiler/read-100k", "ms", &times, 1e3, Some(("counting the documents' colons", floor(&text))));
    }
    if is_wanted("compiler/shared-form") {
        let times = timed(|| intent_once.clone(), |intent| compile(intent, 0, 1));
        say("compiler/shared-form", "ms", &times, 1e3, None);
    }
    let compiled = compile(intent_once, 0, 1);
    eprintln!("compiler: {} warnings", compiled.warnings.len());
    let mut form = compiled.form;
    if is_wanted("compiler/nic") {
        nics(&form);
    }
    if is_wanted("compiler/member") {
        members(&mut form)?;
    }
    Ok(())
}

/// One NIC of 1,000, each its own.
fn nics(form: &SharedForm) {
    let some: Vec<_> = form.nics().step_by(100).cloned().collect();
    let mut rules = 0;
    let times = timed(
        || (),
        |()| {
            rules = some.iter().filter_map(|nic| form.rules_of(nic, 0)).map(|set| set.rules.len()).sum();
        },
    );
    eprintln!("compiler: {} rules a NIC", rules / some.len().max(1));
    let of_one: Vec<f64> = times.iter().map(|time| time / some.len() as f64).collect();
    say("compiler/nic", "ms", &of_one, 1e3, None);
}

/// Workloads join the large group one by one.
fn members(form: &mut SharedForm) -> Result<(), String> {
    let group = Ref {
        owner: Owner::Tenant("shop".parse().map_err(|_| "name")?),
        name: "large".parse().map_err(|_| "name")?,
    };
    let mut next = 1;
    let mut bytes = 0;
    let mut join = |form: &mut SharedForm| -> Result<usize, String> {
        let workload = format!("w{next}").parse().map_err(|_| "name")?;
        next += 3;
        let change = form.set_member(&group, &workload, true).map_err(|error| error.to_string())?;
        // A delta's text: what is longest of the forms it may travel in.
        let size = |delta: &policy_compiler::SetDelta| {
            let members = delta.added.iter().chain(&delta.removed);
            delta.set.to_string().len()
                + members.map(|member| member.prefix.to_string().len() + 8).sum::<usize>()
        };
        Ok(change.sets.iter().map(size).sum())
    };
    let mut failed = None;
    let times = timed(
        || (),
        |()| match join(form) {
            Ok(size) => bytes = size,
            Err(error) => failed = Some(error),
        },
    );
    if let Some(error) = failed {
        return Err(error);
    }
    say("compiler/member-10k", "ms", &times, 1e3, None);
    #[expect(clippy::cast_precision_loss, reason = "a few hundred bytes")]
    say("compiler/delta-10k", "bytes", &[bytes as f64], 1.0, None);
    Ok(())
}

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<String> =
        arguments.iter().filter(|argument| !argument.starts_with('-')).cloned().collect();
    if wanted.is_empty() && !arguments.iter().any(|argument| argument == "--bench") {
        eprintln!("a bench: run it with cargo bench, or name what to run");
        return std::process::ExitCode::SUCCESS;
    }
    match run(&wanted) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compiler: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
