//! May this NIC say this, and may this reach it?
//!
//! Compares a frame's headers with who the NIC is, and lets pass what every NIC needs: ARP, ND, DHCP, router and
//! group messages. Knows the NIC's identity from the control plane. Never knows what came before, nor the rules.

use fw_model::{Direction, Reason, RuleSet};

use crate::headers::Headers;

/// The built-in rules, visible as `guard/*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuardRule {
    /// Frames that make no sense on any NIC (malformed, martian).
    Sane,
    Mac,
    Vlan,
    Address,
    Peer,
    Arp,
    Nd,
    Dhcp,
    Ra,
    Mld,
    Rarp,
}

impl GuardRule {
    pub(crate) const ALL: [Self; 11] = [
        Self::Sane,
        Self::Mac,
        Self::Vlan,
        Self::Address,
        Self::Peer,
        Self::Arp,
        Self::Nd,
        Self::Dhcp,
        Self::Ra,
        Self::Mld,
        Self::Rarp,
    ];

    /// Its rule id.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sane => "guard/sane",
            Self::Mac => "guard/mac",
            Self::Vlan => "guard/vlan",
            Self::Address => "guard/address",
            Self::Peer => "guard/peer",
            Self::Arp => "guard/arp",
            Self::Nd => "guard/nd",
            Self::Dhcp => "guard/dhcp",
            Self::Ra => "guard/ra",
            Self::Mld => "guard/mld",
            Self::Rarp => "guard/rarp",
        }
    }
}

/// A frame that guard does not refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cleared {
    /// Built-in: it passes, makes no conn and asks no rule.
    Allowed(GuardRule),
    /// Conns and rules decide.
    Ask,
}

/// A frame that guard refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) rule: GuardRule,
}

/// One NIC's identity, made ready to compare.
#[derive(Debug)]
pub(crate) struct Guard {}

impl Guard {
    pub(crate) fn new(_rules: &RuleSet) -> Self {
        todo!("H2")
    }

    /// Judges a frame by who may say it. A fragment is judged by its Ethernet and IP headers here, and again as the
    /// datagram it becomes.
    pub(crate) fn check(&self, _direction: Direction, _headers: &Headers) -> Result<Cleared, Refusal> {
        todo!("H2")
    }
}
