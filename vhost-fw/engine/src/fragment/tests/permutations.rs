use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A reassembler that knows nothing but the rules: `None` once anything overlaps, contradicts or reaches too far.
#[derive(Default)]
struct Naive {
    bytes: BTreeMap<usize, u8>,
    seen: Vec<(usize, bool, Vec<u8>)>,
    end: Option<usize>,
    dead: bool,
}

#[derive(Debug, PartialEq)]
enum Told {
    Held,
    Whole(Vec<u8>),
    Duplicate,
    Dead,
}

impl Naive {
    fn add(&mut self, part: &Part) -> Told {
        if self.dead {
            return Told::Dead;
        }
        let this = (part.offset, part.more, part.data.clone());
        if self.seen.contains(&this) {
            return Told::Duplicate;
        }
        let end = part.offset + part.data.len();
        let furthest = self.bytes.keys().max().map_or(0, |place| place + 1);
        let overlaps = (part.offset..end).any(|place| self.bytes.contains_key(&place));
        let beyond = self.end.is_some_and(|known| end > known) || (!part.more && furthest > end);
        if overlaps || beyond {
            self.dead = true;
            return Told::Dead;
        }
        self.bytes.extend((part.offset..end).zip(part.data.iter().copied()));
        self.seen.push(this);
        if !part.more {
            self.end = Some(end);
        }
        if self.end == Some(self.bytes.len()) {
            return Told::Whole(self.bytes.values().copied().collect());
        }
        Told::Held
    }
}

/// Both take the part and must say the same; whether it made the datagram whole, after which both start anew.
fn agree(fragments: &mut Fragments, naive: &mut Naive, part: &Part) -> bool {
    let expected = naive.add(part);
    let added = add(fragments, part);
    let whole = matches!(expected, Told::Whole(_));
    match expected {
        Told::Held => assert_eq!(added, Added::Held, "{part:?}"),
        Told::Duplicate => assert_eq!(added, Added::Refused(Reason::FragmentOverlap), "{part:?}"),
        Told::Dead => assert!(
            matches!(added, Added::Refused(Reason::FragmentOverlap | Reason::FragmentMalformed)),
            "{part:?} {added:?}"
        ),
        Told::Whole(data) => {
            let Added::Whole(id) = added else { panic!("{part:?} {added:?}") };
            assert_eq!(fragments.datagram(id)[34..], data, "{part:?}");
            fragments.discard(id);
            *naive = Naive::default();
        }
    }
    whole
}

/// Every order of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![vec![]];
    }
    let shorter = orders(count - 1);
    let put = |order: &Vec<usize>, place| [&order[..place], &[count - 1], &order[place..]].concat();
    shorter.iter().flat_map(|order| (0..count).map(move |place| put(order, place))).collect()
}

#[test]
fn every_order_of_three_to_five_fragments_gives_the_same_datagram() {
    let data = pattern(1001);
    for cuts in [&[8, 504][..], &[8, 256, 800], &[200, 208, 216, 992]] {
        let parts = parts(&data, cuts);
        let mut rebuilt = vec![];
        for order in orders(parts.len()) {
            let mut fragments = Fragments::new(ROOM);
            let mut naive = Naive::default();
            let wholes =
                order.iter().filter(|place| agree(&mut fragments, &mut naive, &parts[**place])).count();
            assert_eq!(wholes, 1, "{order:?}");

            let mut fragments = Fragments::new(ROOM);
            let added: Vec<Added> = order.iter().map(|place| add(&mut fragments, &parts[*place])).collect();
            let id = whole(*added.last().unwrap());
            rebuilt.push(fragments.datagram(id).to_vec());
            let mut released = vec![];
            fragments.release(id, |frame| released.push(frame.to_vec()));
            let came: Vec<_> = order.iter().map(|place| parts[*place].v4().0).collect();
            assert_eq!(released, came, "{order:?}");
        }
        rebuilt.dedup();
        assert_eq!(rebuilt.len(), 1);
    }
}

#[test]
fn any_overlap_by_eight_bytes_ends_the_datagram_in_every_order() {
    let data = pattern(1001);
    for cuts in [&[96, 504][..], &[96, 256, 800], &[200, 304, 416, 992]] {
        let straight = parts(&data, cuts);
        let mut checked = 0;
        for moved in 0..straight.len() {
            // Start eight bytes earlier, end eight bytes later, or both.
            for (earlier, later) in [(8, 0), (0, 8), (8, 8)] {
                let mut crooked = straight.clone();
                let part = &mut crooked[moved];
                let start = part.offset.saturating_sub(earlier);
                let end = part.offset + part.data.len() + if part.more { later } else { 0 };
                if (start, end) == (part.offset, part.offset + part.data.len()) {
                    continue;
                }
                (part.offset, part.data) = (start, data[start..end].to_vec());
                for order in orders(crooked.len()) {
                    let mut fragments = Fragments::new(ROOM);
                    let mut naive = Naive::default();
                    let mut refused = false;
                    for place in &order {
                        refused |= matches!(naive.add(&crooked[*place]), Told::Dead);
                        let added = add(&mut fragments, &crooked[*place]);
                        assert_eq!(matches!(added, Added::Refused(_)), refused, "{moved} {order:?}");
                        assert!(!matches!(added, Added::Whole(_)), "{moved} {order:?}");
                    }
                    assert!(refused);
                    checked += 1;
                }
            }
        }
        assert!(checked >= 6 * 5, "{checked}");
    }
}

#[test]
fn a_gap_of_eight_bytes_is_never_whole() {
    let data = pattern(1000);
    let mut parts = parts(&data, &[96, 504]);
    parts[1].offset += 8;
    parts[1].data.drain(..8);
    for order in orders(3) {
        let mut fragments = Fragments::new(ROOM);
        for place in order {
            assert_eq!(add(&mut fragments, &parts[place]), Added::Held);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever pieces come in whatever order, both reassemblers say the same of each.
    #[test]
    fn random_pieces_agree_with_the_naive_reassembler(
        pieces in prop::collection::vec((0_usize..12, 1_usize..4, 0_usize..8, any::<bool>(), 0_u8..8), 1..14)
    ) {
        let mut fragments = Fragments::new(ROOM);
        let mut naive = Naive::default();
        for (start, blocks, odd, more, forged) in pieces {
            let length = blocks * 8 + if more { 0 } else { odd };
            let data: Vec<u8> = (start * 8..start * 8 + length)
                .map(|place| u8::try_from(place % 251).unwrap() ^ u8::from(forged == 0))
                .collect();
            agree(&mut fragments, &mut naive, &part(start * 8, more, &data));
        }
    }
}
