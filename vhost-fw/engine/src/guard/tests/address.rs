use super::*;
use crate::headers::{Fragment, GroupMessage};

const MARTIAN: Result<Cleared, Refusal> = Err(Refusal { reason: Reason::Martian, rule: GuardRule::Sane });

fn from_us(to_mac: &str, source: Addr, destination: Addr, l4: L4) -> Headers {
    frame(GUEST, to_mac, ip(source, destination, l4))
}

fn to_us(to_mac: &str, source: Addr, destination: Addr, l4: L4) -> Headers {
    frame(ROUTER, to_mac, ip(source, destination, l4))
}

#[test]
fn the_guest_says_only_its_own_addresses() {
    for source in [NEIGHBOUR4, "10.0.0.11", "169.254.0.1", NEIGHBOUR6, "fe80::dead", ROUTER_LINK_LOCAL] {
        let destination = if addr(source).is_v4() { FAR4 } else { FAR6 };
        let spoofed = from_us(ROUTER, addr(source), addr(destination), tcp());
        let refusal = refused(Reason::SourceAddressSpoofed, GuardRule::Address);
        assert_eq!(guard().check(OUT, &spoofed), refusal, "{source}");
    }
    for source in [OUR6, OUR_LINK_LOCAL] {
        assert_eq!(guard().check(OUT, &from_us(ROUTER, addr(source), addr(FAR6), tcp())), ASK, "{source}");
    }
}

#[test]
fn link_local_addresses_are_those_the_control_plane_names() {
    let fixed = guard_of(|nic| nic.link_local = LinkLocal::Addresses(vec![addr("fe80::7")]));
    let any = guard_of(|nic| nic.link_local = LinkLocal::Any);
    for (guard, source, own) in [
        (&fixed, "fe80::7", true),
        (&fixed, OUR_LINK_LOCAL, false),
        (&any, "fe80::dead", true),
        (&any, "fe80:0:0:1::dead", false),
    ] {
        let expected = if own { ASK } else { refused(Reason::SourceAddressSpoofed, GuardRule::Address) };
        assert_eq!(guard.check(OUT, &from_us(ROUTER, addr(source), addr(FAR6), tcp())), expected, "{source}");
    }
    // "Any" is no claim: neighbours have link-local addresses too.
    let neighbour = frame(NEIGHBOUR, GUEST, ip(addr("fe80::dead"), addr(OUR6), tcp()));
    assert_eq!(any.check(IN, &neighbour), ASK);
}

#[test]
fn a_frame_for_an_address_that_is_not_ours_stays_out() {
    for destination in [NEIGHBOUR4, "10.0.0.11", NEIGHBOUR6, "fe80::2"] {
        let source = if addr(destination).is_v4() { FAR4 } else { FAR6 };
        let foreign = to_us(GUEST, addr(source), addr(destination), tcp());
        let refusal = refused(Reason::AddressNotOurs, GuardRule::Address);
        assert_eq!(guard().check(IN, &foreign), refusal, "{destination}");
    }
}

#[test]
fn martian_sources_pass_neither_way() {
    let far = ["0.0.0.0", "0.0.0.1", "127.0.0.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255"];
    for source in far {
        assert_eq!(guard().check(IN, &tcp_in(source)), MARTIAN, "{source}");
        assert_eq!(
            guard().check(OUT, &from_us(ROUTER, addr(source), addr(FAR4), tcp())),
            MARTIAN,
            "{source}"
        );
    }
    for source in ["::", "::1", "::10.0.0.1", "ff02::1", "ff0e::1"] {
        assert_eq!(guard().check(IN, &tcp_in(source)), MARTIAN, "{source}");
        assert_eq!(
            guard().check(OUT, &from_us(ROUTER, addr(source), addr(FAR6), tcp())),
            MARTIAN,
            "{source}"
        );
    }
}

#[test]
fn martian_destinations_pass_neither_way() {
    for destination in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "240.0.0.1", "255.255.255.254"] {
        assert_eq!(guard().check(OUT, &tcp_out(destination)), MARTIAN, "{destination}");
        assert_eq!(
            guard().check(IN, &to_us(GUEST, addr(FAR4), addr(destination), tcp())),
            MARTIAN,
            "{destination}"
        );
    }
    for destination in ["::", "::1", "::198.51.100.7", "ff00::1", "ff01::1", "ff11::1"] {
        assert_eq!(guard().check(OUT, &tcp_out(destination)), MARTIAN, "{destination}");
        assert_eq!(
            guard().check(IN, &to_us(GUEST, addr(FAR6), addr(destination), tcp())),
            MARTIAN,
            "{destination}"
        );
    }
}

#[test]
fn a_mapped_address_in_an_ipv6_header_is_not_ipv4() {
    let mapped = Addr::from_bits(addr(FAR4).bits());
    assert_eq!(guard().check(OUT, &from_us(ROUTER, addr(OUR6), mapped, tcp())), MARTIAN);
    assert_eq!(guard().check(IN, &to_us(GUEST, mapped, addr(OUR6), tcp())), MARTIAN);
    let mut both = tcp_in(FAR4);
    both.ether.ethertype = 0x86dd;
    assert_eq!(guard().check(IN, &both), MARTIAN);
}

#[test]
fn land_and_our_own_address_from_outside_are_martian() {
    for own in [OUR4, OUR6] {
        assert_eq!(guard().check(IN, &tcp_in(own)), MARTIAN, "{own}");
        assert_eq!(guard().check(OUT, &tcp_out(own)), MARTIAN, "{own}");
    }
    let from_own_link_local = to_us(GUEST, addr(OUR_LINK_LOCAL), addr(OUR6), tcp());
    assert_eq!(guard().check(IN, &from_own_link_local), MARTIAN);
}

#[test]
fn the_unspecified_address_speaks_only_where_it_belongs() {
    let zero = addr("0.0.0.0");
    let client = Some(Dhcp::Client { hardware: Some(mac(GUEST)) });
    for (destination, l4) in [
        (FAR4, udp(68, 53, None)),
        (FAR4, tcp()),
        (FAR4, udp(68, 67, client)),
        (FAR4, icmp(8, IcmpMessage::EchoRequest { id: 1 })),
        ("224.0.0.22", L4::Group(GroupMessage::Report)),
        (FAR4, L4::Fragment),
    ] {
        assert_eq!(
            guard().check(OUT, &from_us(ROUTER, zero, addr(destination), l4)),
            MARTIAN,
            "{destination} {l4:?}"
        );
    }
    let advertisement = nd(NdKind::NeighbourAdvertisement, Some(OUR6), [None, None]);
    for l4 in [udp(1, 53, None), advertisement, L4::Group(GroupMessage::Query), L4::Fragment] {
        let from_nobody = from_us(ALL_NODES, addr("::"), addr("ff02::1"), l4);
        assert_eq!(guard().check(OUT, &from_nobody), MARTIAN, "{l4:?}");
    }
}

#[test]
fn group_destinations_are_for_the_rules_and_come_in_frames_that_fit() {
    for (to_mac, destination) in [
        (BROADCAST, "255.255.255.255"),
        (GUEST, "255.255.255.255"),
        ("01:00:5e:00:00:fb", "224.0.0.251"),
        ("01:00:5e:7f:ff:fa", "239.255.255.250"),
        (GUEST, "224.0.0.251"),
        (BROADCAST, "224.0.0.251"),
        ("33:33:00:00:00:fb", "ff02::fb"),
        (GUEST, "ff02::fb"),
    ] {
        let source = if addr(destination).is_v4() { NEIGHBOUR4 } else { NEIGHBOUR6 };
        let announcement = to_us(to_mac, addr(source), addr(destination), udp(5353, 5353, None));
        assert_eq!(guard().check(IN, &announcement), ASK, "{to_mac} {destination}");
    }
    for (to_mac, destination) in [
        ("01:00:5e:00:00:fb", "224.0.0.252"),
        ("33:33:00:00:00:fb", "224.0.0.251"),
        ("01:00:5e:00:00:fb", "255.255.255.255"),
        ("33:33:00:00:00:01", "ff02::fb"),
        ("01:00:5e:00:00:fb", "ff02::fb"),
    ] {
        let source = if addr(destination).is_v4() { OUR4 } else { OUR6 };
        let crooked = from_us(to_mac, addr(source), addr(destination), udp(5353, 5353, None));
        assert_eq!(guard().check(OUT, &crooked), MARTIAN, "{to_mac} {destination}");
    }
}

#[test]
fn a_unicast_datagram_in_a_group_frame_is_martian() {
    for (to_mac, source, destination) in [
        (BROADCAST, FAR4, OUR4),
        ("01:00:5e:00:00:01", FAR4, OUR4),
        (BROADCAST, FAR6, OUR6),
        (ALL_NODES, FAR6, OUR6),
    ] {
        let hidden = to_us(to_mac, addr(source), addr(destination), tcp());
        assert_eq!(guard().check(IN, &hidden), MARTIAN, "{to_mac} {destination}");
        let sent = from_us(to_mac, addr(destination), addr(source), tcp());
        assert_eq!(guard().check(OUT, &sent), MARTIAN, "{to_mac} {source}");
    }
}

#[test]
fn a_broadcast_of_our_network_is_for_the_rules() {
    for (destination, direction) in
        [("10.0.0.255", IN), ("10.0.255.255", IN), ("10.0.0.255", OUT), ("10.0.0.11", IN)]
    {
        let (source, from) = if direction == IN { (NEIGHBOUR4, NEIGHBOUR) } else { (OUR4, GUEST) };
        let headers = frame(from, BROADCAST, ip(addr(source), addr(destination), udp(137, 137, None)));
        assert_eq!(guard().check(direction, &headers), ASK, "{destination}");
    }
    for destination in ["10.0.2.255", "10.0.0.30", "192.0.2.255"] {
        let headers =
            frame(NEIGHBOUR, BROADCAST, ip(addr(NEIGHBOUR4), addr(destination), udp(137, 137, None)));
        let refusal = refused(Reason::AddressNotOurs, GuardRule::Address);
        assert_eq!(guard().check(IN, &headers), refusal, "{destination}");
    }
    let unicast = frame(NEIGHBOUR, GUEST, ip(addr(NEIGHBOUR4), addr("10.0.0.255"), udp(137, 137, None)));
    assert_eq!(guard().check(IN, &unicast), refused(Reason::AddressNotOurs, GuardRule::Address));
}

#[test]
fn a_bound_neighbour_is_its_address_and_its_mac_address() {
    let pinned = guard_of(|nic| nic.gateways = vec![binding(NEIGHBOUR4, NEIGHBOUR)]);
    let member = guard_with_member(NEIGHBOUR4, NEIGHBOUR, |_| {});
    let spoofed = refused(Reason::PeerSpoofed, GuardRule::Peer);
    for guard in [pinned, member] {
        for (holder, expected) in [(NEIGHBOUR, ASK), (ROUTER, spoofed)] {
            let said = frame(holder, GUEST, ip(addr(NEIGHBOUR4), addr(OUR4), tcp()));
            assert_eq!(guard.check(IN, &said), expected, "{holder}");
            let told = frame(GUEST, holder, ip(addr(OUR4), addr(NEIGHBOUR4), tcp()));
            assert_eq!(guard.check(OUT, &told), expected, "{holder}");
        }
        assert_eq!(guard.check(IN, &tcp_in(FAR4)), ASK);
    }
}

#[test]
fn a_member_that_is_ourselves_is_no_neighbour() {
    let guard = guard_with_member(OUR4, GUEST, |_| {});
    assert_eq!(guard.check(OUT, &tcp_out(FAR4)), ASK);
    assert_eq!(guard.check(IN, &tcp_in(FAR4)), ASK);
}

#[test]
fn an_address_of_ours_bound_to_another_stays_ours() {
    let guard = guard_with_member(OUR4, NEIGHBOUR, |_| {});
    let claimed = frame(NEIGHBOUR, GUEST, ip(addr(OUR4), addr(FAR4), tcp()));
    assert_eq!(guard.check(IN, &claimed), MARTIAN);
}

#[test]
fn a_shared_address_goes_with_its_mac_address() {
    let guard = guard_of(|nic| nic.shared = vec![binding(VIP, VIRTUAL)]);
    let far = |source: &str| ip(addr(source), addr(FAR4), tcp());
    assert_eq!(guard.check(OUT, &frame(VIRTUAL, ROUTER, far(VIP))), ASK);
    // VRRP advertises from the primary address with the virtual MAC.
    assert_eq!(guard.check(OUT, &frame(VIRTUAL, ROUTER, far(OUR4))), ASK);
    let refusal = refused(Reason::SourceAddressSpoofed, GuardRule::Address);
    assert_eq!(guard.check(OUT, &frame(GUEST, ROUTER, far(VIP))), refusal);
    assert_eq!(guard.check(IN, &frame(ROUTER, VIRTUAL, ip(addr(FAR4), addr(VIP), tcp()))), ASK);
    // While another holds it, it speaks to us from there.
    assert_eq!(guard.check(IN, &frame(VIRTUAL, GUEST, ip(addr(VIP), addr(OUR4), tcp()))), ASK);
    let crooked = frame(NEIGHBOUR, GUEST, ip(addr(VIP), addr(OUR4), tcp()));
    assert_eq!(guard.check(IN, &crooked), refused(Reason::PeerSpoofed, GuardRule::Peer));
}

#[test]
fn a_shared_address_without_a_mac_address_of_its_own_moves_between_holders() {
    let guard = guard_of(|nic| {
        nic.shared = vec![binding(VIP, GUEST)];
        nic.addresses.push(VIP.parse().unwrap());
    });
    assert_eq!(guard.check(OUT, &frame(GUEST, ROUTER, ip(addr(VIP), addr(FAR4), tcp()))), ASK);
    assert_eq!(guard.check(IN, &frame(NEIGHBOUR, GUEST, ip(addr(VIP), addr(OUR4), tcp()))), ASK);
}

#[test]
fn a_routing_guest_speaks_for_its_prefix_and_nobody_else_does() {
    let guard =
        guard_with_member("10.8.0.9", NEIGHBOUR, |nic| nic.addresses.push("10.8.0.0/16".parse().unwrap()));
    assert_eq!(guard.check(OUT, &from_us(ROUTER, addr("10.8.3.4"), addr(FAR4), tcp())), ASK);
    assert_eq!(guard.check(IN, &to_us(GUEST, addr(FAR4), addr("10.8.3.4"), tcp())), ASK);
    assert_eq!(guard.check(IN, &to_us(GUEST, addr("10.8.3.4"), addr(OUR4), tcp())), MARTIAN);
    // A neighbour that the control plane knows keeps its address even there.
    let known = frame(NEIGHBOUR, GUEST, ip(addr("10.8.0.9"), addr(OUR4), tcp()));
    assert_eq!(guard.check(IN, &known), ASK);
}

#[test]
fn a_guest_that_routes_everything_claims_nothing_for_itself_alone() {
    let guard =
        guard_of(|nic| nic.addresses.extend(["0.0.0.0/0".parse::<Cidr>().unwrap(), "::/0".parse().unwrap()]));
    for far in [FAR4, FAR6] {
        assert_eq!(guard.check(IN, &tcp_in(far)), ASK);
        let through = if addr(far).is_v4() { "203.0.113.1" } else { "2001:db8:5::1" };
        assert_eq!(guard.check(OUT, &from_us(ROUTER, addr(through), addr(far), tcp())), ASK);
    }
    assert_eq!(guard.check(IN, &tcp_in("127.0.0.1")), MARTIAN);
}

#[test]
fn fragments_are_judged_by_their_addresses() {
    let fragment = |source: &str| {
        let mut net = ip(addr(source), addr(FAR4), L4::Fragment);
        if let Net::Ip(ip) = &mut net {
            ip.fragment = Some(Fragment { id: 7, offset: 8, more: true, header_offset: 0, named_at: 0 });
        }
        frame(GUEST, ROUTER, net)
    };
    assert_eq!(guard().check(OUT, &fragment(OUR4)), ASK);
    let refusal = refused(Reason::SourceAddressSpoofed, GuardRule::Address);
    assert_eq!(guard().check(OUT, &fragment(NEIGHBOUR4)), refusal);
}
