//! What rules say of protocol, port, ICMP type and ethertype, as spans on lines of 65,536 numbers.
//!
//! Every question stands at one number of one line, and every rule covers ranges of some lines. Knows what a
//! rule's fields mean. Never knows addresses, beyond the family ICMP goes by.

use fw_model::{Direction, IcmpMatch, Protocol, ProtocolMatch, Rule};

use super::Question;
use super::bitmaps::{Bitmap, Growing, TooLarge, set};
use super::spans::Spans;

/// The lines of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// TCP by destination port.
    Tcp,
    /// UDP by destination port.
    Udp,
    /// ICMP over IPv4 by type and code.
    Icmp4,
    /// `ICMPv6` over IPv6 by type and code.
    Icmp6,
    /// Other protocols over IPv4 by number.
    Other4,
    /// Other protocols over IPv6 by number.
    Other6,
    /// Frames that are not IP by ethertype.
    Ethertype,
}

const LINES: [Line; 7] =
    [Line::Tcp, Line::Udp, Line::Icmp4, Line::Icmp6, Line::Other4, Line::Other6, Line::Ethertype];

/// Which rules match at each number of each line, remote addresses left out.
#[derive(Debug)]
pub(super) struct Lines {
    out: [Spans<u16, 32>; LINES.len()],
    in_: [Spans<u16, 32>; LINES.len()],
}

impl Lines {
    pub(super) fn new(rules: &[Rule], bitmaps: &mut Growing) -> Result<Self, TooLarge> {
        Ok(Self {
            out: of_direction(rules, Direction::Out, bitmaps)?,
            in_: of_direction(rules, Direction::In, bitmaps)?,
        })
    }

    /// The rules that match all of the question but its remote address.
    pub(super) fn asked(&self, question: &Question) -> Bitmap {
        let (direction, line, number) = place_of(question);
        let lines = match direction {
            Direction::Out => &self.out,
            Direction::In => &self.in_,
        };
        Bitmap(lines.get(line as usize).map_or(0, |spans| spans.find(number)))
    }
}

fn place_of(question: &Question) -> (Direction, Line, u16) {
    match *question {
        Question::Ethertype { direction, ethertype } => (direction, Line::Ethertype, ethertype),
        Question::Ip { direction, remote, protocol, port, icmp } => {
            let v4 = remote.is_v4();
            let (line, number) = match (protocol, icmp) {
                (Protocol::TCP, _) => (Line::Tcp, port),
                (Protocol::UDP, _) => (Line::Udp, port),
                (Protocol::ICMP, Some(message)) if v4 => (Line::Icmp4, message_number(message)),
                (Protocol::ICMPV6, Some(message)) if !v4 => (Line::Icmp6, message_number(message)),
                (Protocol(number), _) => (if v4 { Line::Other4 } else { Line::Other6 }, u16::from(number)),
            };
            (direction, line, number)
        }
    }
}

fn message_number((kind, code): (u8, u8)) -> u16 {
    u16::from_be_bytes([kind, code])
}

fn of_direction(
    rules: &[Rule],
    direction: Direction,
    bitmaps: &mut Growing,
) -> Result<[Spans<u16, 32>; LINES.len()], TooLarge> {
    let mut failed = None;
    let spans = LINES.map(|line| {
        cuts(rules, direction, line, bitmaps).map_or_else(
            |error| {
                failed = Some(error);
                Spans::new(&[])
            },
            |cuts| Spans::new(&cuts),
        )
    });
    failed.map_or(Ok(spans), Err)
}

/// Sweeps over one line and notes the bitmap of the rules in force wherever it changes.
fn cuts(
    rules: &[Rule],
    direction: Direction,
    line: Line,
    bitmaps: &mut Growing,
) -> Result<Vec<(u16, u32)>, TooLarge> {
    // (number, place, whether the rule begins or is over there)
    let mut changes: Vec<(u16, usize, bool)> = Vec::new();
    for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.direction == direction) {
        for (first, last) in merged(ranges(rule, line)) {
            changes.push((first, place, true));
            changes.extend(last.checked_add(1).map(|after| (after, place, false)));
        }
    }
    changes.sort_unstable();

    let mut words = vec![0; rules.len().div_ceil(64)];
    let mut cuts = vec![(0, Bitmap::EMPTY.0)];
    for group in changes.chunk_by(|(a, ..), (b, ..)| a == b) {
        for (_, place, begins) in group {
            set(&mut words, *place, *begins);
        }
        let Some((number, ..)) = group.first() else { continue };
        let Bitmap(bitmap) = bitmaps.add(&words)?;
        cuts.pop_if(|(start, _)| start == number);
        if cuts.last().is_none_or(|(_, last)| *last != bitmap) {
            cuts.push((*number, bitmap));
        }
    }
    Ok(cuts)
}

/// Ranges in order that neither meet nor overlap.
fn merged(mut ranges: Vec<(u16, u16)>) -> Vec<(u16, u16)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    merged
}

const ALL: (u16, u16) = (0, u16::MAX);

/// What a rule covers of a line.
fn ranges(rule: &Rule, line: Line) -> Vec<(u16, u16)> {
    if let Some(ethertype) = rule.ethertype {
        return if line == Line::Ethertype { vec![(ethertype, ethertype)] } else { Vec::new() };
    }
    match line {
        Line::Tcp => ports(rule, Protocol::TCP, rule.protocol == ProtocolMatch::Tcp),
        Line::Udp => ports(rule, Protocol::UDP, rule.protocol == ProtocolMatch::Udp),
        Line::Icmp4 => messages(rule, Protocol::ICMP, |icmp| icmp.v4),
        Line::Icmp6 => messages(rule, Protocol::ICMPV6, |icmp| icmp.v6),
        Line::Other4 => numbers(rule, Protocol::ICMP),
        Line::Other6 => numbers(rule, Protocol::ICMPV6),
        Line::Ethertype => Vec::new(),
    }
}

fn ports(rule: &Rule, protocol: Protocol, named: bool) -> Vec<(u16, u16)> {
    let means_it = match rule.protocol {
        ProtocolMatch::Usual | ProtocolMatch::Any => true,
        ProtocolMatch::Tcp | ProtocolMatch::Udp => named,
        ProtocolMatch::Icmp => false,
        ProtocolMatch::Number(number) => Protocol(number) == protocol,
    };
    match (means_it, rule.ports.is_empty()) {
        (false, _) => Vec::new(),
        (true, true) => vec![ALL],
        (true, false) => rule.ports.iter().map(|ports| (ports.first(), ports.last())).collect(),
    }
}

const ECHO_REQUEST: IcmpMatch = IcmpMatch { v4: Some(8), v6: Some(128), code: None };

fn messages(rule: &Rule, protocol: Protocol, kind: impl Fn(&IcmpMatch) -> Option<u8>) -> Vec<(u16, u16)> {
    let range = |icmp: &IcmpMatch| {
        let kind = kind(icmp)?;
        let (first, last) = icmp.code.map_or((0, u8::MAX), |code| (code, code));
        Some((message_number((kind, first)), message_number((kind, last))))
    };
    match rule.protocol {
        // Ports say TCP or UDP.
        ProtocolMatch::Usual if rule.ports.is_empty() => range(&ECHO_REQUEST).into_iter().collect(),
        ProtocolMatch::Icmp if rule.icmp.is_empty() => vec![ALL],
        ProtocolMatch::Icmp => rule.icmp.iter().filter_map(range).collect(),
        ProtocolMatch::Any => vec![ALL],
        ProtocolMatch::Number(number) if Protocol(number) == protocol => vec![ALL],
        ProtocolMatch::Usual | ProtocolMatch::Tcp | ProtocolMatch::Udp | ProtocolMatch::Number(_) => {
            Vec::new()
        }
    }
}

fn numbers(rule: &Rule, icmp: Protocol) -> Vec<(u16, u16)> {
    match rule.protocol {
        ProtocolMatch::Any => vec![ALL],
        ProtocolMatch::Number(number) => vec![(number.into(), number.into())],
        // An ICMP message whose type nobody read.
        ProtocolMatch::Icmp if rule.icmp.is_empty() => vec![(icmp.0.into(), icmp.0.into())],
        ProtocolMatch::Icmp | ProtocolMatch::Usual | ProtocolMatch::Tcp | ProtocolMatch::Udp => Vec::new(),
    }
}
