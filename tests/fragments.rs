//! Fragments through the whole engine: held, judged as the datagram they make, released as they came.
#![cfg(test)]

use fw_engine::Config;
use fw_model::{Direction, Reason};
use fw_tests::places::{guest, guest6, peer, peer6, rules, rules_for};
use fw_tests::script::{CONFIG, Script};
use fw_tests::wire::{self, fragments};

const HELD: &str = "hold: fragment-held by guard";

fn datagram(length: usize) -> Vec<u8> {
    wire::udp(&guest(40_000), &peer(53), &vec![b'x'; length])
}

#[test]
fn a_datagram_leaves_as_the_fragments_it_came_in() {
    for whole in [datagram(3_000), wire::udp(&guest6(40_000), &peer6(53), &[b'x'; 3_000])] {
        let mut nic = Script::new(&rules(
            "drop/drop",
            &["id: dns, direction: out, action: allow, protocol: udp, ports: [53]"],
        ));
        let pieces = fragments(&whole, 7, 1_400);
        assert_eq!(pieces.len(), 3);
        let order = [&pieces[2], &pieces[0], &pieces[1]];
        assert_eq!((nic.out(order[0]), nic.out(order[1])), (HELD.to_owned(), HELD.to_owned()));
        assert!(nic.left().is_empty());
        assert_eq!(nic.out(order[2]), "release: new by rule dns; opened asked");
        assert_eq!(nic.left_to(Direction::Out), [pieces[2].clone(), pieces[0].clone(), pieces[1].clone()]);
        // What is living lets the answer in, in fragments too.
        let (from, to) = if whole[12] == 8 { (peer(53), guest(40_000)) } else { (peer6(53), guest6(40_000)) };
        let answer = fragments(&wire::udp(&from, &to, &[b'y'; 2_000]), 9, 1_400);
        assert_eq!(nic.in_(&answer[0]), HELD);
        assert_eq!(nic.in_(&answer[1]), "release: established by conn dns; asked -> answered");
        assert_eq!(nic.left_to(Direction::In), answer);
    }
}

#[test]
fn a_refused_datagram_is_refused_with_all_its_fragments() {
    let mut nic = Script::new(&rules("drop/reject", &[]));
    let pieces = fragments(&datagram(2_000), 7, 1_400);
    assert_eq!(nic.out(&pieces[0]), HELD);
    assert_eq!(nic.out(&pieces[1]), "drop: default-drop by default");
    assert!(nic.left().is_empty());
    // A late copy begins a datagram of its own.
    assert_eq!(nic.out(&pieces[1]), HELD);
    let asked = wire::udp(&peer(9), &guest(9), &[0; 2_000]);
    let pieces = fragments(&asked, 8, 1_400);
    assert_eq!(nic.in_(&pieces[0]), HELD);
    assert_eq!(nic.in_(&pieces[1]), "reject: default-reject by default; icmp 3/13 to net");
    let told = &nic.left_to(Direction::Out)[0];
    assert_eq!(told[14 + 20 + 8 + 20..][..8], asked[14 + 20..][..8], "it quotes the datagram's own header");
}

#[test]
fn a_datagram_that_does_not_become_whole_in_time_is_dropped() {
    let mut nic = Script::new(&rules_for("", "timers: {fragment: 10}", "allow/allow", &[]));
    let pieces = fragments(&datagram(4_000), 7, 1_400);
    nic.out(&pieces[0]);
    nic.out(&pieces[1]);
    assert_eq!(nic.wait_ms(9_999), "");
    assert_eq!(nic.wait_ms(1), format!("drops {} +2", Reason::FragmentTimeout));
    assert_eq!(nic.out(&pieces[2]), HELD);
}

#[test]
fn fragments_that_overlap_condemn_their_datagram() {
    let mut nic = Script::new(&rules("allow/allow", &[]));
    let pieces = fragments(&datagram(3_000), 7, 1_400);
    let overlap = fragments(&datagram(3_000), 7, 1_392);
    nic.out(&pieces[0]);
    // It goes, and the one that was held goes with it.
    assert_eq!(nic.out(&overlap[1]), "drop: fragment-overlap by guard guard/sane; drops fragment-overlap +1");
}

#[test]
fn late_fragments_of_a_condemned_datagram_are_refused_until_its_time_is_over() {
    let mut nic = Script::new(&rules("allow/allow", &[]));
    let pieces = fragments(&datagram(3_000), 7, 1_400);
    nic.out(&pieces[0]);
    nic.out(&fragments(&datagram(3_000), 7, 1_392)[1]);
    assert_eq!(nic.out(&pieces[2]), "drop: fragment-overlap by guard guard/sane");
    nic.wait_s(61);
    assert_eq!(nic.out(&pieces[2]), HELD);
}

#[test]
fn held_bytes_have_a_limit() {
    let mut nic = Script::with_config(Config { fragments: 64 << 10, ..CONFIG });
    nic.install(&rules("allow/allow", &[]));
    nic.wait_ms(0);
    let lines: Vec<String> = (0..100).map(|id| nic.out(&fragments(&datagram(3_000), id, 1_400)[0])).collect();
    assert_eq!(lines[0], HELD);
    assert_eq!(lines[99], format!("{HELD}; drops fragment-limit +1"), "the oldest goes for the newest");
    let held = lines.iter().filter(|line| *line == HELD).count();
    // One source may hold a quarter of everything: of places and of bytes.
    assert!((3..=11).contains(&held), "{held} of 1,434 bytes in 16 KiB");
    assert_eq!(nic.wait_s(61), format!("drops fragment-timeout +{held}"));
}

#[test]
fn no_room_for_fragments_means_none() {
    let mut nic = Script::new(&rules_for("", "limits: {fragments: 0}", "allow/allow", &[]));
    assert_eq!(
        nic.out(&fragments(&datagram(2_000), 7, 1_400)[0]),
        "drop: fragment-limit by guard guard/sane"
    );
    assert_eq!(nic.out(&datagram(1_000)), "pass: new by default; opened asked");
}

#[test]
fn a_fragment_no_stack_sends_is_malformed() {
    let mut nic = Script::new(&rules("allow/allow", &[]));
    let mut odd = fragments(&datagram(2_000), 7, 1_400)[0].clone();
    odd.truncate(14 + 20 + 1_397);
    odd[16..18].copy_from_slice(&1_417_u16.to_be_bytes());
    let header = etherparse_checksum(&odd[14..34]);
    odd[24..26].copy_from_slice(&header.to_be_bytes());
    assert_eq!(nic.out(&odd), "drop: fragment-malformed by guard guard/sane");
}

fn etherparse_checksum(header: &[u8]) -> u16 {
    etherparse::Ipv4Header::from_slice(header).unwrap().0.calc_header_checksum()
}

#[test]
fn a_datagram_is_spoofed_or_broken_as_a_whole() {
    let mut nic = Script::new(&rules("allow/allow", &[]));
    let mut broken = datagram(2_000);
    *broken.last_mut().unwrap() ^= 1;
    let pieces = fragments(&broken, 7, 1_400);
    nic.out(&pieces[0]);
    assert_eq!(nic.out(&pieces[1]), "drop: checksum by guard guard/sane");
    let mut stolen = fragments(
        &wire::udp(&wire::End { ip: [10, 0, 0, 66].into(), ..guest(9) }, &peer(9), &[0; 2_000]),
        8,
        1_400,
    );
    assert_eq!(nic.out(&stolen.remove(0)), "drop: source-address-spoofed by guard guard/address");
}

#[test]
fn an_overdue_datagram_is_not_completed_however_late_the_timers_are() {
    let mut nic = Script::new(&rules("allow/allow", &[]));
    let pieces = fragments(&datagram(2_000), 7, 1_400);
    nic.out(&pieces[0]);
    nic.jump_ms(59_999);
    assert_eq!(nic.out(&pieces[1]), "release: new by default; opened asked");
    nic.out(&pieces[0]);
    nic.jump_ms(60_000);
    assert_eq!(nic.out(&pieces[1]), HELD);
}
