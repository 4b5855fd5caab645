//! Is a rule set whole and free of contradictions? Everything wrong with it, each with its place and the remedy.
//!
//! Knows what rules, sets and a NIC may say. Never knows how they are looked up.

mod nearest;
mod rule;

use std::collections::{BTreeMap, HashMap};

use fw_model::{Action, Addr, MacAddr, NicIdentity, RemoteMatch, Rule, RuleId, RuleSet};

use super::RuleSetError;
use nearest::nearest;

const RULES_MAX: usize = 65_535;
const SETS_MAX: usize = 10_000;
const PREFIXES_MAX: usize = 1_000_000;
const OWN_MAX: usize = 65_535;
const PORTS_MAX: usize = 1_000_000;
/// More would help nobody, and naming the nearest of 10,000 sets takes its time.
const FINDINGS_MAX: usize = 100;

/// Smallest MTU of IPv4 (RFC 791) and of IPv6 (RFC 8200 section 5).
const MTU_V4_MIN: u16 = 68;
const MTU_V6_MIN: u16 = 1280;

/// Everything wrong, in the order of the file.
pub(super) fn check(rules: &RuleSet) -> Vec<RuleSetError> {
    let mut findings = Findings(Vec::new());
    // Numbers first: what follows takes time that grows with them.
    check_numbers(rules, &mut findings);
    if findings.0.is_empty() {
        check_nic(&rules.nic, &mut findings);
        check_members(rules, &mut findings);
        check_bindings(rules, &mut findings);
        check_rules(rules, &mut findings);
    }
    findings.0
}

struct Findings(Vec<RuleSetError>);

impl Findings {
    fn add(&mut self, place: impl Into<String>, message: impl Into<String>) {
        if !self.is_full() {
            self.0.push(RuleSetError { place: place.into(), message: message.into() });
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() >= FINDINGS_MAX
    }
}

fn check_numbers(rules: &RuleSet, findings: &mut Findings) {
    let nic = &rules.nic;
    let own = nic.addresses.len() + nic.shared.len() + nic.gateways.len() + nic.dhcp_servers.len();
    let members: usize = rules.address_sets.values().map(|set| set.members.len()).sum();
    let is_prefix = |remote: &&RemoteMatch| matches!(remote, RemoteMatch::Prefix(_));
    let inline = |rule: &Rule| rule.remote.iter().chain(&rule.reply_from).filter(is_prefix).count();
    let inline: usize = rules.rules.iter().map(inline).sum();
    let ports: usize = rules.rules.iter().map(|rule| rule.ports.len() + rule.icmp.len()).sum();
    for (place, what, count, most) in [
        ("rules", "rules", rules.rules.len(), RULES_MAX),
        ("rules", "ports and ICMP types in all", ports, PORTS_MAX),
        ("address-sets", "address sets", rules.address_sets.len(), SETS_MAX),
        ("address-sets", "prefixes in all sets and rules", members + inline, PREFIXES_MAX),
        ("nic", "addresses", own, OWN_MAX),
    ] {
        if count > most {
            findings.add(place, format!("{count} {what} are more than the {most} there may be"));
        }
    }
}

fn check_nic(nic: &NicIdentity, findings: &mut Findings) {
    if nic.mac.is_group() || nic.mac == MacAddr([0; 6]) {
        findings.add("nic: mac", format!("{} is no address one NIC can have", nic.mac));
    }
    let shared = nic.shared.iter().map(|binding| binding.address);
    let has_v6 = nic.addresses.iter().map(|own| own.network()).chain(shared).any(|address| !address.is_v4());
    let (least, family) = if has_v6 { (MTU_V6_MIN, "IPv6") } else { (MTU_V4_MIN, "IPv4") };
    if let Some(mtu) = nic.mtu.filter(|mtu| *mtu < least) {
        findings.add("nic: mtu", format!("{mtu} is less than {family} needs; {least} to 65535 is possible"));
    }
}

fn check_members(rules: &RuleSet, findings: &mut Findings) {
    for (name, set) in &rules.address_sets {
        for member in set.members.iter().filter(|member| member.mac.is_some() && !member.prefix.is_host()) {
            let message = format!("{} is not one address, so it cannot have a mac", member.prefix);
            findings.add(format!("address set `{name}`"), message);
        }
    }
}

fn check_bindings(rules: &RuleSet, findings: &mut Findings) {
    let mut holders: HashMap<Addr, MacAddr> = HashMap::new();
    for (address, mac) in rules.bindings() {
        let holder = *holders.entry(address).or_insert(mac);
        if holder != mac {
            let message = format!("is bound to {holder} and to {mac}; one mac may use it, remove the other");
            findings.add(format!("address {address}"), message);
        }
    }
}

fn check_rules(rules: &RuleSet, findings: &mut Findings) {
    let mut places: BTreeMap<&RuleId, usize> = BTreeMap::new();
    for (place, rule) in rules.rules.iter().enumerate() {
        if places.insert(&rule.id, place).is_some() {
            findings.add(at(rule, "id"), "another rule has this id; ids must differ");
        }
        if rule.id.as_str().starts_with("guard/") {
            findings.add(at(rule, "id"), "ids that start with `guard/` are the built-in rules'");
        }
    }
    for (place, rule) in rules.rules.iter().enumerate() {
        rule::check(rule, findings);
        check_target(rule, place, &places, findings);
        check_names(rule, rules, findings);
        if findings.is_full() {
            break;
        }
    }
}

fn at(rule: &Rule, field: &str) -> String {
    format!("rule `{}`: {field}", rule.id)
}

fn check_target(rule: &Rule, place: usize, places: &BTreeMap<&RuleId, usize>, findings: &mut Findings) {
    let Action::Pass(target) = &rule.action else { return };
    match places.get(target) {
        Some(further) if *further > place => {}
        Some(_) => {
            let message =
                format!("rule `{target}` does not stand further down; a rule passes on forward only");
            findings.add(at(rule, "continue-at"), message);
        }
        None => {
            let known = places.keys().map(|id| id.as_str());
            findings.add(at(rule, "continue-at"), unknown("rule", &target.to_string(), known));
        }
    }
}

fn check_names(rule: &Rule, rules: &RuleSet, findings: &mut Findings) {
    for (field, remotes) in [("remote", &rule.remote), ("reply-from", &rule.reply_from)] {
        for remote in remotes {
            let RemoteMatch::Set(name) = remote else { continue };
            if !rules.address_sets.contains_key(name) && !findings.is_full() {
                let known = rules.address_sets.keys().map(ToString::to_string);
                findings.add(at(rule, field), unknown("address set", &name.to_string(), known));
            }
        }
    }
}

fn unknown(what: &str, name: &str, known: impl Iterator<Item = impl AsRef<str>>) -> String {
    match nearest(name, known) {
        Some(near) => format!("there is no {what} `{name}`; is `{near}` meant?"),
        None => format!("there is no {what} `{name}`"),
    }
}
