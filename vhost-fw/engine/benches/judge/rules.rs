//! The benches' rules, and the numbers they draw.

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_model::{
    Action, Addr, AddressSet, Cidr, DefaultAction, Defaults, Direction, GuardSwitches, Limits, LinkLocal,
    MacAddr, Member, NicIdentity, OnRevoke, PortRange, ProtocolMatch, RemoteMatch, Rule, RuleLimits, RuleSet,
    SetName, Timers,
};

pub(crate) const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
pub(crate) const GUEST: [u8; 4] = [10, 0, 0, 10];
pub(crate) const SETS: u32 = 100;
/// The lowest port rules name; rule `i` names the port `i` above it.
const FIRST_PORT: u32 = 2_000;
const LIMIT: u32 = 1_200_000;

/// `rules` rules over 100 address sets that hold `prefixes` addresses in all: rule `i` allows TCP and UDP to set
/// `i % 100` at a port of its own.
pub(crate) fn rules(rules: u32, prefixes: u32) -> Result<RuleSet, String> {
    let address_sets: Result<BTreeMap<SetName, Arc<AddressSet>>, String> = (0..SETS)
        .map(|set| {
            let numbers = (set..prefixes).step_by(SETS as usize);
            let members =
                numbers.map(|number| Member { prefix: Cidr::host(Addr::v4(remote(number))), mac: None });
            Ok((set_name(set)?, Arc::new(AddressSet { members: members.collect() })))
        })
        .collect();
    let rules: Result<Vec<Rule>, String> = (0..rules).map(rule).collect();
    Ok(RuleSet {
        generation: 1,
        nic: nic()?,
        defaults: Defaults { out: DefaultAction::Drop, in_: DefaultAction::Drop },
        address_sets: address_sets?,
        rules: rules?,
        timers: Timers::DEFAULT,
        limits: Limits {
            conns: Some(LIMIT),
            half_open: Some(LIMIT),
            fragments: None,
            expectations: None,
            rates: None,
            new_conns_per_s: None,
        },
    })
}

fn rule(number: u32) -> Result<Rule, String> {
    let port = port_of_rule(number);
    Ok(Rule {
        id: format!("rule-{number}").parse().map_err(|_| "no rule id")?,
        direction: Direction::Out,
        action: Action::Allow,
        protocol: ProtocolMatch::Usual,
        remote: vec![RemoteMatch::Set(set_name(number % SETS)?)],
        ports: PortRange::new(port, port).into_iter().collect(),
        icmp: vec![],
        ethertype: None,
        log: false,
        helper: None,
        expires_in_ms: None,
        on_revoke: OnRevoke::Kill,
        limits: RuleLimits { conns: None, new_per_s: None },
        reply_from: vec![],
    })
}

fn nic() -> Result<NicIdentity, String> {
    Ok(NicIdentity {
        id: "bench".parse().map_err(|_| "no NIC id")?,
        mac: MacAddr(GUEST_MAC),
        addresses: vec![Cidr::host(Addr::v4(GUEST))],
        vlan: None,
        link_local: LinkLocal::Eui64,
        shared: vec![],
        gateways: vec![],
        dhcp_servers: vec![],
        mtu: Some(1500),
        guard: GuardSwitches::ALL,
    })
}

fn set_name(set: u32) -> Result<SetName, String> {
    format!("set-{set}").parse().map_err(|_| "no set name".to_owned())
}

pub(crate) fn port_of_rule(number: u32) -> u16 {
    u16::try_from(FIRST_PORT + number).unwrap_or(u16::MAX)
}

/// The address of a number below 1,000,000, in set `number % 100`: scattered over 11.0.0.0 to 94.255.255.255.
pub(crate) fn remote(number: u32) -> [u8; 4] {
    (0x0b00_0000 + number * 1_401).to_be_bytes()
}

/// Numbers below `count`, in an order that no prefetcher knows.
pub(crate) struct Shuffled {
    pub(crate) count: u32,
    pub(crate) state: u64,
}

impl Shuffled {
    pub(crate) fn below(&mut self) -> u32 {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) % u64::from(self.count.max(1))).unwrap_or(0)
    }
}
