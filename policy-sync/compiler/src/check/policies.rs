//! Do policies name what exists, and can each rule be meant?
//!
//! Knows which groups and services somebody may name. Never knows members.

use std::collections::BTreeMap;

use fw_document::read::suggestion;
use fw_model::{Helper, ProtocolMatch};

use super::Checker;
use crate::diagnostic::Place;
use crate::group::Placed;
use crate::name::{Name, Owner, Ref};
use crate::policy::{Ends, Peer, Peers, PolicyRule, ServicePart, ServiceUse, Tier, Verb};

impl Checker<'_> {
    pub(super) fn policies(&mut self) {
        let mut positions: BTreeMap<(&Owner, Tier, u32), (&Ref, Place)> = BTreeMap::new();
        for (key, policy) in &self.intent.policies {
            let place = (&key.owner, policy.tier, policy.position);
            if let Some((other, first)) = positions.insert(place, (key, policy.place)) {
                let message = format!(
                    "policy `{key}` has position {} in tier {} as policy `{other}` at {} has; which is asked first must be written: give them different positions",
                    policy.position,
                    policy.tier.word(),
                    self.intent.shown(first)
                );
                self.findings.error(policy.place, message);
            }
            for group in policy.applied_to.iter().flatten() {
                self.group(group, &key.owner);
            }
            let mut names: BTreeMap<&Name, Place> = BTreeMap::new();
            for rule in &policy.rules {
                if let Some(first) = names.insert(&rule.name, rule.place) {
                    let message = format!(
                        "rule `{}` stands in policy `{key}` twice; first at {}",
                        rule.name,
                        self.intent.shown(first)
                    );
                    self.findings.error(rule.place, message);
                }
                self.rule(rule, &key.owner);
            }
        }
    }

    fn rule(&mut self, rule: &PolicyRule, owner: &Owner) {
        match &rule.ends {
            Ends::Between { from, to } => {
                self.peers(from, owner);
                self.peers(to, owner);
            }
            Ends::Within(group) => self.group(group, owner),
            Ends::Same(key) => self.same(key, owner),
        }
        for group in rule.applied_to.iter().flatten() {
            self.group(group, owner);
        }
        for peer in &rule.reply_from {
            self.peer(peer, owner);
        }
        let mut parts = Vec::new();
        for service in &rule.services {
            parts.extend(self.service(service, owner));
        }
        self.fits(rule, &parts);
    }

    fn peers(&mut self, peers: &Peers, owner: &Owner) {
        let Peers::These(list) = peers else { return };
        for peer in list {
            self.peer(peer, owner);
        }
    }

    fn peer(&mut self, peer: &Placed<Peer>, owner: &Owner) {
        if let Peer::Group(group) = &peer.value {
            self.group(&Placed { value: group.clone(), place: peer.place }, owner);
        }
    }

    fn same(&mut self, key: &Placed<Name>, owner: &Owner) {
        let found = match owner {
            Owner::Provider => self.intent.label_keys.get(owner).and_then(|keys| keys.get(&key.value)),
            Owner::Tenant(tenant) => self.intent.label_key(tenant, &key.value),
        };
        match found {
            None => self.unknown_key(owner, &key.value, key.place),
            Some(declared) if declared.owner != *owner => {
                let message =
                    format!("label key `{}` is the provider's; a tenant cannot select on it", key.value);
                self.findings.error(key.place, message);
            }
            Some(_) => {}
        }
    }

    /// The parts of a service that `owner` may name: their own, or the provider's.
    fn service(&mut self, named: &Placed<ServiceUse>, owner: &Owner) -> Vec<ServicePart> {
        let key = match &named.value {
            ServiceUse::Inline(part) => return vec![part.clone()],
            ServiceUse::Named(key) => key,
        };
        let is_shown = |of: &Owner| of == owner || *of == Owner::Provider;
        if let Some(service) = self.intent.services.get(key).filter(|_| is_shown(&key.owner)) {
            return service.parts.clone();
        }
        let known =
            self.intent.services.keys().filter(|known| known.owner == key.owner && is_shown(&known.owner));
        let known: Vec<&str> = known.map(|known| known.name.as_str()).take(1000).collect();
        let of_provider = Ref { owner: Owner::Provider, name: key.name.clone() };
        let near = if self.intent.services.contains_key(&of_provider) {
            format!("; the provider has one: write `{of_provider}`")
        } else {
            suggestion(key.name.as_str(), &known)
        };
        let whose = if key.owner == *owner { String::new() } else { format!("{}/", key.owner) };
        self.findings.error(named.place, format!("there is no service `{whose}{}`{near}", key.name));
        Vec::new()
    }

    /// Whether the rule's fields go together.
    fn fits(&mut self, rule: &PolicyRule, parts: &[ServicePart]) {
        if parts.is_empty() {
            return;
        }
        let only = |protocol, number| {
            parts
                .iter()
                .all(|part| part.protocol == protocol || part.protocol == ProtocolMatch::Number(number))
        };
        let helper = match rule.helper {
            Some(Helper::Ftp) if !only(ProtocolMatch::Tcp, 6) => {
                Some("`helper`: ftp needs services of tcp alone")
            }
            Some(Helper::Tftp) if !only(ProtocolMatch::Udp, 17) => {
                Some("`helper`: tftp needs services of udp alone")
            }
            Some(Helper::Ftp | Helper::Tftp) | None => None,
        };
        let asks = parts.iter().all(|part| {
            matches!(
                part.protocol,
                ProtocolMatch::Udp | ProtocolMatch::Usual | ProtocolMatch::Any | ProtocolMatch::Number(17)
            )
        });
        let replies = match rule.verb {
            _ if rule.reply_from.is_empty() => None,
            Verb::Allow if asks => None,
            Verb::Allow => {
                Some("`reply-from`: only UDP requests are answered so; name services of udp alone")
            }
            Verb::Drop | Verb::Reject | Verb::Pass => {
                Some("`reply-from`: only a rule that allows has answers")
            }
        };
        let is_wide = matches!(&rule.ends, Ends::Between { from: Peers::Any, to: Peers::Any });
        let is_l2 = parts.iter().any(|part| part.ethertype.is_some());
        let l2 = (is_l2 && !is_wide).then_some(
            "`services`: frames that are not IP have no addresses; write `from: any`, `to: any` and say whose with `applied_to`",
        );
        for message in [helper, replies, l2].into_iter().flatten() {
            self.findings.error(rule.place, message);
        }
    }
}
