use super::*;

/// A small generator, so that a flood is the same every time (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Where everything this station allocated stands; it must never move.
fn allocations(fragments: &Fragments) -> [usize; 4] {
    [
        fragments.pieces.capacity(),
        fragments.datagrams.capacity(),
        fragments.free.capacity(),
        fragments.scratch.capacity(),
    ]
}

#[test]
fn caps_hold_under_a_hundred_thousand_random_fragments() {
    let bytes = 128 * 1024;
    let mut fragments = Fragments::new(bytes);
    let before = allocations(&fragments);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut whole = 0_u32;
    let (mut held, mut refused) = (0_u64, 0_u64);
    let mut left = 0_u64;
    for step in 0..100_000_u64 {
        let more = random.below(4) > 0;
        let length = 8 * (1 + random.below(60));
        let part = Part {
            source: u8::try_from(random.below(40)).unwrap(),
            id: u32::try_from(random.below(12)).unwrap(),
            protocol: 17,
            offset: usize::try_from(8 * random.below(24)).unwrap(),
            more,
            data: vec![0x55; usize::try_from(length).unwrap()],
            vlan: None,
        };
        match add_at(&mut fragments, &part, Tick(step)) {
            Added::Held => held += 1,
            Added::Refused(_) => refused += 1,
            Added::Whole(id) => {
                held += 1;
                whole += 1;
                fragments.release(id, |_| left += 1);
            }
        }
        if step % 97 == 0 {
            left += fragments.expire(Tick(step));
        }
    }
    assert_eq!(allocations(&fragments), before);
    assert_eq!(fragments.arena.len() * arena::CHUNK, bytes);
    assert!(whole > 100 && refused > 1000, "{whole} {refused}");
    // Every held fragment left again, and each is counted once.
    left += fragments.expire(Tick(u64::MAX));
    let Lost { overlap, malformed, limit } = fragments.take_lost();
    assert_eq!(held, left + overlap + malformed + limit);
    assert!(limit > 0 && overlap > 0 && malformed > 0);
    assert_eq!(fragments.arena.free(), fragments.arena.len());
    assert_eq!(fragments.free.len(), fragments.datagrams.len());
}

#[test]
fn a_flood_from_one_source_leaves_room_for_others() {
    let mut fragments = Fragments::new(256 * 1024);
    let [first, last] = parts(&pattern(2000), &[1480]).try_into().unwrap();
    for id in 0..65_536 {
        let flood = Part { source: 66, id, ..part(0, true, &[0; 1480]) };
        assert_eq!(add(&mut fragments, &flood), Added::Held);
        if id == 60_000 {
            assert_eq!(add(&mut fragments, &first), Added::Held);
        }
    }
    whole(add(&mut fragments, &last));
    // A quarter of everything, and not more, is what the flood holds.
    let quarter = fragments.arena.len() / 4;
    assert!(fragments.arena.len() - fragments.arena.free() <= quarter + 16);
    assert!(fragments.take_lost().limit > 65_000);
}

#[test]
fn a_flood_from_many_sources_is_thrown_out_oldest_first() {
    let mut fragments = Fragments::new(64 * 1024);
    let [first, last] = parts(&pattern(2000), &[1480]).try_into().unwrap();
    for id in 0..2000 {
        let source = u8::try_from(id % 200 + 20).unwrap();
        add(&mut fragments, &Part { source, id, ..part(0, true, &[0; 1480]) });
    }
    assert_eq!(add(&mut fragments, &first), Added::Held);
    for id in 0..4 {
        let flood = Part { source: 250, id, ..part(0, true, &[0; 8]) };
        assert_eq!(add(&mut fragments, &flood), Added::Held);
    }
    whole(add(&mut fragments, &last));
}

#[test]
fn too_many_fragments_of_one_datagram_end_it() {
    let mut fragments = Fragments::new(ROOM);
    for place in 0..64 {
        assert_eq!(add(&mut fragments, &part(place * 8, true, &[1; 8])), Added::Held);
    }
    let refused = Added::Refused(Reason::FragmentLimit);
    assert_eq!(add(&mut fragments, &part(64 * 8, true, &[1; 8])), refused);
    assert_eq!(add(&mut fragments, &part(65 * 8, false, &[1; 8])), refused);
    assert_eq!(fragments.take_lost(), Lost { limit: 64, ..Lost::default() });
    assert_eq!(fragments.arena.free(), fragments.arena.len());
}

#[test]
fn a_datagram_beyond_its_sources_share_is_refused() {
    // 64 chunks in all, 16 for one source: two frames of 1,514 bytes fit, a third does not.
    let mut fragments = Fragments::new(16 * 1024);
    let parts = parts(&pattern(6000), &[1480, 2960, 4440]);
    assert_eq!(add(&mut fragments, &parts[0]), Added::Held);
    assert_eq!(add(&mut fragments, &parts[1]), Added::Held);
    assert_eq!(add(&mut fragments, &parts[2]), Added::Refused(Reason::FragmentLimit));
    assert_eq!(fragments.arena.free(), fragments.arena.len());
}

#[test]
fn without_room_everything_is_refused() {
    let mut fragments = Fragments::new(0);
    assert_eq!(add(&mut fragments, &part(0, true, &[1; 8])), Added::Refused(Reason::FragmentLimit));
}

#[test]
fn a_source_at_its_share_of_datagrams_loses_its_oldest() {
    let mut fragments = Fragments::new(64 * 1024);
    let share = u32::try_from(fragments.source_datagrams).unwrap();
    for id in 0..=share {
        assert_eq!(add(&mut fragments, &Part { id, ..part(0, true, &[1; 8]) }), Added::Held);
    }
    assert_eq!(fragments.take_lost(), Lost { limit: 1, ..Lost::default() });
    // The second is still there and can be completed; the first is gone.
    whole(add(&mut fragments, &Part { id: 1, ..part(8, false, &[1; 8]) }));
    assert_eq!(add(&mut fragments, &Part { id: 0, ..part(8, false, &[1; 8]) }), Added::Held);
}
