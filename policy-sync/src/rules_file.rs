//! A NIC's rules as the file that `vhost-fw --rules` reads.
//!
//! Knows the keys of that file. Never knows where a rule comes from.

use fw_model::{
    Action, Binding, DefaultAction, Direction, GuardSwitches, Helper, LinkLocal, Member, NicIdentity,
    OnRevoke, ProtocolMatch, RemoteMatch, Rule, RuleSet,
};
use serde_json::{Map, Value, json};

/// The file's content. Timers and limits of the NIC are left out where they are the program's own.
#[must_use]
pub fn rules_file(rules: &RuleSet) -> Value {
    let sets: Map<String, Value> = rules
        .address_sets
        .iter()
        .map(|(name, set)| (name.to_string(), set.members.iter().map(member).collect()))
        .collect();
    json!({
        "generation": rules.generation,
        "nic": nic(&rules.nic),
        "defaults": {"out": default(rules.defaults.out), "in": default(rules.defaults.in_)},
        "address-sets": sets,
        "rules": rules.rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

fn nic(nic: &NicIdentity) -> Value {
    let mut keys = Map::new();
    keys.insert("id".to_owned(), json!(nic.id.to_string()));
    keys.insert("mac".to_owned(), json!(nic.mac.to_string()));
    keys.insert("addresses".to_owned(), shown(&nic.addresses));
    let link_local = match &nic.link_local {
        LinkLocal::Eui64 => json!("eui64"),
        LinkLocal::Any => json!("any"),
        LinkLocal::Addresses(addresses) => shown(addresses),
    };
    keys.insert("link-local".to_owned(), link_local);
    let mut optional = |key: &str, value: Option<Value>| {
        keys.extend(value.map(|value| (key.to_owned(), value)));
    };
    optional("vlan", nic.vlan.map(|vlan| json!(vlan.get())));
    optional("mtu", nic.mtu.map(|mtu| json!(mtu)));
    optional("shared", bindings(&nic.shared));
    optional("gateways", bindings(&nic.gateways));
    optional("dhcp-servers", (!nic.dhcp_servers.is_empty()).then(|| shown(&nic.dhcp_servers)));
    let GuardSwitches { arp, nd, dhcp, ra, mld } = nic.guard;
    let guard = json!({"arp": arp, "nd": nd, "dhcp": dhcp, "ra": ra, "mld": mld});
    optional("guard", (nic.guard != GuardSwitches::ALL).then_some(guard));
    Value::Object(keys)
}

fn shown<T: ToString>(list: &[T]) -> Value {
    list.iter().map(ToString::to_string).collect()
}

fn bindings(list: &[Binding]) -> Option<Value> {
    let binding =
        |binding: &Binding| json!({"address": binding.address.to_string(), "mac": binding.mac.to_string()});
    (!list.is_empty()).then(|| list.iter().map(binding).collect())
}

fn member(member: &Member) -> Value {
    match member.mac {
        Some(mac) => json!({"address": member.prefix.to_string(), "mac": mac.to_string()}),
        None => json!(member.prefix.to_string()),
    }
}

const fn default(action: DefaultAction) -> &'static str {
    match action {
        DefaultAction::Allow => "allow",
        DefaultAction::Drop => "drop",
        DefaultAction::Reject => "reject",
    }
}

/// One rule, as the file writes it.
#[must_use]
pub fn rule(rule: &Rule) -> Value {
    let mut keys = Map::new();
    let mut put = |key: &str, value: Value| {
        keys.insert(key.to_owned(), value);
    };
    put("id", json!(rule.id.to_string()));
    put("direction", json!(if rule.direction == Direction::Out { "out" } else { "in" }));
    let (action, target) = match &rule.action {
        Action::Allow => ("allow", None),
        Action::Drop => ("drop", None),
        Action::Reject => ("reject", None),
        Action::Pass(target) => ("pass", Some(target)),
    };
    put("action", json!(action));
    if let Some(target) = target {
        put("continue-at", json!(target.to_string()));
    }
    match rule.protocol {
        ProtocolMatch::Usual => {}
        ProtocolMatch::Tcp => put("protocol", json!("tcp")),
        ProtocolMatch::Udp => put("protocol", json!("udp")),
        ProtocolMatch::Icmp => put("protocol", json!("icmp")),
        ProtocolMatch::Any => put("protocol", json!("any")),
        ProtocolMatch::Number(number) => put("protocol", json!(number)),
    }
    for (key, remotes) in [("remote", &rule.remote), ("reply-from", &rule.reply_from)] {
        if !remotes.is_empty() {
            put(key, remotes.iter().map(remote).collect());
        }
    }
    if !rule.ports.is_empty() {
        put("ports", shown(&rule.ports));
    }
    if !rule.icmp.is_empty() {
        put("icmp", shown(&rule.icmp));
    }
    more(rule, &mut put);
    Value::Object(keys)
}

/// What few rules have.
fn more(rule: &Rule, put: &mut impl FnMut(&str, Value)) {
    if let Some(ethertype) = rule.ethertype {
        put("ethertype", json!(ethertype));
    }
    if rule.log {
        put("log", json!(true));
    }
    if let Some(helper) = rule.helper {
        put("helper", json!(if helper == Helper::Ftp { "ftp" } else { "tftp" }));
    }
    if let Some(left) = rule.expires_in_ms {
        // Whole seconds, never more than is left.
        put("expires_in_s", json!(left / 1000));
    }
    match rule.on_revoke {
        OnRevoke::Kill => {}
        OnRevoke::Drain => put("on_revoke", json!("drain")),
        OnRevoke::Keep => put("on_revoke", json!("keep")),
    }
    let mut limits = Map::new();
    limits.extend(rule.limits.conns.map(|conns| ("conns".to_owned(), json!(conns))));
    limits.extend(rule.limits.new_per_s.map(|rate| ("new_per_s".to_owned(), json!(rate))));
    if !limits.is_empty() {
        put("limits", Value::Object(limits));
    }
}

fn remote(remote: &RemoteMatch) -> Value {
    match remote {
        RemoteMatch::Prefix(prefix) => json!(prefix.to_string()),
        RemoteMatch::Set(name) => json!({"set": name.to_string()}),
    }
}
