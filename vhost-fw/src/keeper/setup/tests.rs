//! What is remembered of a connection, and what is not.

use super::*;

fn number(request: u32, value: u64) -> Message {
    Message::new(request, &value.to_le_bytes())
}

fn region(request: u32, address: u64) -> Message {
    let body: Vec<u8> = [0, address, 0x1000, address, 0].into_iter().flat_map(u64::to_le_bytes).collect();
    Message::new(request, &body)
}

fn requests(setup: &Setup) -> Vec<(u32, u64)> {
    setup.messages().map(|message| (message.request(), message.value().unwrap_or(0))).collect()
}

#[test]
fn the_last_message_of_each_kind_stays_in_the_order_a_worker_takes() {
    let mut setup = Setup::default();
    for round in 0..50_u64 {
        for ring in [1, 0] {
            for request in [SET_VRING_ENABLE, SET_VRING_KICK, SET_VRING_CALL, SET_VRING_BASE, SET_VRING_NUM] {
                setup.note(number(request, ring | round << 32), None).unwrap();
            }
        }
        setup.note(number(SET_FEATURES, round), None).unwrap();
        setup.note(Message::new(SET_MEM_TABLE, &[]), None).unwrap();
        setup.note(Message::new(SET_OWNER, &[]), None).unwrap();
    }
    let last = 49 << 32;
    assert_eq!(
        requests(&setup),
        [
            (SET_OWNER, 0),
            (SET_FEATURES, 49),
            (SET_MEM_TABLE, 0),
            (SET_VRING_NUM, last),
            (SET_VRING_NUM, last | 1),
            (SET_VRING_BASE, last),
            (SET_VRING_BASE, last | 1),
            (SET_VRING_CALL, last),
            (SET_VRING_CALL, last | 1),
            (SET_VRING_ENABLE, last),
            (SET_VRING_ENABLE, last | 1),
            (SET_VRING_KICK, last),
            (SET_VRING_KICK, last | 1),
        ]
    );
}

#[test]
fn regions_come_and_go_without_end_and_a_tables_region_stays_gone() {
    let mut setup = Setup::default();
    setup.note(Message::new(SET_MEM_TABLE, &[]), None).unwrap();
    for _ in 0..1000 {
        setup.note(region(ADD_MEM_REG, 0x4000), None).unwrap();
        setup.note(region(REM_MEM_REG, 0x4000), None).unwrap();
    }
    setup.note(region(ADD_MEM_REG, 0x8000), None).unwrap();
    setup.note(region(REM_MEM_REG, 0x1000), None).unwrap();
    let kinds: Vec<u32> = setup.messages().map(Message::request).collect();
    assert_eq!(kinds, [SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG]);
    let endless = (0..300).try_for_each(|at| setup.note(region(ADD_MEM_REG, at << 16), None));
    assert!(endless.is_err());
}

#[test]
fn a_stopped_ring_is_not_started_again() {
    let mut setup = Setup::default();
    for request in [SET_VRING_NUM, SET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL] {
        setup.note(number(request, 1), None).unwrap();
    }
    let answer = number(GET_VRING_BASE, 1 | 77 << 32);
    setup.note(number(GET_VRING_BASE, 1), Some(&answer)).unwrap();
    assert_eq!(requests(&setup), [(SET_VRING_NUM, 1), (SET_VRING_BASE, 1 | 77 << 32)]);
}

#[test]
fn what_a_worker_refused_is_not_set_up() {
    let mut setup = Setup::default();
    setup.note(region(ADD_MEM_REG, 0x4000), Some(&number(ADD_MEM_REG, 1))).unwrap();
    assert_eq!(requests(&setup), []);
    setup.note(region(ADD_MEM_REG, 0x4000), Some(&number(ADD_MEM_REG, 0))).unwrap();
    assert_eq!(requests(&setup).len(), 1);
}

#[test]
fn answers_are_awaited_where_the_protocol_gives_one() {
    let mut setup = Setup::default();
    assert!(setup.is_answered(&Message::new(GET_FEATURES, &[])));
    assert!(!setup.is_answered(&number(SET_FEATURES, 0)));
    setup.note(number(SET_PROTOCOL_FEATURES, REPLY_ACK), None).unwrap();
    assert!(!setup.is_answered(&number(SET_FEATURES, 0)), "it does not ask");
}
