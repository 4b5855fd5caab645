//! May one speak to another, and why: asked at both ends.
//!
//! Knows the compiled rules of both NICs. Never knows conns, nor what a NIC really enforces: that the NIC itself says.

use fw_model::{Addr, Cidr, DefaultAction, Direction, NicId, Probe, Protocol, ProtocolMatch};

use crate::document::inline_service;
use crate::evaluate::{Decision, Question, decide};
use crate::form::SharedForm;
use crate::name::{Name, Ref};
use crate::policy::ServicePart;
use crate::provenance::Origin;

/// What one end says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndVerdict {
    /// The NIC that says it; none where no NIC of ours holds the address.
    pub nic: Option<NicId>,
    /// What it says; an end without a NIC has no vote.
    pub decision: Option<Decision>,
    /// Where the deciding rule is written.
    pub origin: Option<Origin>,
    /// Why the address is in the groups it is in: `shop/web: label app=web`.
    pub groups: Vec<String>,
}

/// One pair of addresses on one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who opens.
    pub source: Addr,
    /// Who is spoken to.
    pub destination: Addr,
    /// The realm both are in.
    pub realm: Name,
    /// What is asked: `tcp/443`.
    pub service: String,
    /// A first frame of it, as a NIC's engine can be asked; none where it is a kind of ICMP that engines are not asked about.
    pub flow: Option<(Protocol, u16)>,
    /// The source's end.
    pub out: EndVerdict,
    /// The destination's end.
    pub in_: EndVerdict,
}

impl Answer {
    /// Whether every managed end allows it, and there is one.
    #[must_use]
    pub fn is_delivered(&self) -> bool {
        let votes: Vec<_> =
            [&self.out, &self.in_].into_iter().filter_map(|end| end.decision.as_ref()).collect();
        !votes.is_empty() && votes.iter().all(|decision| decision.action == DefaultAction::Allow)
    }

    /// The frame that a NIC's engine is asked about.
    #[must_use]
    pub fn probe(&self, direction: Direction) -> Option<Probe> {
        let (protocol, destination_port) = self.flow?;
        let (source, destination) = (self.source, self.destination);
        Some(Probe { direction, protocol, source, source_port: 0, destination, destination_port })
    }

    /// Whether only one end is ours.
    #[must_use]
    pub fn is_one_end_only(&self) -> bool {
        self.out.decision.is_none() != self.in_.decision.is_none()
    }
}

/// Groups in groups that an answer names.
const NESTING_SHOWN_MAX: usize = 8;

/// A holder of addresses that somebody asked about.
#[derive(Debug, Clone)]
struct Party {
    nic: Option<NicId>,
    workload: Option<usize>,
    realm: Option<Name>,
    addresses: Vec<Addr>,
}

/// A frame of a service.
#[derive(Debug, Clone, Copy)]
struct Sample {
    protocol: u8,
    port: u16,
    icmp: Option<(u8, u8)>,
    is_v4: Option<bool>,
}

impl SharedForm {
    /// Whether `source` may open to `destination` on `service`. Ends are workloads, NICs or addresses; a service is one
    /// written out (`tcp/443`) or one by name (`shop/http`), of which every port range's first port is asked.
    ///
    /// # Errors
    /// There is no such end or service, or no pair of their addresses could meet.
    pub fn explain(&self, source: &str, destination: &str, service: &str) -> Result<Vec<Answer>, String> {
        let (sources, destinations) = (self.parties(source)?, self.parties(destination)?);
        let samples = self.samples(service)?;
        let mut answers = Vec::new();
        for (source, destination) in sources.iter().flat_map(|s| destinations.iter().map(move |d| (s, d))) {
            let Some(realm) = meeting(source, destination) else { continue };
            for (from, to) in
                source.addresses.iter().flat_map(|s| destination.addresses.iter().map(move |d| (*s, *d)))
            {
                for sample in samples.iter().filter(|sample| sample.is_v4.is_none_or(|v4| v4 == from.is_v4()))
                {
                    if from.is_v4() == to.is_v4() {
                        answers.push(self.answer((source, from), (destination, to), &realm, sample));
                    }
                }
            }
        }
        if answers.is_empty() {
            return Err(format!(
                "{source} and {destination} have no addresses of one family in one realm: no frame goes between them"
            ));
        }
        Ok(answers)
    }

    fn answer(
        &self,
        source: (&Party, Addr),
        destination: (&Party, Addr),
        realm: &Name,
        sample: &Sample,
    ) -> Answer {
        let end = |(party, own): (&Party, Addr), remote: Addr, direction: Direction| {
            let question = Question {
                direction,
                remote,
                protocol: sample.protocol,
                port: sample.port,
                icmp: sample.icmp,
            };
            let rules = party.nic.as_ref().and_then(|nic| self.rules_of(nic, 0));
            let decision = rules.map(|rules| decide(&rules, &question));
            let rule = decision.as_ref().and_then(|decision| decision.rule.as_ref());
            let origin = rule.and_then(|rule| self.origin(rule));
            EndVerdict {
                nic: party.nic.clone(),
                decision,
                origin,
                groups: self.reasons(party.workload, own, realm),
            }
        };
        Answer {
            source: source.1,
            destination: destination.1,
            realm: realm.clone(),
            service: shown(sample),
            flow: asked(sample),
            out: end(source, destination.1, Direction::Out),
            in_: end(destination, source.1, Direction::In),
        }
    }

    fn parties(&self, text: &str) -> Result<Vec<Party>, String> {
        let of_nic = |nic: &NicId, only: Option<Addr>| {
            let (workload, held) = self.held_nic(nic)?;
            let own = held.addresses().filter(|address| address.is_host()).map(Cidr::network);
            let addresses = only.map_or_else(|| own.collect(), |only| vec![only]);
            Some(Party {
                nic: Some(nic.clone()),
                workload: Some(workload),
                realm: Some(held.realm.clone()),
                addresses,
            })
        };
        if let Ok(address) = text.parse::<Addr>() {
            let host = Cidr::host(address);
            let holders = self.nics.keys().filter(|nic| {
                self.held_nic(nic)
                    .is_some_and(|(_, held)| held.addresses().any(|own| own.contains(host.network())))
            });
            let mut parties: Vec<Party> = holders.filter_map(|nic| of_nic(nic, Some(address))).collect();
            if parties.is_empty() {
                parties.push(Party { nic: None, workload: None, realm: None, addresses: vec![address] });
            }
            return Ok(parties);
        }
        if let Some(number) = self.numbers.get(text) {
            let nics = self.held.get(*number).into_iter().flatten();
            return Ok(nics.filter_map(|held| of_nic(held.id(), None)).collect());
        }
        if let Some(party) = text.parse().ok().and_then(|nic: NicId| of_nic(&nic, None)) {
            return Ok(vec![party]);
        }
        let known: Vec<&str> = self.numbers.keys().map(Name::as_str).take(1000).collect();
        Err(format!(
            "there is no workload, NIC or address `{text}`{}",
            fw_document::read::suggestion(text, &known)
        ))
    }

    fn samples(&self, text: &str) -> Result<Vec<Sample>, String> {
        let parts = match inline_service(text) {
            Some(part) => vec![part?],
            None => {
                let key = self.service(text)?;
                self.intent.services.get(&key).map(|service| service.parts.clone()).unwrap_or_default()
            }
        };
        let samples: Vec<Sample> = parts.iter().flat_map(samples_of).collect();
        if samples.is_empty() {
            Err(format!("service `{text}` has no frames that have addresses"))
        } else {
            Ok(samples)
        }
    }

    fn service(&self, text: &str) -> Result<Ref, String> {
        let shown = |key: &&Ref| key.to_string() == text || key.name.as_str() == text;
        let found: Vec<&Ref> = self.intent.services.keys().filter(shown).collect();
        match found.as_slice() {
            [one] => Ok((*one).clone()),
            [] => {
                let known: Vec<String> =
                    self.intent.services.keys().map(ToString::to_string).take(1000).collect();
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                Err(format!("there is no service `{text}`{}", fw_document::read::suggestion(text, &known)))
            }
            [first, ..] => {
                Err(format!("several owners have a service `{text}`; write one of them as `{first}`"))
            }
        }
    }

    /// Why an address is in each group that rules name.
    fn reasons(&self, workload: Option<usize>, address: Addr, realm: &Name) -> Vec<String> {
        let mut reasons = Vec::new();
        for number in self.index().groups() {
            let Some(group) = self.groups().get(number) else { continue };
            let is_member = workload.is_some_and(|workload| self.groups().contains(number, workload));
            let in_range =
                self.all_sets().ranged(number, realm).is_some_and(|held| held.cover(Cidr::host(address)));
            if is_member || in_range {
                reasons.push(format!(
                    "{}: {}",
                    group.key,
                    self.reason(number, workload.filter(|_| is_member))
                ));
            }
        }
        reasons
    }

    /// Why a workload is in a group, down to the group that picks it itself, or as deep as anybody reads.
    pub(crate) fn reason(&self, number: usize, workload: Option<usize>) -> String {
        let of_range = "address in its ranges".to_owned();
        let Some((workload, entry)) = workload.and_then(|number| Some((number, self.workload(number)?)))
        else {
            return of_range;
        };
        let mut way = Vec::new();
        let mut place = Some(number);
        let mut end = of_range;
        while let Some(group) = place.and_then(|place| self.groups().get(place)) {
            if group.include.members.contains(&workload) {
                end = "named as a member".to_owned();
                break;
            }
            let picks = group.include.select.iter().find(|selector| selector.picks(&entry.workload));
            if let Some(selector) = picks {
                let said = selector.conditions.iter().map(|condition| condition.shown(&entry.workload));
                end = said.collect::<Vec<_>>().join(", ");
                break;
            }
            if way.len() >= NESTING_SHOWN_MAX {
                "…".clone_into(&mut end);
                break;
            }
            place =
                group.include.groups.iter().copied().find(|nested| self.groups().contains(*nested, workload));
            way.extend(
                place.and_then(|place| self.groups().get(place)).map(|nested| format!("in {}", nested.key)),
            );
        }
        way.push(end);
        way.join(": ")
    }
}

/// The realm in which two could meet; `None` if there is none.
fn meeting(source: &Party, destination: &Party) -> Option<Name> {
    match (&source.realm, &destination.realm) {
        (Some(one), Some(other)) => (one == other).then(|| one.clone()),
        (Some(one), None) | (None, Some(one)) => Some(one.clone()),
        (None, None) => None,
    }
}

fn samples_of(part: &ServicePart) -> Vec<Sample> {
    if part.ethertype.is_some() {
        return Vec::new();
    }
    let plain = |protocol: u8, port: u16| Sample { protocol, port, icmp: None, is_v4: None };
    let of_ports = |protocol: u8| {
        let firsts: Vec<u16> = part.ports.iter().map(|range| range.first()).collect();
        if firsts.is_empty() {
            vec![plain(protocol, 1)]
        } else {
            firsts.into_iter().map(|port| plain(protocol, port)).collect()
        }
    };
    let echo = |kind: u8, v4: bool| Sample {
        protocol: if v4 { 1 } else { 58 },
        port: 0,
        icmp: Some((kind, 0)),
        is_v4: Some(v4),
    };
    match part.protocol {
        ProtocolMatch::Tcp => of_ports(6),
        ProtocolMatch::Udp => of_ports(17),
        ProtocolMatch::Number(number) => of_ports(number),
        ProtocolMatch::Usual => {
            of_ports(6).into_iter().chain(of_ports(17)).chain([echo(8, true), echo(128, false)]).collect()
        }
        ProtocolMatch::Any => vec![plain(6, 1), plain(17, 1), echo(8, true), echo(128, false), plain(47, 0)],
        ProtocolMatch::Icmp if part.icmp.is_empty() => vec![echo(8, true), echo(128, false)],
        ProtocolMatch::Icmp => part
            .icmp
            .iter()
            .flat_map(|kind| {
                let of = |number: Option<u8>, v4| {
                    number.map(|number| Sample {
                        icmp: Some((number, kind.code.unwrap_or(0))),
                        ..echo(number, v4)
                    })
                };
                [of(kind.v4, true), of(kind.v6, false)].into_iter().flatten()
            })
            .collect(),
    }
}

fn asked(sample: &Sample) -> Option<(Protocol, u16)> {
    let is_echo = matches!((sample.protocol, sample.icmp), (1, Some((8, 0))) | (58, Some((128, 0))));
    (sample.icmp.is_none() || is_echo).then_some((Protocol(sample.protocol), sample.port))
}

fn shown(sample: &Sample) -> String {
    match (sample.protocol, sample.icmp) {
        (6, _) => format!("tcp/{}", sample.port),
        (17, _) => format!("udp/{}", sample.port),
        (_, Some((kind, code))) => format!("icmp/{kind}/{code}"),
        (number, None) => format!("protocol {number}"),
    }
}
