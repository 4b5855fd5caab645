//! The benches' rules, and the frames of flows over them: well-formed, vouched for, windows advancing.

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_engine::{HEAD_LEN, VnetHeader};
use fw_model::{
    Action, Addr, AddressSet, Cidr, DefaultAction, Defaults, Direction, GuardSwitches, Limits, LinkLocal,
    MacAddr, Member, NicIdentity, OnRevoke, PortRange, ProtocolMatch, RemoteMatch, Rule, RuleLimits, RuleSet,
    SetName, Timers,
};

use crate::bed::{BATCH, Bed, Expected, Wire};

const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
const PEER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];
const GUEST: [u8; 4] = [10, 0, 0, 10];
const SETS: u32 = 100;
/// The lowest port rules name; rule `i` names the port `i` above it.
const FIRST_PORT: u32 = 2_000;
const LIMIT: u32 = 1_200_000;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

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

fn port_of_rule(number: u32) -> u16 {
    u16::try_from(FIRST_PORT + number).unwrap_or(u16::MAX)
}

/// The address of a number below 1,000,000, in set `number % 100`: scattered over 11.0.0.0 to 94.255.255.255.
fn remote(number: u32) -> [u8; 4] {
    (0x0b00_0000 + number * 1_401).to_be_bytes()
}

/// Numbers below `count`, in an order that no prefetcher knows.
struct Shuffled {
    count: u32,
    state: u64,
}

impl Shuffled {
    fn below(&mut self) -> u32 {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((mixed ^ (mixed >> 31)) % u64::from(self.count.max(1))).unwrap_or(0)
    }
}

/// One TCP conn as both its ends see it: the guest sends, the peer acknowledges.
#[derive(Clone, Copy)]
struct Flow {
    number: u32,
    sent: u32,
    /// The guest sent something that is not acknowledged yet.
    is_owed: bool,
}

/// Living TCP conns, visited in random order: the guest's data and the peer's acknowledgements in turn.
pub(crate) struct Established {
    flows: Vec<Flow>,
    order: Shuffled,
}

/// Bytes of payload that make a frame of 64.
const PAYLOAD: u16 = 10;

impl Established {
    pub(crate) fn new(conns: u32) -> Self {
        let flow = |number| Flow { number, sent: 1_000, is_owed: false };
        Self { flows: (0..conns).map(flow).collect(), order: Shuffled { count: conns, state: 1 } }
    }

    /// Opens every conn with the frames that open one.
    pub(crate) fn open(&mut self, bed: &mut Bed) -> Result<(), String> {
        for flows in self.flows.chunks_mut(BATCH) {
            let syn: Vec<Wire> = flows.iter().map(|flow| flow.out(SYN, 0, 0)).collect();
            bed.judge(&syn, Expected::Pass)?;
            flows.iter_mut().for_each(|flow| flow.sent += 1);
            let syn_ack: Vec<Wire> = flows.iter().map(|flow| flow.back(SYN | ACK, PEER_START)).collect();
            bed.judge(&syn_ack, Expected::Pass)?;
            let ack: Vec<Wire> = flows.iter().map(|flow| flow.out(ACK, PEER_START + 1, 0)).collect();
            bed.judge(&ack, Expected::Pass)?;
        }
        bed.rest();
        Ok(())
    }

    pub(crate) fn fill(&mut self, wires: &mut [Wire]) {
        for wire in wires {
            let Some(flow) = self.flows.get_mut(self.order.below() as usize) else { continue };
            *wire = if flow.is_owed {
                flow.back(ACK, PEER_START + 1)
            } else {
                let data = flow.out(ACK, PEER_START + 1, PAYLOAD);
                flow.sent = flow.sent.wrapping_add(PAYLOAD.into());
                data
            };
            flow.is_owed = !flow.is_owed;
        }
    }
}

/// The peers' initial sequence number.
const PEER_START: u32 = 5_000;

impl Flow {
    fn ports(self) -> (u16, u16) {
        let local = u16::try_from(10_000 + self.number / 20 % 50_000).unwrap_or(u16::MAX);
        (local, port_of_rule(self.number % SETS))
    }

    fn out(self, flags: u8, acknowledgement: u32, payload: u16) -> Wire {
        let (local, there) = self.ports();
        let tcp = tcp(local, there, self.sent, acknowledgement, flags);
        wire(Direction::Out, remote(self.number), TCP, &tcp, payload)
    }

    fn back(self, flags: u8, sequence: u32) -> Wire {
        let (local, there) = self.ports();
        wire(Direction::In, remote(self.number), TCP, &tcp(there, local, sequence, self.sent, flags), 0)
    }
}

/// First frames of UDP flows to members of sets, at ports that rules name for other sets.
pub(crate) struct Strangers {
    rules: Shuffled,
    addresses: Shuffled,
    source_port: u16,
}

impl Strangers {
    pub(crate) const fn new(rules: u32, prefixes: u32) -> Self {
        let (rules, addresses) =
            (Shuffled { count: rules, state: 2 }, Shuffled { count: prefixes, state: 3 });
        Self { rules, addresses, source_port: 1_024 }
    }

    pub(crate) fn fill(&mut self, wires: &mut [Wire]) {
        for wire_out in wires {
            let (rule, mut number) = (self.rules.below(), self.addresses.below());
            if rule % SETS == number % SETS {
                // Any other set will do; the one before always exists.
                number = number.checked_sub(1).unwrap_or(1);
            }
            self.source_port = self.source_port.checked_add(1).unwrap_or(1_024);
            let udp = udp(self.source_port, port_of_rule(rule), PAYLOAD);
            *wire_out = wire(Direction::Out, remote(number), UDP, &udp, PAYLOAD);
        }
    }
}

fn tcp(source: u16, destination: u16, sequence: u32, acknowledgement: u32, flags: u8) -> Vec<u8> {
    let window = u16::MAX;
    let mut header = Vec::with_capacity(20);
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend(sequence.to_be_bytes());
    header.extend(acknowledgement.to_be_bytes());
    header.extend([5 << 4, flags]);
    header.extend(window.to_be_bytes());
    header.extend([0; 4]);
    header
}

fn udp(source: u16, destination: u16, payload: u16) -> Vec<u8> {
    let mut header = Vec::with_capacity(8);
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend((8 + payload).to_be_bytes());
    header.extend([0; 2]);
    header
}

/// A frame between the guest and `remote` whose checksum is left to be completed (`NEEDS_CSUM`).
fn wire(direction: Direction, remote: [u8; 4], protocol: u8, l4: &[u8], payload: u16) -> Wire {
    let (macs, source, destination) = match direction {
        Direction::Out => ([GUEST_MAC, PEER_MAC], GUEST, remote),
        Direction::In => ([PEER_MAC, GUEST_MAC], remote, GUEST),
    };
    let [from, to] = macs;
    let l4_length = u16::try_from(l4.len()).unwrap_or(0) + payload;
    let mut frame = Vec::with_capacity(HEAD_LEN);
    frame.extend(to);
    frame.extend(from);
    frame.extend([0x08, 0x00]);
    frame.extend(ipv4(source, destination, protocol, l4_length));
    frame.extend(l4);
    frame.resize(frame.len() + usize::from(payload), 0x5a);
    let length = frame.len();
    let mut bytes = [0; HEAD_LEN];
    for (byte, value) in bytes.iter_mut().zip(frame) {
        *byte = value;
    }
    let csum_offset = if protocol == TCP { 16 } else { 6 };
    Wire {
        direction,
        bytes,
        length,
        vnet: VnetHeader { flags: 1, csum_start: 34, csum_offset, ..VnetHeader::NONE },
    }
}

fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: u8, l4_length: u16) -> Vec<u8> {
    let header = |checksum: u16| {
        let mut header = vec![0x45, 0];
        header.extend((20 + l4_length).to_be_bytes());
        header.extend([0, 0, 0x40, 0, 64, protocol]);
        header.extend(checksum.to_be_bytes());
        header.extend(source);
        header.extend(destination);
        header
    };
    let sum: u32 = header(0).as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    header(!u16::try_from(folded).unwrap_or(0))
}
