use super::*;

const SPOOFED_ARP: Result<Cleared, Refusal> =
    Err(Refusal { reason: Reason::ArpSpoofed, rule: GuardRule::Arp });
const SPOOFED_ND: Result<Cleared, Refusal> = Err(Refusal { reason: Reason::NdSpoofed, rule: GuardRule::Nd });
const REFUSED_ROUTER: Result<Cleared, Refusal> =
    Err(Refusal { reason: Reason::RouterRefused, rule: GuardRule::Ra });

fn arp_out(operation: u16, sender_mac: &str, sender: &str, target: &str) -> Headers {
    frame(GUEST, BROADCAST, Net::Arp(arp(operation, sender_mac, sender, target)))
}

fn arp_in(from: &str, operation: u16, sender: &str, target: &str) -> Headers {
    frame(from, BROADCAST, Net::Arp(arp(operation, from, sender, target)))
}

#[test]
fn the_guest_announces_probes_asks_and_answers() {
    for (operation, sender, target) in
        [(1, OUR4, OUR4), (2, OUR4, OUR4), (1, "0.0.0.0", OUR4), (1, OUR4, "10.0.0.1"), (2, OUR4, "10.0.0.1")]
    {
        let message = arp_out(operation, GUEST, sender, target);
        assert_eq!(guard().check(OUT, &message), allowed(GuardRule::Arp), "{operation} {sender} {target}");
    }
}

#[test]
fn the_guests_arp_claims_only_what_is_its_own() {
    for (operation, sender_mac, sender, target) in [
        (2, GUEST, NEIGHBOUR4, "10.0.0.1"),
        (1, GUEST, "10.0.0.1", "10.0.0.1"),
        (2, GUEST, "10.0.0.1", "10.0.0.1"),
        (2, NEIGHBOUR, OUR4, "10.0.0.1"),
        (1, ROUTER, OUR4, NEIGHBOUR4),
        (1, GUEST, "0.0.0.0", NEIGHBOUR4),
    ] {
        let message = arp_out(operation, sender_mac, sender, target);
        assert_eq!(guard().check(OUT, &message), SPOOFED_ARP, "{operation} {sender_mac} {sender} {target}");
    }
}

#[test]
fn arp_about_addresses_no_host_has_is_martian() {
    let martian = refused(Reason::Martian, GuardRule::Sane);
    for (operation, sender, target) in [
        (2, "0.0.0.0", OUR4),
        (1, "127.0.0.1", OUR4),
        (1, "255.255.255.255", OUR4),
        (1, OUR4, "224.0.0.1"),
        (1, OUR4, "127.0.0.1"),
    ] {
        assert_eq!(
            guard().check(OUT, &arp_out(operation, GUEST, sender, target)),
            martian,
            "{sender} {target}"
        );
    }
    let to_group = frame(ROUTER, "01:00:5e:00:00:01", Net::Arp(arp(1, ROUTER, "10.0.0.1", OUR4)));
    assert_eq!(guard().check(IN, &to_group), martian);
}

#[test]
fn neighbours_arp_passes() {
    for (operation, sender, target) in [
        (1, NEIGHBOUR4, OUR4),
        (2, NEIGHBOUR4, OUR4),
        (1, NEIGHBOUR4, NEIGHBOUR4),
        (1, "0.0.0.0", NEIGHBOUR4),
        (1, "0.0.0.0", OUR4),
        (1, NEIGHBOUR4, "10.0.0.1"),
    ] {
        let message = arp_in(NEIGHBOUR, operation, sender, target);
        assert_eq!(guard().check(IN, &message), allowed(GuardRule::Arp), "{operation} {sender} {target}");
    }
}

#[test]
fn neighbours_arp_claims_neither_ours_nor_a_bound_address() {
    let guard = guard_of(|nic| nic.gateways = vec![binding("10.0.0.1", ROUTER)]);
    assert_eq!(guard.check(IN, &arp_in(ROUTER, 2, "10.0.0.1", OUR4)), allowed(GuardRule::Arp));
    for sender in [OUR4, "10.0.0.1"] {
        assert_eq!(guard.check(IN, &arp_in(NEIGHBOUR, 2, sender, OUR4)), SPOOFED_ARP, "{sender}");
    }
    let crooked = frame(NEIGHBOUR, GUEST, Net::Arp(arp(2, ROUTER, NEIGHBOUR4, OUR4)));
    assert_eq!(guard.check(IN, &crooked), SPOOFED_ARP);
}

#[test]
fn a_shared_address_is_announced_with_its_mac_address() {
    let guard = guard_of(|nic| nic.shared = vec![binding(VIP, VIRTUAL)]);
    let announced = |by: &str| frame(by, BROADCAST, Net::Arp(arp(1, by, VIP, VIP)));
    assert_eq!(guard.check(OUT, &announced(VIRTUAL)), allowed(GuardRule::Arp));
    assert_eq!(guard.check(OUT, &announced(GUEST)), SPOOFED_ARP);
    assert_eq!(guard.check(IN, &announced(VIRTUAL)), allowed(GuardRule::Arp));
    assert_eq!(guard.check(IN, &announced(NEIGHBOUR)), SPOOFED_ARP);
}

#[test]
fn a_switched_off_allowance_asks_the_rules_and_still_refuses_spoofs() {
    let off = GuardSwitches { arp: false, nd: false, dhcp: false, ra: false, mld: false };
    let guard = guard_of(|nic| nic.guard = off);
    assert_eq!(guard.check(OUT, &arp_out(1, GUEST, OUR4, "10.0.0.1")), ASK);
    assert_eq!(guard.check(OUT, &arp_out(1, GUEST, NEIGHBOUR4, "10.0.0.1")), SPOOFED_ARP);
    assert_eq!(guard.check(OUT, &solicitation(OUR_LINK_LOCAL, NEIGHBOUR6, Some(GUEST))), ASK);
    assert_eq!(guard.check(IN, &advertised_router(ROUTER, ROUTER_LINK_LOCAL, Some(ROUTER))), ASK);
    assert_eq!(guard.check(OUT, &advertised_router(GUEST, OUR_LINK_LOCAL, Some(GUEST))), REFUSED_ROUTER);
}

#[test]
fn rarp_announces_our_own_mac_address_only() {
    let rarp = |from: &str, operation, sender: &str, target: &str| {
        let message = Arp { target_mac: mac(target), ..arp(operation, sender, "0.0.0.0", "0.0.0.0") };
        frame(from, BROADCAST, Net::Rarp(message))
    };
    assert_eq!(guard().check(OUT, &rarp(GUEST, 3, GUEST, GUEST)), allowed(GuardRule::Rarp));
    let spoofed = refused(Reason::RarpSpoofed, GuardRule::Rarp);
    assert_eq!(guard().check(OUT, &rarp(GUEST, 3, NEIGHBOUR, GUEST)), spoofed);
    assert_eq!(guard().check(OUT, &rarp(GUEST, 3, GUEST, NEIGHBOUR)), spoofed);
    assert_eq!(guard().check(OUT, &rarp(GUEST, 4, GUEST, GUEST)), spoofed);
    let claimed = Arp { target_mac: mac(GUEST), ..arp(3, GUEST, NEIGHBOUR4, "0.0.0.0") };
    assert_eq!(guard().check(OUT, &frame(GUEST, BROADCAST, Net::Rarp(claimed))), spoofed);
    assert_eq!(guard().check(IN, &rarp(NEIGHBOUR, 3, GUEST, NEIGHBOUR)), spoofed);
    assert_eq!(guard().check(IN, &rarp(NEIGHBOUR, 3, NEIGHBOUR, NEIGHBOUR)), ASK);
}

fn solicitation(source: &str, target: &str, option: Option<&str>) -> Headers {
    let l4 = nd(NdKind::NeighbourSolicitation, Some(target), [option, None]);
    frame(GUEST, "33:33:ff:00:00:20", ip(addr(source), addr("ff02::1:ff00:20"), l4))
}

fn solicitation_in(source: &str, target: &str, option: Option<&str>) -> Headers {
    let l4 = nd(NdKind::NeighbourSolicitation, Some(target), [option, None]);
    frame(NEIGHBOUR, "33:33:ff:00:00:10", ip(addr(source), addr("ff02::1:ff00:10"), l4))
}

fn advertisement(from: &str, source: &str, target: &str, option: Option<&str>) -> Headers {
    let l4 = nd(NdKind::NeighbourAdvertisement, Some(target), [None, option]);
    frame(from, ALL_NODES, ip(addr(source), addr("ff02::1"), l4))
}

fn advertised_router(from: &str, source: &str, option: Option<&str>) -> Headers {
    let l4 = nd(NdKind::RouterAdvertisement, None, [option, None]);
    frame(from, ALL_NODES, ip(addr(source), addr("ff02::1"), l4))
}

#[test]
fn the_guest_solicits_with_its_own_mac_address() {
    for (source, target, option, expected) in [
        (OUR_LINK_LOCAL, NEIGHBOUR6, Some(GUEST), allowed(GuardRule::Nd)),
        (OUR6, NEIGHBOUR6, None, allowed(GuardRule::Nd)),
        ("::", OUR6, None, allowed(GuardRule::Nd)),
        ("::", NEIGHBOUR6, None, SPOOFED_ND),
        (OUR_LINK_LOCAL, ROUTER_LINK_LOCAL, Some(NEIGHBOUR), SPOOFED_ND),
        (NEIGHBOUR6, OUR6, None, refused(Reason::SourceAddressSpoofed, GuardRule::Address)),
    ] {
        assert_eq!(guard().check(OUT, &solicitation(source, target, option)), expected, "{source} {target}");
    }
}

#[test]
fn the_guest_advertises_only_its_own_addresses() {
    for (target, option, expected) in [
        (OUR6, Some(GUEST), allowed(GuardRule::Nd)),
        (OUR_LINK_LOCAL, None, allowed(GuardRule::Nd)),
        (NEIGHBOUR6, Some(GUEST), SPOOFED_ND),
        ("fe80::5054:ff:fe00:2", Some(GUEST), SPOOFED_ND),
        (OUR6, Some(NEIGHBOUR), SPOOFED_ND),
    ] {
        let message = advertisement(GUEST, OUR_LINK_LOCAL, target, option);
        assert_eq!(guard().check(OUT, &message), expected, "{target} {option:?}");
    }
}

#[test]
fn neighbours_solicit_and_advertise_their_own() {
    for (source, target, option) in [
        (NEIGHBOUR6, OUR6, Some(NEIGHBOUR)),
        ("::", NEIGHBOUR6, None),
        // A neighbour that wants our address must be heard, or the duplicate is never found.
        ("::", OUR6, None),
    ] {
        let message = solicitation_in(source, target, option);
        assert_eq!(guard().check(IN, &message), allowed(GuardRule::Nd), "{source} {target}");
    }
    let message = advertisement(NEIGHBOUR, NEIGHBOUR6, NEIGHBOUR6, Some(NEIGHBOUR));
    assert_eq!(guard().check(IN, &message), allowed(GuardRule::Nd));
}

#[test]
fn neighbours_claim_neither_ours_nor_a_bound_address() {
    let guard = guard_of(|nic| nic.gateways = vec![binding(ROUTER_LINK_LOCAL, ROUTER)]);
    for (target, option) in [
        (OUR6, Some(NEIGHBOUR)),
        (OUR_LINK_LOCAL, None),
        (ROUTER_LINK_LOCAL, Some(NEIGHBOUR)),
        (NEIGHBOUR6, Some(ROUTER)),
    ] {
        let message = advertisement(NEIGHBOUR, NEIGHBOUR6, target, option);
        assert_eq!(guard.check(IN, &message), SPOOFED_ND, "{target} {option:?}");
    }
    assert_eq!(guard.check(IN, &solicitation_in(NEIGHBOUR6, OUR6, Some(ROUTER))), SPOOFED_ND);
}

#[test]
fn the_guest_asks_for_routers_and_is_none() {
    let solicits = |source: &str, option| {
        let l4 = nd(NdKind::RouterSolicitation, None, [option, None]);
        frame(GUEST, "33:33:00:00:00:02", ip(addr(source), addr("ff02::2"), l4))
    };
    assert_eq!(guard().check(OUT, &solicits("::", None)), allowed(GuardRule::Ra));
    assert_eq!(guard().check(OUT, &solicits(OUR_LINK_LOCAL, Some(GUEST))), allowed(GuardRule::Ra));
    assert_eq!(guard().check(OUT, &solicits(OUR_LINK_LOCAL, Some(ROUTER))), SPOOFED_ND);
    assert_eq!(guard().check(OUT, &advertised_router(GUEST, OUR_LINK_LOCAL, Some(GUEST))), REFUSED_ROUTER);
    let l4 = nd(NdKind::RouterSolicitation, None, [Some(NEIGHBOUR), None]);
    let asked = frame(NEIGHBOUR, "33:33:00:00:00:02", ip(addr("fe80::2"), addr("ff02::2"), l4));
    assert_eq!(guard().check(IN, &asked), ASK);
}

#[test]
fn only_the_gateways_are_routers_where_some_are_given() {
    let open = guard();
    assert_eq!(open.check(IN, &advertised_router(NEIGHBOUR, "fe80::2", None)), allowed(GuardRule::Ra));
    assert_eq!(open.check(IN, &advertised_router(NEIGHBOUR, "fe80::2", Some(ROUTER))), SPOOFED_ND);
    let pinned = guard_of(|nic| {
        nic.gateways = vec![binding("10.0.0.1", ROUTER), binding(ROUTER_LINK_LOCAL, ROUTER)];
    });
    let own = advertised_router(ROUTER, ROUTER_LINK_LOCAL, Some(ROUTER));
    assert_eq!(pinned.check(IN, &own), allowed(GuardRule::Ra));
    assert_eq!(pinned.check(IN, &advertised_router(NEIGHBOUR, "fe80::2", Some(NEIGHBOUR))), REFUSED_ROUTER);
    assert_eq!(pinned.check(IN, &advertised_router(ROUTER, "fe80::3", Some(ROUTER))), REFUSED_ROUTER);
    let borrowed = advertised_router(NEIGHBOUR, ROUTER_LINK_LOCAL, Some(NEIGHBOUR));
    assert_eq!(pinned.check(IN, &borrowed), refused(Reason::PeerSpoofed, GuardRule::Peer));
}

#[test]
fn redirects_and_ipv4_router_advertisements_are_refused() {
    let redirect = refused(Reason::Redirect, GuardRule::Ra);
    let l4 = icmp(137, IcmpMessage::Redirect);
    let sent = frame(GUEST, NEIGHBOUR, ip(addr(OUR_LINK_LOCAL), addr(NEIGHBOUR6), l4));
    assert_eq!(guard().check(OUT, &sent), redirect);
    let heard = frame(NEIGHBOUR, GUEST, ip(addr("fe80::5054:ff:fe00:2"), addr(OUR6), l4));
    assert_eq!(guard().check(IN, &heard), redirect);
    let v4 = frame(ROUTER, GUEST, ip(addr("10.0.0.1"), addr(OUR4), icmp(5, IcmpMessage::Redirect)));
    assert_eq!(guard().check(IN, &v4), redirect);
    let advertised = icmp(9, IcmpMessage::Other);
    let sent = frame(GUEST, BROADCAST, ip(addr(OUR4), addr("255.255.255.255"), advertised));
    assert_eq!(guard().check(OUT, &sent), REFUSED_ROUTER);
}
