//! Frames here are written by hand or by etherparse, and what comes back is compared with a second reassembler that
//! knows nothing of chunks, quotas or indices.

mod caps;
mod permutations;

use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice};
use fw_model::Addr;

use super::*;
use crate::headers::{Ether, Fragment, Ip, L4, Net};

pub(super) const IN: Direction = Direction::In;
pub(super) const LIFETIME_S: u32 = 60;
pub(super) const ROOM: usize = 1 << 20;

/// A fragment to be: `data` at `offset`, with the addresses' last bytes and everything else that may differ.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) source: u8,
    pub(super) id: u32,
    pub(super) protocol: u8,
    pub(super) offset: usize,
    pub(super) more: bool,
    pub(super) data: Vec<u8>,
    pub(super) vlan: Option<u16>,
}

pub(super) fn part(offset: usize, more: bool, data: &[u8]) -> Part {
    Part { source: 7, id: 99, protocol: 17, offset, more, data: data.to_vec(), vlan: None }
}

/// Bytes that differ everywhere.
pub(super) fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| u8::try_from((place * 7 + place / 256) % 251).unwrap()).collect()
}

/// `data` cut at `cuts`.
pub(super) fn parts(data: &[u8], cuts: &[usize]) -> Vec<Part> {
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([data.len()]);
    starts.zip(ends).map(|(start, end)| part(start, end < data.len(), &data[start..end])).collect()
}

impl Part {
    fn ether(&self, ethertype: u16) -> (Vec<u8>, Ether) {
        let mut frame = vec![0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 0xfe];
        if let Some(vlan) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(ethertype.to_be_bytes());
        let ether = Ether {
            destination: MacAddr([0x52, 0x54, 0, 0, 0, 1]),
            source: MacAddr([0x52, 0x54, 0, 0, 0, 0xfe]),
            vlan: self.vlan,
            ethertype,
            length: frame.len(),
        };
        (frame, ether)
    }

    pub(super) fn v4(&self) -> (Vec<u8>, Headers) {
        let (mut frame, ether) = self.ether(0x0800);
        let length = u16::try_from(20 + self.data.len()).unwrap();
        let place = u16::try_from(self.offset / 8).unwrap() | if self.more { 0x2000 } else { 0 };
        frame.extend([0x45, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend(u16::try_from(self.id & 0xffff).unwrap().to_be_bytes());
        frame.extend(place.to_be_bytes());
        frame.extend([64, self.protocol, 0, 0]);
        frame.extend([198, 51, 100, self.source, 10, 0, 0, 10]);
        let checksum = crate::headers::checksum::ipv4_header(&frame[ether.length..]);
        frame[ether.length + 10..ether.length + 12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(&self.data);
        let source = Addr::v4([198, 51, 100, self.source]);
        let headers = self.headers(ether, (source, Addr::v4([10, 0, 0, 10])), ether.length + 20, (0, 0));
        (frame, headers)
    }

    pub(super) fn v6(&self) -> (Vec<u8>, Headers) {
        let (mut frame, ether) = self.ether(0x86dd);
        let mut source = [0x20, 1, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.source];
        let destination = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x10];
        source[14] = 0xaa;
        frame.extend([0x60, 0, 0, 0]);
        frame.extend(u16::try_from(8 + self.data.len()).unwrap().to_be_bytes());
        frame.extend([44, 64]);
        frame.extend(source);
        frame.extend(destination);
        let header_offset = frame.len();
        frame.extend([self.protocol, 0]);
        frame.extend((u16::try_from(self.offset).unwrap() | u16::from(self.more)).to_be_bytes());
        frame.extend(self.id.to_be_bytes());
        let l4 = frame.len();
        frame.extend(&self.data);
        let addresses = (Addr::v6(source), Addr::v6(destination));
        let headers = self.headers(ether, addresses, l4, (header_offset, ether.length + 6));
        (frame, headers)
    }

    fn headers(
        &self,
        ether: Ether,
        (source, destination): (Addr, Addr),
        l4_offset: usize,
        (header_offset, named_at): (usize, usize),
    ) -> Headers {
        let fragment =
            Fragment { id: self.id, offset: self.offset, more: self.more, header_offset, named_at };
        let ip = Ip {
            source,
            destination,
            protocol: Protocol(self.protocol),
            hop_limit: 64,
            router_alert: false,
            offset: ether.length,
            l4_offset,
            fragment: Some(fragment),
            l4: L4::Fragment,
        };
        Headers { ether, net: Net::Ip(ip), length: l4_offset + self.data.len() }
    }
}

pub(super) fn add(fragments: &mut Fragments, part: &Part) -> Added {
    add_at(fragments, part, Tick(0))
}

pub(super) fn add_at(fragments: &mut Fragments, part: &Part, now: Tick) -> Added {
    let (frame, headers) = part.v4();
    fragments.add(IN, &frame, &headers, now, LIFETIME_S)
}

fn whole(added: Added) -> DatagramId {
    let Added::Whole(id) = added else { panic!("not whole: {added:?}") };
    id
}

#[test]
fn an_ipv4_datagram_is_rebuilt_as_it_was() {
    let data = pattern(3000);
    for vlan in [None, Some(30)] {
        let mut fragments = Fragments::new(ROOM);
        let parts: Vec<Part> =
            parts(&data, &[1480, 2960]).into_iter().map(|part| Part { vlan, ..part }).collect();
        assert_eq!(add(&mut fragments, &parts[2]), Added::Held);
        assert_eq!(add(&mut fragments, &parts[0]), Added::Held);
        let id = whole(add(&mut fragments, &parts[1]));
        let frame = fragments.datagram(id);
        let start = if vlan.is_some() { 18 } else { 14 };
        assert_eq!(frame[..start], parts[0].v4().0[..start]);
        let header = Ipv4HeaderSlice::from_slice(&frame[start..]).unwrap().to_header();
        assert_eq!(usize::from(header.total_len), 20 + data.len());
        assert!(!header.more_fragments && header.fragment_offset.value() == 0);
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!((header.protocol.0, header.time_to_live, header.identification), (17, 64, 99));
        assert_eq!(frame[start + 20..], data);
    }
}

#[test]
fn an_ipv6_datagram_is_rebuilt_without_its_fragment_header() {
    let data = pattern(2500);
    let mut fragments = Fragments::new(ROOM);
    let mut last = Added::Held;
    for part in parts(&data, &[1232, 2464]) {
        let (frame, headers) = part.v6();
        last = fragments.add(IN, &frame, &headers, Tick(0), LIFETIME_S);
    }
    let frame = fragments.datagram(whole(last));
    let header = Ipv6HeaderSlice::from_slice(&frame[14..]).unwrap().to_header();
    assert_eq!(usize::from(header.payload_length), data.len());
    assert_eq!(header.next_header.0, 17);
    assert_eq!(frame[54..], data);
}

#[test]
fn ipv6_headers_before_the_fragment_header_stay_and_name_the_next_one() {
    // Destination options (8 bytes) in front of the fragment header: the options name it, not the IPv6 header.
    let with_options = |part: &Part| {
        let (mut frame, mut headers) = part.v6();
        frame.splice(54..54, [44, 0, 1, 4, 0, 0, 0, 0]);
        frame[20] = 60;
        let payload = u16::try_from(frame.len() - 54).unwrap();
        frame[18..20].copy_from_slice(&payload.to_be_bytes());
        headers.length += 8;
        if let Net::Ip(ip) = &mut headers.net {
            ip.l4_offset += 8;
            let fragment = ip.fragment.as_mut().unwrap();
            (fragment.header_offset, fragment.named_at) = (62, 54);
        }
        (frame, headers)
    };
    let data = pattern(64);
    let mut fragments = Fragments::new(ROOM);
    let mut last = Added::Held;
    for part in parts(&data, &[32]) {
        let (frame, headers) = with_options(&part);
        last = fragments.add(IN, &frame, &headers, Tick(0), LIFETIME_S);
    }
    let frame = fragments.datagram(whole(last));
    assert_eq!(frame[18..21], [0, 72, 60]);
    assert_eq!(frame[54..62], [17, 0, 1, 4, 0, 0, 0, 0]);
    assert_eq!(frame[62..], data);
}

#[test]
fn frames_are_released_as_they_came_without_what_trailed_them() {
    let mut fragments = Fragments::new(ROOM);
    let [first, last] = parts(&pattern(64), &[32]).try_into().unwrap();
    let (mut padded, headers) = last.v4();
    padded.extend([0xaa; 20]);
    assert_eq!(fragments.add(IN, &padded, &headers, Tick(0), LIFETIME_S), Added::Held);
    let id = whole(add(&mut fragments, &first));
    let mut released = vec![];
    fragments.release(id, |frame| released.push(frame.to_vec()));
    assert_eq!(released, [last.v4().0, first.v4().0]);
    // It is forgotten: the same fragment starts a datagram anew.
    assert_eq!(add(&mut fragments, &first), Added::Held);
}

#[test]
fn a_discarded_datagram_is_forgotten() {
    let mut fragments = Fragments::new(ROOM);
    let [first, last] = parts(&pattern(64), &[32]).try_into().unwrap();
    add(&mut fragments, &first);
    let id = whole(add(&mut fragments, &last));
    fragments.discard(id);
    assert!(fragments.datagram(id).is_empty());
    assert_eq!(fragments.arena.free(), fragments.arena.len());
    assert_eq!(add(&mut fragments, &first), Added::Held);
}

#[test]
fn fragments_of_different_datagrams_never_mix() {
    let [first, last] = parts(&pattern(64), &[32]).try_into().unwrap();
    for other in [
        Part { source: 8, ..last.clone() },
        Part { id: 100, ..last.clone() },
        Part { protocol: 6, ..last.clone() },
        Part { vlan: Some(30), ..last.clone() },
    ] {
        let mut fragments = Fragments::new(ROOM);
        assert_eq!(add(&mut fragments, &first), Added::Held);
        assert_eq!(add(&mut fragments, &other), Added::Held, "{other:?}");
    }
    let mut fragments = Fragments::new(ROOM);
    assert_eq!(add(&mut fragments, &first), Added::Held);
    let (frame, headers) = last.v4();
    assert_eq!(fragments.add(Direction::Out, &frame, &headers, Tick(0), LIFETIME_S), Added::Held);
}

#[test]
fn an_exact_duplicate_is_refused_and_the_datagram_stays() {
    let mut fragments = Fragments::new(ROOM);
    let [first, last] = parts(&pattern(600), &[400]).try_into().unwrap();
    assert_eq!(add(&mut fragments, &first), Added::Held);
    assert_eq!(add(&mut fragments, &first), Added::Refused(Reason::FragmentOverlap));
    whole(add(&mut fragments, &last));
}

#[test]
fn the_same_range_with_other_bytes_ends_the_datagram() {
    let mut fragments = Fragments::new(ROOM);
    let [first, last] = parts(&pattern(600), &[400]).try_into().unwrap();
    let mut forged = first.clone();
    forged.data[399] ^= 1;
    assert_eq!(add(&mut fragments, &first), Added::Held);
    assert_eq!(add(&mut fragments, &forged), Added::Refused(Reason::FragmentOverlap));
    assert_eq!(add(&mut fragments, &last), Added::Refused(Reason::FragmentOverlap));
    assert_eq!(fragments.take_lost(), Lost { overlap: 1, ..Lost::default() });
    assert_eq!(fragments.arena.free(), fragments.arena.len());
}

#[test]
fn a_poisoned_datagram_stays_refused_until_its_time_is_over() {
    let mut fragments = Fragments::new(ROOM);
    let [first, last] = parts(&pattern(64), &[32]).try_into().unwrap();
    add(&mut fragments, &first);
    add(&mut fragments, &part(24, true, &[0; 16]));
    let refused = Added::Refused(Reason::FragmentOverlap);
    assert_eq!(add_at(&mut fragments, &first, Tick(59_999)), refused);
    assert_eq!(add_at(&mut fragments, &first, Tick(60_000)), Added::Held);
    whole(add_at(&mut fragments, &last, Tick(60_001)));
}

#[test]
fn fragments_no_stack_sends_are_malformed() {
    let refused = Added::Refused(Reason::FragmentMalformed);
    for wrong in [
        part(0, true, &[0; 12]),
        part(8, true, &[]),
        part(8, false, &[]),
        part(65_512, false, &[0; 1000]),
        part(65_528, false, &[0; 16]),
    ] {
        let mut fragments = Fragments::new(ROOM);
        assert_eq!(add(&mut fragments, &wrong), refused, "{wrong:?}");
        assert_eq!(fragments.next_due(), None);
    }
}

#[test]
fn data_beyond_the_last_fragment_is_malformed() {
    let last = part(32, false, &[1; 20]);
    for (before, wrong) in [
        (last.clone(), part(56, true, &[2; 8])),
        (last.clone(), part(56, false, &[2; 8])),
        (part(64, true, &[2; 8]), last.clone()),
        (part(64, false, &[2; 8]), last),
    ] {
        let mut fragments = Fragments::new(ROOM);
        assert_eq!(add(&mut fragments, &before), Added::Held);
        assert_eq!(add(&mut fragments, &wrong), Added::Refused(Reason::FragmentMalformed), "{wrong:?}");
        assert_eq!(add(&mut fragments, &before), Added::Refused(Reason::FragmentMalformed));
        assert_eq!(fragments.take_lost(), Lost { malformed: 1, ..Lost::default() });
    }
}

#[test]
fn fragments_that_disagree_in_protocol_or_receiver_are_malformed() {
    let [first, last] = parts(&pattern(64), &[32]).try_into().unwrap();
    let mut fragments = Fragments::new(ROOM);
    for (part, expected) in [
        (first.clone(), Added::Held),
        (Part { protocol: 6, ..last.clone() }, Added::Refused(Reason::FragmentMalformed)),
    ] {
        let (frame, headers) = part.v6();
        assert_eq!(fragments.add(IN, &frame, &headers, Tick(0), LIFETIME_S), expected);
    }
    let mut fragments = Fragments::new(ROOM);
    add(&mut fragments, &first);
    let (mut frame, mut headers) = last.v4();
    headers.ether.destination = MacAddr::BROADCAST;
    frame[..6].fill(0xff);
    let added = fragments.add(IN, &frame, &headers, Tick(0), LIFETIME_S);
    assert_eq!(added, Added::Refused(Reason::FragmentMalformed));
}

#[test]
fn a_datagram_longer_than_ip_allows_is_malformed() {
    // 65,532 bytes of data and 20 of header are more than a total length can say.
    let data = pattern(65_532);
    let cuts: Vec<usize> = (1..=40).map(|cut| cut * 1600).collect();
    let mut fragments = Fragments::new(ROOM);
    let (last, rest) = {
        let mut parts = parts(&data, &cuts);
        (parts.pop().unwrap(), parts)
    };
    assert!(rest.iter().all(|part| add(&mut fragments, part) == Added::Held));
    assert_eq!(add(&mut fragments, &last), Added::Refused(Reason::FragmentMalformed));
}

#[test]
fn the_longest_datagram_is_rebuilt() {
    let data = pattern(65_515);
    let cuts: Vec<usize> = (1..=44).map(|cut| cut * 1480).collect();
    let mut fragments = Fragments::new(ROOM);
    let mut last = Added::Held;
    for part in parts(&data, &cuts) {
        assert_eq!(last, Added::Held);
        last = add(&mut fragments, &part);
    }
    assert_eq!(fragments.datagram(whole(last))[34..], data);
}

#[test]
fn what_is_held_goes_when_its_time_is_over() {
    let mut fragments = Fragments::new(ROOM);
    let [first, last] = parts(&pattern(64), &[32]).try_into().unwrap();
    assert_eq!(fragments.next_due(), None);
    add_at(&mut fragments, &first, Tick(1000));
    add_at(&mut fragments, &Part { id: 5, ..first.clone() }, Tick(2000));
    assert_eq!(fragments.next_due(), Some(Tick(61_000)));
    assert_eq!(fragments.expire(Tick(60_999)), 0);
    assert_eq!(fragments.expire(Tick(61_000)), 1);
    assert_eq!(fragments.next_due(), Some(Tick(62_000)));
    // The rest comes late: it starts anew and waits for what will not come.
    assert_eq!(add_at(&mut fragments, &last, Tick(61_001)), Added::Held);
    assert_eq!(fragments.expire(Tick(200_000)), 2);
    assert_eq!(fragments.next_due(), None);
    assert_eq!(fragments.arena.free(), fragments.arena.len());
}

#[test]
fn a_late_fragment_does_not_meet_what_should_have_expired() {
    let mut fragments = Fragments::new(ROOM);
    let [first, last] = parts(&pattern(64), &[32]).try_into().unwrap();
    add(&mut fragments, &first);
    assert_eq!(add_at(&mut fragments, &last, Tick(61_000)), Added::Held);
    assert_eq!(fragments.expire(Tick(61_000)), 1);
}
