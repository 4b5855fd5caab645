//! TCP through the whole engine: where a segment may stand, what a reset does, when a conn's time is over.
#![cfg(test)]

use fw_engine::VnetHeader;
use fw_model::Direction;
use fw_tests::places::{guest, peer, rules};
use fw_tests::script::Script;
use fw_tests::wire::{self, Segment};

/// The window both ends advertise, unscaled.
const WINDOW: u32 = 64_240;
const PASSES: &str = "pass: established by conn";
const OUTSIDE: &str = "drop: tcp-window by conn";

fn out(nic: &mut Script, segment: &Segment) -> String {
    nic.out(&wire::tcp(&guest(40_000), &peer(80), segment))
}

fn back(nic: &mut Script, segment: &Segment) -> String {
    nic.in_(&wire::tcp(&peer(80), &guest(40_000), segment))
}

/// An established conn; the guest will say byte 1,001 next, the peer byte 9,001.
fn talk() -> Script {
    let mut nic = Script::new(&rules("allow/drop", &[]));
    out(&mut nic, &Segment::syn(1_000));
    back(&mut nic, &Segment { syn: true, ..Segment::ack(9_000, 1_001) });
    let last = out(&mut nic, &Segment::ack(1_001, 9_001));
    assert_eq!(last, "pass: established by conn; syn-received -> established");
    nic
}

#[test]
fn a_segment_may_begin_where_the_window_ends_and_not_behind() {
    // The very edge is a probe of a closed window (RFC 9293 section 3.8.6.1).
    assert_eq!(out(&mut talk(), &Segment::ack(1_001 + WINDOW, 9_001)), PASSES);
    assert_eq!(out(&mut talk(), &Segment::ack(1_001 + WINDOW + 1, 9_001)), OUTSIDE);
    assert_eq!(back(&mut talk(), &Segment::ack(9_001 + WINDOW, 1_001)), PASSES);
    assert_eq!(back(&mut talk(), &Segment::ack(9_001 + WINDOW + 1, 1_001)), OUTSIDE);
}

#[test]
fn a_retransmission_may_reach_a_window_back_and_no_further() {
    let old = |back: u32| Segment::ack(1_001_u32.wrapping_sub(back), 9_001);
    assert_eq!(out(&mut talk(), &old(WINDOW + 1)), PASSES);
    assert_eq!(out(&mut talk(), &old(WINDOW + 2)), OUTSIDE);
    let old = |back: u32| Segment::ack(9_001_u32.wrapping_sub(back), 1_001);
    assert_eq!(self::back(&mut talk(), &old(WINDOW + 1)), PASSES);
    assert_eq!(self::back(&mut talk(), &old(WINDOW + 2)), OUTSIDE);
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged() {
    assert_eq!(back(&mut talk(), &Segment::ack(9_001, 1_001)), PASSES);
    assert_eq!(back(&mut talk(), &Segment::ack(9_001, 1_002)), OUTSIDE);
    assert_eq!(out(&mut talk(), &Segment::ack(1_001, 9_002)), OUTSIDE);
}

#[test]
fn a_scaled_window_counts_as_it_was_negotiated() {
    let mut nic = Script::new(&rules("allow/drop", &[]));
    let scale = [etherparse::TcpOptionElement::WindowScale(7)];
    nic.out(&wire::tcp_with(&guest(40_000), &peer(80), &Segment::syn(1_000), &scale));
    let answer = Segment { syn: true, window: 1_000, ..Segment::ack(9_000, 1_001) };
    nic.in_(&wire::tcp_with(&peer(80), &guest(40_000), &answer, &scale));
    out(&mut nic, &Segment::ack(1_001, 9_001));
    // The SYN/ACK's own window is never scaled; the next one's is.
    assert_eq!(out(&mut nic, &Segment::ack(1_001 + 1_001, 9_001)), OUTSIDE);
    back(&mut nic, &Segment { window: 1_000, ..Segment::ack(9_001, 1_001) });
    assert_eq!(out(&mut nic, &Segment::ack(1_001 + 128_000, 9_001)), PASSES);
    assert_eq!(out(&mut nic, &Segment::ack(1_001 + 128_001, 9_001)), OUTSIDE);
}

#[test]
fn only_the_exact_reset_ends_a_conn_at_once() {
    let reset = |sequence| Segment { rst: true, ..Segment::ack(sequence, 1_001) };
    assert_eq!(back(&mut talk(), &reset(9_001)), "pass: established by conn; established -> close");
    assert_eq!(back(&mut talk(), &reset(9_000)), OUTSIDE);
    assert_eq!(back(&mut talk(), &reset(9_001 + WINDOW + 1)), OUTSIDE);
    // Inside the window the guest will ask back (RFC 5961 section 3.2): its answer keeps the conn, its silence does not.
    let mut nic = talk();
    assert_eq!(back(&mut nic, &reset(9_101)), PASSES);
    assert_eq!(out(&mut nic, &Segment::ack(1_001, 9_001)), PASSES);
    assert_eq!(nic.wait_s(60), "");
    assert_eq!(back(&mut nic, &reset(9_101)), PASSES);
    assert_eq!(nic.wait_s(11), "closed established");
}

#[test]
fn a_conns_time_is_over_to_the_millisecond_whenever_the_timers_are_looked_at() {
    let question = wire::udp(&guest(9), &peer(53), b"question");
    let answer = wire::udp(&peer(53), &guest(9), b"answer");
    for (after_ms, line) in
        [(29_999, "pass: established by conn; asked -> answered"), (30_000, "drop: default-drop by default")]
    {
        let mut nic = Script::new(&rules("allow/drop", &[]));
        nic.out(&question);
        nic.jump_ms(after_ms);
        assert_eq!(nic.in_(&answer), line, "after {after_ms} ms");
    }
    let mut nic = talk();
    nic.jump_ms(7_440_000);
    assert_eq!(out(&mut nic, &Segment::ack(1_001, 9_001)), "drop: no-conn by conn");
    // A new one of the same flow takes its place at once.
    assert_eq!(out(&mut nic, &Segment::syn(5)), "pass: new by default; opened syn-sent");
}

#[test]
fn a_new_incarnation_begins_where_the_old_one_has_ended() {
    let mut nic = talk();
    back(&mut nic, &Segment { rst: true, ..Segment::ack(9_001, 1_001) });
    assert_eq!(out(&mut nic, &Segment::syn(77)), "pass: new by default; close -> syn-sent");
    assert_eq!(
        back(&mut nic, &Segment { syn: true, ..Segment::ack(500, 78) }),
        "pass: established by conn; syn-sent -> syn-received"
    );
}

#[test]
fn the_hosts_word_on_a_checksum_counts_and_the_guests_does_not() {
    let valid = VnetHeader { flags: 2, ..VnetHeader::NONE };
    let mut frame = wire::udp(&guest(9), &peer(53), b"question");
    frame[40] ^= 1;
    let mut nic = Script::new(&rules("allow/allow", &[]));
    assert_eq!(nic.frame(Direction::Out, &frame, valid), "drop: checksum by guard guard/sane");
    let mut frame = wire::udp(&peer(53), &guest(9), b"question");
    frame[40] ^= 1;
    assert_eq!(nic.frame(Direction::In, &frame, VnetHeader::NONE), "drop: checksum by guard guard/sane");
    assert_eq!(nic.frame(Direction::In, &frame, valid), "pass: new by default; opened asked");
    assert_eq!(nic.left()[0].vnet, valid);
}
