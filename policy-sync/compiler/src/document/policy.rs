//! Services, policies and rules as documents write them.
//!
//! Knows the keys of each. Never knows groups' members.

use fw_document::matching::{HELPERS, NO_LIMITS, REVOKES, ethertype, icmp, limits, ports, protocol};
use fw_document::nic::each;
use fw_document::read::{self, Fields};
use fw_document::tree::{Entry, Node, Value};
use fw_model::{Cidr, IcmpMatch, OnRevoke, ProtocolMatch};
use jiff::Timestamp;

use super::{Reader, insert};
use crate::group::Placed;
use crate::name::{LONG_NAME_LEN_MAX, NAME_LEN_MAX, Name, Owner, Ref};
use crate::policy::{Ends, Peer, Peers, Policy, PolicyRule, Service, ServicePart, ServiceUse, Tier, Verb};

const SERVICE: &[&str] = &["protocol", "ports", "icmp", "ethertype"];
const POLICY: &[&str] = &["tier", "position", "applied_to", "rules"];
const RULE: &[&str] = &[
    "name",
    "action",
    "from",
    "to",
    "within",
    "same",
    "services",
    "applied_to",
    "log",
    "helper",
    "limits",
    "on_revoke",
    "reply-from",
    "expires_at",
];
const PROTOCOLS: &[(&str, ProtocolMatch)] = &[
    ("tcp", ProtocolMatch::Tcp),
    ("udp", ProtocolMatch::Udp),
    ("icmp", ProtocolMatch::Icmp),
    ("any", ProtocolMatch::Any),
    ("usual", ProtocolMatch::Usual),
];

impl Reader<'_> {
    pub(super) fn policy(&mut self, fields: &Fields<'_, '_>) {
        self.groups(fields);
        for entry in self.entries(fields, "services", "{http: {protocol: tcp, ports: [80]}}") {
            self.service(entry);
        }
        for entry in
            self.entries(fields, "policies", "{shop: {tier: application, position: 10, rules: [...]}}")
        {
            self.policy_entry(entry);
        }
    }

    fn service(&mut self, entry: &Entry<'_>) {
        let Some(name) = self.key(entry, NAME_LEN_MAX) else { return };
        let parts = match &entry.value.value {
            Value::List(_) => {
                read::some_list(&entry.value, &entry.key, "[{protocol: tcp, ports: [80]}]", self.problems)
                    .and_then(|items| each(items, |item| self.service_part(item)))
            }
            Value::Nothing | Value::Plain(_) | Value::Quoted(_) | Value::Map(_) => {
                self.service_part(&entry.value).map(|part| vec![part])
            }
        };
        let Some(parts) = parts.filter(|_| self.is_free(&name, "service", entry.line)) else { return };
        let key = Ref { owner: self.owner.clone(), name };
        let service = Service { parts, place: self.place(entry.line) };
        let files = &self.intent.files;
        let shown = |first: &Service| {
            format!("{}:{}", files.get(first.place.file).map_or("?", |f| f), first.place.line)
        };
        if let Err(first) = insert(&mut self.intent.services, key.clone(), service, shown) {
            self.problems.add(entry.line, format!("service `{key}` is declared twice; first at {first}"));
        }
    }

    fn service_part(&mut self, node: &Node<'_>) -> Option<ServicePart> {
        let fields = Fields::read(node, "a service", SERVICE, self.problems)?;
        if let Some(found) = fields.get("ethertype") {
            for key in ["protocol", "ports", "icmp"] {
                if let Some(other) = fields.get(key) {
                    self.problems.add(other.line, format!("`{key}` stands beside `ethertype`, which means frames that are not IP; leave one out"));
                    return None;
                }
            }
            let ethertype = Some(ethertype(found, self.problems)?);
            return Some(ServicePart {
                protocol: ProtocolMatch::Usual,
                ports: Vec::new(),
                icmp: Vec::new(),
                ethertype,
            });
        }
        let found = fields.need("protocol", self.problems)?;
        let is_usual = read::text(found) == Some("usual");
        let protocol = if is_usual { Some(ProtocolMatch::Usual) } else { protocol(found, self.problems) };
        let ports_at = fields.get("ports").map(|node| (node.line, ports(node, self.problems)));
        let icmp_at = fields.get("icmp").map(|node| (node.line, icmp(node, self.problems)));
        let protocol = protocol?;
        if let Some((line, _)) = ports_at.as_ref().filter(|_| !has_ports(protocol)) {
            self.problems.add(*line, "`ports`: only tcp and udp have ports; leave them out");
            return None;
        }
        if let Some((line, _)) = icmp_at.as_ref().filter(|_| protocol != ProtocolMatch::Icmp) {
            self.problems.add(*line, "`icmp`: ICMP types go with `protocol: icmp` alone");
            return None;
        }
        let ports = ports_at.map_or_else(|| Some(Vec::new()), |(_, ports)| ports)?;
        let icmp = icmp_at.map_or_else(|| Some(Vec::new()), |(_, icmp)| icmp)?;
        Some(ServicePart { protocol, ports, icmp, ethertype: None })
    }

    fn policy_entry(&mut self, entry: &Entry<'_>) {
        let name = self.key(entry, LONG_NAME_LEN_MAX);
        let (Some(name), Some(policy)) = (name, self.policy_of(entry)) else { return };
        let key = Ref { owner: self.owner.clone(), name };
        let files = &self.intent.files;
        let shown = |first: &Policy| {
            format!("{}:{}", files.get(first.place.file).map_or("?", |f| f), first.place.line)
        };
        if let Err(first) = insert(&mut self.intent.policies, key.clone(), policy, shown) {
            self.problems.add(entry.line, format!("policy `{key}` is declared twice; first at {first}"));
        }
    }

    fn policy_of(&mut self, entry: &Entry<'_>) -> Option<Policy> {
        let fields = Fields::read(&entry.value, "a policy", POLICY, self.problems)?;
        let tier = fields.need("tier", self.problems).and_then(|node| self.tier(node));
        let position = fields.need("position", self.problems);
        let position = position.and_then(|node| read::number(node, "position", 0, u32::MAX, self.problems));
        let applied_to = self.applied_to(&fields);
        let rules = fields.need("rules", self.problems).and_then(|node| {
            let items = read::list(node, "rules", "[{name: http, from: any, to: web, …}]", self.problems)?;
            each(items, |item| self.rule(item, tier))
        });
        let place = self.place(entry.line);
        Some(Policy { tier: tier?, position: position?, applied_to: applied_to?, rules: rules?, place })
    }

    fn tier(&mut self, node: &Node<'_>) -> Option<Tier> {
        let tier = read::word(node, "tier", Tier::WORDS, self.problems)?;
        let is_own = tier.is_provider() == (self.owner == Owner::Provider);
        if !is_own {
            let own: Vec<&str> = Tier::WORDS
                .iter()
                .filter(|(_, tier)| tier.is_provider() == (self.owner == Owner::Provider))
                .map(|(word, _)| *word)
                .collect();
            let message = match &self.owner {
                Owner::Provider => format!(
                    "`tier`: {} belongs to tenants; begin the document with `tenant: NAME`, or write {}",
                    tier.word(),
                    own.join(", ")
                ),
                Owner::Tenant(_) => {
                    format!("`tier`: {} is the provider's; a tenant has {}", tier.word(), own.join(", "))
                }
            };
            self.problems.add(node.line, message);
        }
        is_own.then_some(tier)
    }

    fn applied_to(&mut self, fields: &Fields<'_, '_>) -> Option<Option<Vec<Placed<Ref>>>> {
        let Some(node) = fields.get("applied_to") else { return Some(None) };
        read::some_list(node, "applied_to", "[web, app]", self.problems)?;
        self.group_list(node, "applied_to").map(Some)
    }

    fn rule(&mut self, node: &Node<'_>, tier: Option<Tier>) -> Option<PolicyRule> {
        let fields = Fields::read(node, "a rule", RULE, self.problems)?;
        let name = fields.need("name", self.problems).and_then(|node| {
            let name = read::text(node).and_then(|text| Name::limited(text, LONG_NAME_LEN_MAX).ok());
            if name.is_none() {
                let message =
                    format!("`name`: expected a name of at most {LONG_NAME_LEN_MAX} letters, found {node}");
                self.problems.add(node.line, message);
            }
            name
        });
        let verb = fields.need("action", self.problems);
        let verb = verb.and_then(|node| read::word(node, "action", Verb::WORDS, self.problems));
        let ends = self.ends(&fields);
        let services = fields.need("services", self.problems).and_then(|node| self.services(node));
        let applied_to = self.applied_to(&fields);
        let log = fields.get("log").map_or(Some(false), |node| read::boolean(node, "log", self.problems));
        let helper = fields.get("helper").map(|node| read::word(node, "helper", HELPERS, self.problems));
        let limits = fields.get("limits").map_or(Some(NO_LIMITS), |node| limits(node, self.problems));
        let on_revoke = self.on_revoke(&fields, tier);
        let reply_from = fields
            .get("reply-from")
            .map_or_else(|| Some(Vec::new()), |node| self.peer_list(node, "reply-from"));
        let expires = fields.get("expires_at").map(|node| self.expiry(node));
        Some(PolicyRule {
            name: name?,
            verb: verb?,
            ends: ends?,
            services: services?,
            applied_to: applied_to?,
            log: log?,
            helper: helper.map_or(Some(None), |helper| helper.map(Some))?,
            limits: limits?,
            on_revoke: on_revoke?,
            reply_from: reply_from?,
            expires_at_ms: expires.map_or(Some(None), |at| at.map(Some))?,
            place: self.place(node.line),
        })
    }

    fn ends(&mut self, fields: &Fields<'_, '_>) -> Option<Ends> {
        let (within, same) = (fields.get("within"), fields.get("same"));
        let short = within.map(|node| ("within", node)).or_else(|| same.map(|node| ("same", node)));
        if let Some((key, node)) = short {
            let others = ["from", "to", "same"].iter().filter(|other| **other != key);
            if let Some(other) = others.filter_map(|other| fields.get(other)).next() {
                self.problems.add(other.line, format!("`{key}` says both ends; leave the others out"));
                return None;
            }
            let place = self.place(node.line);
            return match key {
                "within" => {
                    let value = self.reference(node, key, "a group's name")?;
                    Some(Ends::Within(Placed { value, place }))
                }
                _ => Some(Ends::Same(Placed { value: self.name(node, key)?, place })),
            };
        }
        let mut end = |key| fields.need(key, self.problems);
        let (from, to) = (end("from"), end("to"));
        let from = from.and_then(|node| self.peers(node, "from"));
        let to = to.and_then(|node| self.peers(node, "to"));
        Some(Ends::Between { from: from?, to: to? })
    }

    fn peers(&mut self, node: &Node<'_>, key: &str) -> Option<Peers> {
        if matches!(&node.value, Value::Plain(text) if text == "any") {
            return Some(Peers::Any);
        }
        self.peer_list(node, key).map(Peers::These)
    }

    /// One peer, or a list of them.
    fn peer_list(&mut self, node: &Node<'_>, key: &str) -> Option<Vec<Placed<Peer>>> {
        match &node.value {
            Value::List(_) => {
                let items = read::list(node, key, "[web, 198.51.100.0/24]", self.problems)?;
                if items.is_empty() {
                    self.problems.add(
                        node.line,
                        format!("`{key}`: an empty list matches nobody; write `any` for anyone"),
                    );
                    return None;
                }
                each(items, |item| self.peer(item, key))
            }
            Value::Nothing | Value::Plain(_) | Value::Quoted(_) | Value::Map(_) => {
                Some(vec![self.peer(node, key)?])
            }
        }
    }

    fn peer(&mut self, node: &Node<'_>, key: &str) -> Option<Placed<Peer>> {
        let expected = "a group's name, an address, a prefix or `any`";
        let text = read::text(node).unwrap_or_default();
        let is_address = text.contains(':') || text.starts_with(|letter: char| letter.is_ascii_digit());
        let value = if is_address {
            read::parsed::<Cidr>(node, key, expected, self.problems).map(Peer::Prefix)
        } else {
            self.reference(node, key, expected).map(Peer::Group)
        };
        value.map(|value| Placed { value, place: self.place(node.line) })
    }

    fn services(&mut self, node: &Node<'_>) -> Option<Vec<Placed<ServiceUse>>> {
        let Value::List(_) = node.value else { return Some(vec![self.service_use(node)?]) };
        let items = read::some_list(node, "services", "[http, tcp/8443, icmp/echo-request]", self.problems)?;
        each(items, |item| self.service_use(item))
    }

    fn service_use(&mut self, node: &Node<'_>) -> Option<Placed<ServiceUse>> {
        let place = self.place(node.line);
        match read::text(node).map(inline_service) {
            Some(Some(Ok(part))) => Some(Placed { value: ServiceUse::Inline(part), place }),
            Some(Some(Err(message))) => {
                self.problems.add(node.line, format!("`services`: {message}"));
                None
            }
            Some(None) | None => {
                let expected =
                    "a service's name, any, usual, tcp, udp, icmp, or tcp/443, udp/53, icmp/echo-request";
                let value = self.reference(node, "services", expected)?;
                Some(Placed { value: ServiceUse::Named(value), place })
            }
        }
    }

    fn on_revoke(&mut self, fields: &Fields<'_, '_>, tier: Option<Tier>) -> Option<OnRevoke> {
        let Some(node) = fields.get("on_revoke") else { return Some(OnRevoke::Kill) };
        let found = read::word(node, "on_revoke", REVOKES, self.problems)?;
        if found != OnRevoke::Kill && tier.is_some_and(Tier::is_emergency) {
            self.problems.add(node.line, "`on_revoke`: rules of an emergency tier always kill; leave it out");
            return None;
        }
        Some(found)
    }

    fn expiry(&mut self, node: &Node<'_>) -> Option<i64> {
        let found = read::text(node).and_then(|text| text.parse::<Timestamp>().ok());
        if found.is_none() {
            let message =
                format!("`expires_at`: expected an RFC 3339 time such as 2027-01-31T18:00:00Z, found {node}");
            self.problems.add(node.line, message);
        }
        found.map(Timestamp::as_millisecond)
    }
}

/// Whether rules for `protocol` may name ports.
pub(crate) const fn has_ports(protocol: ProtocolMatch) -> bool {
    matches!(
        protocol,
        ProtocolMatch::Tcp | ProtocolMatch::Udp | ProtocolMatch::Usual | ProtocolMatch::Number(6 | 17)
    )
}

/// A service written out: `tcp`, `tcp/443`, `icmp/echo-request`; `None` if this is a name.
pub(crate) fn inline_service(text: &str) -> Option<Result<ServicePart, String>> {
    let (protocol, rest) =
        text.split_once('/').map_or((text, None), |(protocol, rest)| (protocol, Some(rest)));
    let (_, protocol) = PROTOCOLS.iter().find(|(word, _)| *word == protocol)?;
    let mut part = ServicePart { protocol: *protocol, ports: Vec::new(), icmp: Vec::new(), ethertype: None };
    let Some(rest) = rest else { return Some(Ok(part)) };
    Some(match protocol {
        ProtocolMatch::Tcp | ProtocolMatch::Udp => {
            rest.parse().map_err(|error: fw_model::AddrError| error.to_string()).map(|range| {
                part.ports.push(range);
                part
            })
        }
        ProtocolMatch::Icmp => rest.parse().map_err(|error| icmp_error(rest, error)).map(|kind| {
            part.icmp.push(kind);
            part
        }),
        ProtocolMatch::Any | ProtocolMatch::Usual | ProtocolMatch::Number(_) => {
            Err(format!("`{text}`: only tcp, udp and icmp go on after a slash"))
        }
    })
}

fn icmp_error(text: &str, error: String) -> String {
    let known: Vec<_> = IcmpMatch::names().collect();
    format!("{error}{}", read::suggestion(text, &known))
}
