//! Intent: who may speak to whom, on what, and in which order it is asked.
//!
//! Knows tiers, policies, rules and services. Never knows an address set, nor which NIC carries what.

use fw_model::{Cidr, Helper, IcmpMatch, OnRevoke, PortRange, ProtocolMatch, RuleLimits};

use crate::diagnostic::Place;
use crate::group::Placed;
use crate::name::{Name, Ref};

/// The order in which policies are asked. First match decides; `pass` goes on in the next tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    /// The provider's, before everything: quarantine.
    ProviderEmergency,
    /// The provider's: what the hosts need and what nobody may.
    ProviderInfrastructure,
    /// A tenant's, before its everyday rules.
    TenantEmergency,
    /// A tenant's, about production and the like.
    Environment,
    /// A tenant's, about one application.
    Application,
    /// A tenant's last word.
    TenantDefault,
    /// The provider's last word; after it everything is dropped.
    ProviderDefault,
}

impl Tier {
    /// The words of `tier`.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("provider-emergency", Self::ProviderEmergency),
        ("provider-infrastructure", Self::ProviderInfrastructure),
        ("tenant-emergency", Self::TenantEmergency),
        ("environment", Self::Environment),
        ("application", Self::Application),
        ("tenant-default", Self::TenantDefault),
        ("provider-default", Self::ProviderDefault),
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, tier)| *tier == self).map_or("?", |(word, _)| word)
    }

    /// Whether only the provider may write there.
    #[must_use]
    pub const fn is_provider(self) -> bool {
        matches!(self, Self::ProviderEmergency | Self::ProviderInfrastructure | Self::ProviderDefault)
    }

    /// Whether its rules are for emergencies.
    #[must_use]
    pub const fn is_emergency(self) -> bool {
        matches!(self, Self::ProviderEmergency | Self::TenantEmergency)
    }
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Let it pass.
    Allow,
    /// Drop it silently.
    Drop,
    /// Refuse it and tell the sender.
    Reject,
    /// Leave it to the next tier.
    Pass,
}

impl Verb {
    /// The words of `action`.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("allow", Self::Allow), ("drop", Self::Drop), ("reject", Self::Reject), ("pass", Self::Pass)];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, verb)| *verb == self).map_or("?", |(word, _)| word)
    }
}

/// One end of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// The members of a group.
    Group(Ref),
    /// Addresses, whoever holds them.
    Prefix(Cidr),
}

/// Who may be at one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peers {
    /// Anyone; always written out.
    Any,
    /// One of these; never none.
    These(Vec<Placed<Peer>>),
}

/// Between whom a rule decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ends {
    /// From some to others.
    Between {
        /// Who opens.
        from: Peers,
        /// Who is spoken to.
        to: Peers,
    },
    /// Among the members of a group.
    Within(Placed<Ref>),
    /// Between workloads of the tenant that have the same value of a label.
    Same(Placed<Name>),
}

/// What frames a service is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePart {
    /// Protocol.
    pub protocol: ProtocolMatch,
    /// Destination ports; any if none.
    pub ports: Vec<PortRange>,
    /// ICMP messages; any if none.
    pub icmp: Vec<IcmpMatch>,
    /// Makes it an L2 service: frames of this ethertype.
    pub ethertype: Option<u16>,
}

/// A named service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its parts; never none.
    pub parts: Vec<ServicePart>,
    /// Where it is declared.
    pub place: Place,
}

/// A service as a rule names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceUse {
    /// By name.
    Named(Ref),
    /// Written out, as `tcp/443`.
    Inline(ServicePart),
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Its name, unique in its policy.
    pub name: Name,
    /// What it does.
    pub verb: Verb,
    /// Between whom.
    pub ends: Ends,
    /// On what; never none.
    pub services: Vec<Placed<ServiceUse>>,
    /// The groups whose workloads carry it; both ends if absent.
    pub applied_to: Option<Vec<Placed<Ref>>>,
    /// Log its verdicts.
    pub log: bool,
    /// Protocol helper.
    pub helper: Option<Helper>,
    /// Its limits, on each NIC.
    pub limits: RuleLimits,
    /// What revoking it does.
    pub on_revoke: OnRevoke,
    /// Who may answer a broadcast or multicast request it allowed.
    pub reply_from: Vec<Placed<Peer>>,
    /// When it stops matching, in milliseconds since 1970.
    pub expires_at_ms: Option<i64>,
    /// Where it is written.
    pub place: Place,
}

/// Rules that stand together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// When it is asked.
    pub tier: Tier,
    /// Its place among its owner's policies of the tier.
    pub position: u32,
    /// The groups whose workloads carry its rules, where a rule does not say so itself.
    pub applied_to: Option<Vec<Placed<Ref>>>,
    /// Its rules, in order.
    pub rules: Vec<PolicyRule>,
    /// Where it is declared.
    pub place: Place,
}
