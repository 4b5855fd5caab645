//! What a policy means, read off the intent rule by rule, address by address; as slow and as plain as can be.
//!
//! It may know intent. It must never know sets, indexes or compiled rules: it is there to be right, not fast.
#![expect(
    clippy::indexing_slicing,
    reason = "the intent is checked: every name in it exists, and a panic is the report"
)]

use fw_model::{Addr, Cidr, Direction, ProtocolMatch};
use policy_compiler::{
    Ends, Group, Intent, Name, Owner, Parts, Peer, Peers, Policy, PolicyRule, Question, Ref, ServicePart,
    ServiceUse, Tier, Verb, Workload,
};

/// The verdict, and the rule that decides (`OWNER/POLICY/RULE`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `Allow`, `Drop` or `Reject`.
    pub verb: Verb,
    /// The rule; none where none matches.
    pub rule: Option<String>,
}

/// The NIC at which a question is asked.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Everything.
    pub intent: &'a Intent,
    /// The NIC's workload.
    pub name: &'a Name,
    /// What is known of it.
    pub workload: &'a Workload,
    /// Its realm.
    pub realm: &'a Name,
    /// Its addresses.
    pub addresses: &'a [Addr],
}

impl End<'_> {
    /// What the end says.
    #[must_use]
    pub fn verdict(&self, question: &Question) -> Verdict {
        let mut policies: Vec<(&Ref, &Policy)> = self.intent.policies.iter().collect();
        policies.sort_by_key(|(_, policy)| (policy.tier, policy.position));
        let mut skipped: Option<Tier> = None;
        for (key, policy) in policies {
            let is_mine =
                key.owner == Owner::Provider || key.owner == Owner::Tenant(self.workload.tenant.clone());
            if !is_mine || skipped == Some(policy.tier) {
                continue;
            }
            for rule in &policy.rules {
                match self.asked(&key.owner, policy, rule, question) {
                    None => {}
                    Some(Verb::Pass) => {
                        skipped = Some(policy.tier);
                        break;
                    }
                    Some(verb) => {
                        return Verdict { verb, rule: Some(format!("{key}/{}", rule.name)) };
                    }
                }
            }
        }
        Verdict { verb: Verb::Drop, rule: None }
    }

    /// What one rule does with the question, if it matches.
    fn asked(&self, owner: &Owner, policy: &Policy, rule: &PolicyRule, question: &Question) -> Option<Verb> {
        if !self.serves(rule, question) {
            return None;
        }
        let applied = rule.applied_to.as_ref().or(policy.applied_to.as_ref());
        let applied: Option<Vec<&Ref>> =
            applied.map(|groups| groups.iter().map(|group| &group.value).collect());
        let sides = match &rule.ends {
            Ends::Between { from, to } => (self.side(from), self.side(to)),
            Ends::Within(group) => {
                (Some(vec![Peer::Group(group.value.clone())]), Some(vec![Peer::Group(group.value.clone())]))
            }
            Ends::Same(key) => return self.same(owner, rule.verb, &key.value, applied.as_deref(), question),
        };
        let (from, to) = sides;
        let known = |side: &Option<Vec<Peer>>| side.iter().flatten().all(|peer| self.is_known(peer));
        let applied_known = applied.iter().flatten().all(|group| self.is_complete(group));
        let all_known = known(&from) && known(&to) && applied_known;
        let (verb, from, to, applied) = if all_known {
            (rule.verb, from, to, applied)
        } else if rule.verb == Verb::Allow {
            let part = |side: Option<Vec<Peer>>| {
                side.map(|peers| peers.into_iter().filter(|peer| self.is_known(peer)).collect::<Vec<_>>())
            };
            let applied = applied
                .map(|groups| groups.into_iter().filter(|group| self.is_complete(group)).collect::<Vec<_>>());
            (rule.verb, part(from), part(to), applied)
        } else {
            let verb = if rule.verb == Verb::Reject { Verb::Reject } else { Verb::Drop };
            let wide = |side: Option<Vec<Peer>>| if known(&side) { side } else { None };
            (verb, wide(from), wide(to), applied.filter(|_| applied_known))
        };
        if !self.is_applied(applied.as_deref()) {
            return None;
        }
        let (local, remote) = if question.direction == Direction::Out { (from, to) } else { (to, from) };
        let effect = self.effect(verb, local.as_deref(), question.remote.is_v4())?;
        let is_remote = remote.is_none_or(|peers| {
            peers.iter().any(|peer| match peer {
                Peer::Prefix(prefix) => prefix.contains(question.remote),
                Peer::Group(group) => self.holds(group, question.remote),
            })
        });
        is_remote.then_some(effect)
    }

    fn side(&self, peers: &Peers) -> Option<Vec<Peer>> {
        match peers {
            Peers::Any => None,
            Peers::These(list) => Some(list.iter().map(|peer| peer.value.clone()).collect()),
        }
    }

    fn same(
        &self,
        owner: &Owner,
        verb: Verb,
        key: &Name,
        applied: Option<&[&Ref]>,
        question: &Question,
    ) -> Option<Verb> {
        let applied_known = applied.iter().copied().flatten().all(|group| self.is_complete(group));
        let (verb, applied) = match verb {
            _ if applied_known => (verb, applied.map(<[&Ref]>::to_vec)),
            Verb::Allow => (
                verb,
                applied
                    .map(|groups| groups.iter().copied().filter(|group| self.is_complete(group)).collect()),
            ),
            Verb::Reject => (verb, None),
            Verb::Drop | Verb::Pass => (Verb::Drop, None),
        };
        let mine = &self.workload.labels.get(key)?.value;
        let other = self.holder(question.remote)?.1;
        let is_theirs = !matches!(owner, Owner::Tenant(tenant) if *tenant != other.tenant);
        let equal = is_theirs && other.labels.get(key).is_some_and(|tag| tag.value == *mine);
        (equal && self.is_applied(applied.as_deref())).then_some(verb)
    }

    fn is_applied(&self, applied: Option<&[&Ref]>) -> bool {
        applied.is_none_or(|groups| {
            groups.iter().any(|group| {
                self.is_member(group, self.name, self.workload)
                    || (self.has_ranges(group) && self.addresses.iter().any(|own| self.holds(group, *own)))
            })
        })
    }

    /// What the rule comes to at this NIC for frames of one family; see docs/policy.md, "Addresses and workloads".
    fn effect(&self, verb: Verb, local: Option<&[Peer]>, is_v4: bool) -> Option<Verb> {
        let Some(peers) = local else { return Some(verb) };
        let by_name = peers.iter().any(|peer| match peer {
            Peer::Group(group) => !self.has_ranges(group) && self.is_member(group, self.name, self.workload),
            Peer::Prefix(_) => false,
        });
        if by_name {
            return Some(verb);
        }
        let meant = |own: &Addr| {
            peers.iter().any(|peer| match peer {
                Peer::Prefix(prefix) => prefix.contains(*own),
                Peer::Group(group) => self.has_ranges(group) && self.holds(group, *own),
            })
        };
        let of = |v4: bool| {
            let own: Vec<&Addr> = self.addresses.iter().filter(|own| own.is_v4() == v4).collect();
            let some = own.iter().any(|own| meant(own));
            (some, some && own.iter().all(|own| meant(own)))
        };
        let (some, all) = of(is_v4);
        let is_split = |(some, all): (bool, bool)| some && !all;
        match verb {
            Verb::Allow => all.then_some(verb),
            Verb::Drop | Verb::Reject => some.then_some(verb),
            Verb::Pass if is_split(of(true)) || is_split(of(false)) => some.then_some(Verb::Drop),
            Verb::Pass => all.then_some(verb),
        }
    }

    fn serves(&self, rule: &PolicyRule, question: &Question) -> bool {
        rule.services.iter().any(|service| match &service.value {
            ServiceUse::Inline(part) => is_served(part, question),
            ServiceUse::Named(name) => {
                self.intent.services[name].parts.iter().any(|part| is_served(part, question))
            }
        })
    }

    fn is_known(&self, peer: &Peer) -> bool {
        match peer {
            Peer::Group(group) => self.is_complete(group),
            Peer::Prefix(_) => true,
        }
    }

    fn group(&self, name: &Ref) -> &Group {
        &self.intent.groups[name]
    }

    fn is_complete(&self, name: &Ref) -> bool {
        let group = self.group(name);
        group.complete && nested(group).all(|nested| self.is_complete(nested))
    }

    fn has_ranges(&self, name: &Ref) -> bool {
        let group = self.group(name);
        !group.include.ranges.is_empty()
            || !group.exclude.ranges.is_empty()
            || nested(group).any(|nested| self.has_ranges(nested))
    }

    fn is_member(&self, name: &Ref, workload: &Name, known: &Workload) -> bool {
        let group = self.group(name);
        let counts = |parts: &Parts| {
            picks(parts, &name.owner, workload, known)
                || parts.groups.iter().any(|nested| self.is_member(&nested.value, workload, known))
        };
        counts(&group.include) && !counts(&group.exclude)
    }

    /// Whether a group means an address in this realm.
    fn holds(&self, name: &Ref, address: Addr) -> bool {
        let group = self.group(name);
        let counts = |parts: &Parts| {
            parts.ranges.iter().any(|range| range.contains(address))
                || self
                    .holder(address)
                    .is_some_and(|(holder, known)| picks(parts, &name.owner, holder, known))
                || parts.groups.iter().any(|nested| self.holds(&nested.value, address))
        };
        counts(&group.include) && !counts(&group.exclude)
    }

    fn holder(&self, address: Addr) -> Option<(&Name, &Workload)> {
        self.intent.workloads.iter().find(|(_, workload)| {
            workload.nics.iter().any(|nic| {
                self.intent.segments[&nic.segment].realm == *self.realm
                    && nic.identity.addresses.iter().any(|own| own.contains(address))
            })
        })
    }
}

fn nested(group: &Group) -> impl Iterator<Item = &Ref> {
    group.include.groups.iter().chain(&group.exclude.groups).map(|nested| &nested.value)
}

fn picks(parts: &Parts, owner: &Owner, name: &Name, workload: &Workload) -> bool {
    let is_theirs = !matches!(owner, Owner::Tenant(tenant) if *tenant != workload.tenant);
    parts.members.iter().any(|member| member.value == *name)
        || (is_theirs && parts.select.iter().any(|selector| selector.picks(workload)))
}

fn is_served(part: &ServicePart, question: &Question) -> bool {
    let (tcp, udp) = (question.protocol == 6, question.protocol == 17);
    let echo = matches!((question.protocol, question.icmp), (1, Some((8, _))) | (58, Some((128, _))));
    let port = part.ports.is_empty()
        || ((tcp || udp) && part.ports.iter().any(|range| range.contains(question.port)));
    let kind = part.icmp.is_empty()
        || question.icmp.is_some_and(|(kind, code)| {
            part.icmp.iter().any(|wanted| {
                let number = if question.protocol == 58 { wanted.v6 } else { wanted.v4 };
                number == Some(kind) && wanted.code.is_none_or(|wanted| wanted == code)
            })
        });
    let protocol = match part.protocol {
        ProtocolMatch::Usual => tcp || udp || (echo && part.ports.is_empty()),
        ProtocolMatch::Tcp => tcp,
        ProtocolMatch::Udp => udp,
        ProtocolMatch::Icmp => question.icmp.is_some(),
        ProtocolMatch::Any => true,
        ProtocolMatch::Number(number) => question.protocol == number,
    };
    part.ethertype.is_none() && protocol && port && kind
}

/// The single addresses among prefixes.
#[must_use]
pub fn hosts(prefixes: &[Cidr]) -> Vec<Addr> {
    prefixes.iter().filter(|prefix| prefix.is_host()).map(|prefix| prefix.network()).collect()
}
