//! The rules, built for looking up: first match decides.
//!
//! Knows addresses, protocols, ports and sets. Never knows conns, nor what a match leads to.

use fw_model::{Addr, DefaultAction, Direction, Protocol, Rule, RuleSet};

/// A rule set made ready for looking up. Building one is slow and may allocate; it is done away from the frames.
#[derive(Debug)]
pub struct Matcher {}

/// Why a rule set is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct RuleSetError {
    /// The rule, set or field that is wrong.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A first frame, as rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Ip {
        direction: Direction,
        remote: Addr,
        protocol: Protocol,
        /// Destination port of TCP and UDP; 0 otherwise.
        port: u16,
        /// ICMP's and `ICMPv6`'s type and code.
        icmp: Option<(u8, u8)>,
    },
    Ethertype {
        direction: Direction,
        ethertype: u16,
    },
}

/// What the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// The rule at this place decides; its action is never `pass`.
    Rule(usize),
    /// No rule matches.
    Default(DefaultAction),
}

impl Matcher {
    /// Builds a rule set for looking up, or says why it is refused: unknown set, `continue-at` that is missing or
    /// not further down, two rules with one id, two MAC addresses for one address, contradictory fields.
    ///
    /// # Errors
    /// The first thing wrong, with its place and the remedy.
    pub fn new(_rules: RuleSet) -> Result<Self, RuleSetError> {
        todo!("H4")
    }

    /// The rule set it was built from.
    #[must_use]
    pub fn rules(&self) -> &RuleSet {
        todo!("H4")
    }

    pub(crate) fn rule(&self, _place: usize) -> Option<&Rule> {
        todo!("H4")
    }

    /// First match, leaving out the rules whose bits are set in `expired` (bit `place % 64` of word `place / 64`;
    /// may be shorter than the rules).
    pub(crate) fn first_match(&self, _question: &Question, _expired: &[u64]) -> Match {
        todo!("H4")
    }

    /// Whether the rule at `place` lets `remote` answer what it allowed (`reply-from`).
    pub(crate) fn may_answer(&self, _place: usize, _remote: Addr) -> bool {
        todo!("H4")
    }
}
