//! What the engine remembers, apart from the rules.
//!
//! Owns the stations' state, so that the story of a frame can hand each station its own. Never knows a verdict.

use crate::config::Config;
use crate::conntrack::Table;
use crate::expectation::Expectations;
use crate::fragment::Fragments;
use crate::ledger::Ledger;
use crate::meter::Meters;
use crate::vnet::{GuestOffloads, Link};

/// Everything but the rules. It is allocated at the start.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) link: Link,
    pub(crate) table: Table,
    pub(crate) fragments: Fragments,
    pub(crate) expectations: Expectations,
    pub(crate) meters: Meters,
    pub(crate) ledger: Ledger,
    pub(crate) sweep: Option<Sweep>,
    /// The generation of the last sweep that ended.
    pub(crate) swept: Option<u64>,
    /// Counts installs and expiries of rules.
    pub(crate) epoch: u32,
}

/// The sweep after a change of rules: where it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sweep {
    pub(crate) next_slot: u32,
    /// The generation that is swept when it ends.
    pub(crate) generation: u64,
}

impl State {
    pub(crate) fn new(config: &Config) -> Self {
        let guest = GuestOffloads { csum: false, tso4: false, tso6: false, ecn: false };
        Self {
            link: Link { mtu: config.mtu.into(), guest },
            table: Table::new(config.conns, config.conns / 4, config.hash_key),
            fragments: Fragments::new(usize::try_from(config.fragments).unwrap_or(0)),
            expectations: Expectations::new(),
            meters: Meters::new(),
            ledger: Ledger::new(),
            sweep: None,
            swept: None,
            epoch: 0,
        }
    }
}
