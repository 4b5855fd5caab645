//! The frames of flows over the benches' rules: well-formed, vouched for, windows advancing.

use fw_engine::{HEAD_LEN, VnetHeader};
use fw_model::Direction;

use crate::bed::{BATCH, Bed, Expected, Wire};
use crate::rules::{GUEST, GUEST_MAC, SETS, Shuffled, port_of_rule, remote};

const PEER_MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 2];

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

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
