//! Rules that say no more than they must, for tests of one station.
//!
//! Knows what a rules file may leave out. Never knows what a test is about.

use std::collections::BTreeMap;

use fw_model::{
    Cidr, DefaultAction, Defaults, GuardSwitches, Limits, LinkLocal, MacAddr, NicIdentity, RuleSet, Timers,
};

/// A NIC of which nothing is said but its name, its MAC address and its addresses.
pub(crate) fn nic(id: &str, mac: MacAddr, addresses: &[&str]) -> NicIdentity {
    NicIdentity {
        id: id.parse().unwrap(),
        mac,
        addresses: addresses.iter().map(|address| address.parse::<Cidr>().unwrap()).collect(),
        vlan: None,
        link_local: LinkLocal::Eui64,
        shared: vec![],
        gateways: vec![],
        dhcp_servers: vec![],
        mtu: None,
        guard: GuardSwitches::ALL,
    }
}

/// No rules, no sets and no limits: what is not built in is dropped.
pub(crate) fn rules(nic: NicIdentity) -> RuleSet {
    RuleSet {
        generation: 1,
        nic,
        defaults: Defaults { out: DefaultAction::Drop, in_: DefaultAction::Drop },
        address_sets: BTreeMap::new(),
        rules: vec![],
        timers: Timers::DEFAULT,
        limits: Limits {
            conns: None,
            half_open: None,
            fragments: None,
            expectations: None,
            rates: None,
            new_conns_per_s: None,
        },
    }
}
