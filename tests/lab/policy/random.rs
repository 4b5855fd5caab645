//! Random policies, written out as documents.
//!
//! Two tenants with the same addresses in realms of their own, workloads in many groups, every tier and action. It may know
//! the documents' keys. It must never know what they lead to.

use crate::random::Random;
use std::fmt::Write as _;

const LABELS: [(&str, [&str; 3]); 2] = [("app", ["web", "app", "db"]), ("env", ["prod", "stage", "test"])];
const GROUPS: [&str; 7] = ["one", "two", "three", "nest", "less", "range", "hole"];
const SERVICES: [&str; 8] =
    ["http", "dns", "many", "tcp/22", "icmp/echo-request", "usual", "any", "provider/shared"];
const PREFIXES: [&str; 5] = ["10.0.0.0/29", "10.0.0.2", "198.51.100.0/24", "10.0.0.0/8", "2001:db8::/64"];

/// Workloads of each tenant; the first of them has two IPv4 addresses, every second an IPv6 one too.
pub const WORKLOADS: u64 = 6;
/// The tenants.
pub const TENANTS: [&str; 2] = ["red", "blue"];

/// Documents that follow from `random`.
#[must_use]
pub fn policy(random: &mut Random) -> String {
    let mut text = inventory(random);
    text.push_str(&provider(random));
    for tenant in TENANTS {
        text.push_str(&tenant_document(tenant, random));
    }
    text
}

fn inventory(random: &mut Random) -> String {
    let mut text = "tenants: [red, blue]\nlabel-keys: {zone: [north, south]}\n\
        fact-keys: {infected: [\"no\", \"yes\"]}\nsegments:\n"
        .to_owned();
    for tenant in TENANTS {
        let _ = writeln!(text, "  {tenant}-a: {{tenant: {tenant}, realm: {tenant}}}");
        let _ = writeln!(text, "  {tenant}-b: {{tenant: {tenant}, realm: {tenant}}}");
    }
    text.push_str("workloads:\n");
    for (place, tenant) in TENANTS.iter().enumerate() {
        for number in 0..WORKLOADS {
            let segment = if number % 3 == 2 { "b" } else { "a" };
            let mut addresses = format!("10.0.0.{}", number + 1);
            if number == 0 {
                addresses.push_str(", 10.0.0.9");
            }
            if number % 2 == 1 {
                let _ = write!(addresses, ", \"2001:db8::{number}\"");
            }
            let zone = if random.once_in(2) { "north" } else { "south" };
            let infected = if random.once_in(4) { "yes" } else { "no" };
            let _ = writeln!(
                text,
                "  {tenant}-{number}: {{tenant: {tenant}, labels: {{zone: {zone}}}, \
                 facts: {{infected: \"{infected}\"}}, nics: [{{id: {tenant}-{number}, segment: {tenant}-{segment}, \
                 mac: \"52:54:00:00:0{place}:0{number}\", addresses: [{addresses}]}}]}}"
            );
        }
    }
    text
}

fn provider(random: &mut Random) -> String {
    let complete = if random.once_in(6) { ", complete: false" } else { "" };
    let mut text = format!(
        "groups:\n  north: {{select: {{zone: north}}}}\n  sick: {{select: {{fact.infected: \"yes\"}}{complete}}}\n  \
         reds: {{select: {{tenant: red}}, share: all}}\n  corp: {{ranges: [198.51.100.0/24, 10.0.0.4/30], exclude: {{groups: [north]}}, share: all}}\n\
         services:\n  shared: {{protocol: tcp, ports: [9000-9010]}}\npolicies:\n"
    );
    for (place, tier) in
        ["provider-emergency", "provider-infrastructure", "provider-default"].iter().enumerate()
    {
        let groups = ["north", "sick", "reds", "corp"];
        write_policy(&mut text, &format!("p{place}"), tier, &groups, &["shared", "tcp/22", "any"], random);
    }
    text
}

fn tenant_document(tenant: &str, random: &mut Random) -> String {
    let mut text = format!("---\ntenant: {tenant}\nlabel-keys:\n");
    for (key, values) in LABELS {
        let _ = writeln!(text, "  {key}: [{}]", values.join(", "));
    }
    text.push_str("labels:\n");
    for number in 0..WORKLOADS {
        let mut labels = Vec::new();
        for (key, values) in LABELS {
            if !random.once_in(4) {
                labels.push(format!("{key}: {}", random.one_of(&values)));
            }
        }
        let _ = writeln!(text, "  {tenant}-{number}: {{{}}}", labels.join(", "));
    }
    let member = |random: &mut Random| format!("{tenant}-{}", random.below(WORKLOADS));
    let (one, two) = (member(random), member(random));
    let complete = if random.once_in(6) { ", complete: false" } else { "" };
    let _ = write!(
        text,
        "groups:\n  one: {{select: {{app: {}}}}}\n  two: {{members: [{one}, {two}]{complete}}}\n  \
         three: {{select: [{{app: [web, db], env: {}}}, {{env: any, app: app}}]}}\n  \
         nest: {{groups: [one, two]}}\n  less: {{groups: [nest, three], exclude: {{members: [{two}], select: {{env: test}}}}}}\n  \
         range: {{ranges: [10.0.0.0/29, 198.51.100.0/25], members: [{one}]}}\n  \
         hole: {{groups: [range, provider/corp], exclude: {{groups: [one], ranges: [10.0.0.3, 198.51.100.7]}}}}\n\
         services:\n  http: {{protocol: tcp, ports: [80, 8000-8010]}}\n  dns: [{{protocol: udp, ports: [53]}}, {{protocol: tcp, ports: [53]}}]\n  \
         many: [{{protocol: tcp, ports: [1-1000]}}, {{protocol: icmp}}, {{protocol: 47}}]\npolicies:\n",
        random.one_of(&LABELS[0].1),
        random.one_of(&LABELS[1].1),
    );
    let mut groups = GROUPS.to_vec();
    groups.extend(["provider/reds", "provider/corp"]);
    for (place, tier) in
        ["tenant-emergency", "environment", "application", "application", "tenant-default"].iter().enumerate()
    {
        write_policy(&mut text, &format!("t{place}"), tier, &groups, &SERVICES, random);
    }
    text
}

fn write_policy(
    text: &mut String,
    name: &str,
    tier: &str,
    groups: &[&str],
    services: &[&str],
    random: &mut Random,
) {
    let position = name.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let _ = writeln!(text, "  {name}:\n    tier: {tier}\n    position: {position}\n    rules:");
    let rules = random.below(5);
    if rules == 0 {
        text.truncate(text.len() - 1);
        text.push_str(" []\n");
    }
    for rule in 0..rules {
        let verb = *random.one_of(&["allow", "allow", "allow", "drop", "reject", "pass"]);
        let ends = match random.below(8) {
            0 => format!("within: {}", random.one_of(groups)),
            1 if !name.starts_with('p') => format!("same: {}", random.one_of(&["app", "env"])),
            _ => format!("from: {}, to: {}", peers(groups, random), peers(groups, random)),
        };
        let applied = if random.once_in(6) {
            format!(", applied_to: [{}]", random.one_of(groups))
        } else {
            String::new()
        };
        let service = if random.once_in(3) {
            format!("[{}, {}]", random.one_of(services), random.one_of(services))
        } else {
            (*random.one_of(services)).to_owned()
        };
        let _ =
            writeln!(text, "      - {{name: r{rule}, action: {verb}, {ends}, services: {service}{applied}}}");
    }
}

fn peers(groups: &[&str], random: &mut Random) -> String {
    let quoted = |prefix: &&str| format!("\"{prefix}\"");
    match random.below(6) {
        0 => "any".to_owned(),
        1 => quoted(random.one_of(&PREFIXES)),
        2 => format!("[{}, {}]", random.one_of(groups), quoted(random.one_of(&PREFIXES))),
        3 => format!("[{}, {}]", random.one_of(groups), random.one_of(groups)),
        _ => (*random.one_of(groups)).to_owned(),
    }
}
