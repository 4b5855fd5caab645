use super::*;

#[test]
fn a_runt_is_dropped() {
    for length in 0..14 {
        assert_eq!(fault(&vec![0; length]), Malformed::Runt);
    }
}

#[test]
fn one_tag_is_read() {
    let plain = V4::PLAIN.frame(6, tcp(SYN, &[], b""));
    let headers = whole(&tagged(0x8100, 0xe007, &plain));
    assert_eq!((headers.ether.vlan, headers.ether.length), (Some(7), 18));
    assert_eq!(headers.flow(Direction::In).unwrap().vlan, 7);
    assert_eq!(headers.length, plain.len() + 4);
}

#[test]
fn other_tags_are_refused() {
    let plain = V4::PLAIN.frame(6, tcp(SYN, &[], b""));
    for vlan in [0, 4095, 0xe000] {
        assert_eq!(fault(&tagged(0x8100, vlan, &plain)), Malformed::TagReserved);
    }
    for tpid in [0x88a8, 0x9100, 0x9200, 0x9300] {
        assert_eq!(fault(&tagged(tpid, 7, &plain)), Malformed::TagTwice);
        assert_eq!(fault(&tagged(0x8100, 7, &tagged(tpid, 7, &plain))), Malformed::TagTwice);
    }
    assert_eq!(fault(&tagged(0x8100, 7, &tagged(0x8100, 8, &plain))), Malformed::TagTwice);
    for length in 14..18 {
        assert_eq!(fault(&tagged(0x8100, 7, &plain)[..length]), Malformed::TagShort);
    }
}

#[test]
fn llc_and_snap_are_refused_with_and_without_a_tag() {
    for length in [0, 46, 1500, 0x5ff] {
        let frame = ether(length, &[0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd]);
        assert_eq!(fault(&frame).reason(), fw_model::Reason::EthertypeRefused);
        assert_eq!(fault(&tagged(0x8100, 7, &frame)), Malformed::NotEthernet2);
    }
}

#[test]
fn an_unknown_ethertype_is_left_to_guard_and_rules() {
    let frame = ether(0x88cc, &[0; 46]);
    assert_eq!(whole(&frame).net, Net::Other);
    assert_eq!(whole(&frame).flow(Direction::Out), None);
}

fn arp(operation: u16) -> Vec<u8> {
    let form = [0, 1, 8, 0, 6, 4];
    [form.as_slice(), &operation.to_be_bytes(), &PEER_MAC, &PEER, &GUEST_MAC, &GUEST].concat()
}

#[test]
fn arp_is_read_and_its_trailer_cut_off() {
    let frame = [ether(0x0806, &arp(2)), vec![0; 18]].concat();
    let headers = whole(&frame);
    let said = Arp {
        operation: 2,
        sender_mac: MacAddr(PEER_MAC),
        sender: Addr::v4(PEER),
        target_mac: MacAddr(GUEST_MAC),
        target: Addr::v4(GUEST),
    };
    assert_eq!((headers.net, headers.length), (Net::Arp(said), 42));
    assert!(matches!(whole(&ether(0x8035, &arp(3))).net, Net::Rarp(Arp { operation: 3, .. })));
}

#[test]
fn malformed_arp_is_dropped() {
    for operation in [0, 3, 4, 8, 9, 10, 65535] {
        assert_eq!(fault(&ether(0x0806, &arp(operation))), Malformed::ArpOperation);
    }
    assert_eq!(fault(&ether(0x8035, &arp(1))), Malformed::ArpOperation);
    for length in 14..42 {
        assert_eq!(fault(&ether(0x0806, &arp(1))[..length]), Malformed::ArpShort);
    }
    for (at, byte) in [(15, 6), (16, 0x86), (17, 0xdd), (18, 8), (19, 16)] {
        assert_eq!(fault(&with(ether(0x0806, &arp(1)), at, &[byte])), Malformed::ArpForm);
    }
}
