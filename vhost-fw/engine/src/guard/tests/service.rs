use super::*;
use crate::headers::GroupMessage;

const REFUSED_DHCP: Result<Cleared, Refusal> =
    Err(Refusal { reason: Reason::DhcpRefused, rule: GuardRule::Dhcp });
const REFUSED_GROUP: Result<Cleared, Refusal> =
    Err(Refusal { reason: Reason::GroupMessageRefused, rule: GuardRule::Mld });

fn client(hardware: Option<&str>) -> Option<Dhcp> {
    Some(Dhcp::Client { hardware: hardware.map(mac) })
}

fn server(hardware: Option<&str>) -> Option<Dhcp> {
    Some(Dhcp::Server { hardware: hardware.map(mac) })
}

fn asks(to_mac: &str, source: &str, destination: &str, hardware: Option<&str>) -> Headers {
    let l4 =
        if addr(source).is_v4() { udp(68, 67, client(hardware)) } else { udp(546, 547, client(hardware)) };
    frame(GUEST, to_mac, ip(addr(source), addr(destination), l4))
}

fn answers(to_mac: &str, source: &str, destination: &str, hardware: Option<&str>) -> Headers {
    let l4 =
        if addr(source).is_v4() { udp(67, 68, server(hardware)) } else { udp(547, 546, server(hardware)) };
    frame(ROUTER, to_mac, ip(addr(source), addr(destination), l4))
}

#[test]
fn the_guest_is_a_dhcp_client() {
    for message in [
        asks(BROADCAST, "0.0.0.0", "255.255.255.255", Some(GUEST)),
        asks(BROADCAST, OUR4, "255.255.255.255", Some(GUEST)),
        asks(ROUTER, OUR4, "10.0.0.1", Some(GUEST)),
        asks("33:33:00:01:00:02", OUR_LINK_LOCAL, "ff02::1:2", None),
    ] {
        assert_eq!(guard().check(OUT, &message), allowed(GuardRule::Dhcp), "{message:?}");
    }
}

#[test]
fn the_guest_is_client_for_itself_only_and_never_server_or_relay() {
    let server4 = frame(
        GUEST,
        BROADCAST,
        ip(addr(OUR4), addr("255.255.255.255"), udp(67, 68, server(Some(NEIGHBOUR)))),
    );
    let server6 =
        frame(GUEST, NEIGHBOUR, ip(addr(OUR_LINK_LOCAL), addr("fe80::2"), udp(547, 546, server(None))));
    let relay4 = frame(GUEST, ROUTER, ip(addr(OUR4), addr(FAR4), udp(67, 67, client(Some(GUEST)))));
    let relay6 = frame(GUEST, ROUTER, ip(addr(OUR6), addr(FAR6), udp(547, 547, client(None))));
    for message in [
        asks(BROADCAST, "0.0.0.0", "255.255.255.255", Some(NEIGHBOUR)),
        asks(BROADCAST, "0.0.0.0", "255.255.255.255", None),
        server4,
        server6,
        relay4,
        relay6,
    ] {
        assert_eq!(guard().check(OUT, &message), REFUSED_DHCP, "{message:?}");
    }
}

#[test]
fn replies_that_are_for_us_pass() {
    for message in [
        answers(GUEST, "10.0.0.1", "255.255.255.255", Some(GUEST)),
        answers(BROADCAST, "10.0.0.1", "255.255.255.255", Some(GUEST)),
        answers(GUEST, "10.0.0.1", OUR4, Some(GUEST)),
        // Some servers broadcast the frame but address the datagram to the lease.
        answers(BROADCAST, "10.0.0.1", OUR4, Some(GUEST)),
        answers(GUEST, ROUTER_LINK_LOCAL, OUR_LINK_LOCAL, None),
        answers(GUEST, ROUTER_LINK_LOCAL, OUR_LINK_LOCAL, Some(GUEST)),
    ] {
        assert_eq!(guard().check(IN, &message), allowed(GuardRule::Dhcp), "{message:?}");
    }
}

#[test]
fn replies_for_others_and_clients_outside_are_refused() {
    let neighbour_asks = frame(
        NEIGHBOUR,
        BROADCAST,
        ip(addr("0.0.0.0"), addr("255.255.255.255"), udp(68, 67, client(Some(NEIGHBOUR)))),
    );
    for message in [
        answers(BROADCAST, "10.0.0.1", "255.255.255.255", Some(NEIGHBOUR)),
        answers(GUEST, "10.0.0.1", OUR4, None),
        answers(GUEST, ROUTER_LINK_LOCAL, OUR_LINK_LOCAL, Some(NEIGHBOUR)),
        neighbour_asks,
    ] {
        assert_eq!(guard().check(IN, &message), REFUSED_DHCP, "{message:?}");
    }
}

#[test]
fn only_the_given_servers_are_servers_family_by_family() {
    let guard = guard_of(|nic| nic.dhcp_servers = vec![addr("10.0.0.1")]);
    let passes = allowed(GuardRule::Dhcp);
    assert_eq!(guard.check(IN, &answers(GUEST, "10.0.0.1", OUR4, Some(GUEST))), passes);
    assert_eq!(guard.check(IN, &answers(GUEST, NEIGHBOUR4, OUR4, Some(GUEST))), REFUSED_DHCP);
    assert_eq!(guard.check(OUT, &asks(ROUTER, OUR4, "10.0.0.1", Some(GUEST))), passes);
    assert_eq!(guard.check(OUT, &asks(ROUTER, OUR4, FAR4, Some(GUEST))), REFUSED_DHCP);
    assert_eq!(guard.check(OUT, &asks(BROADCAST, "0.0.0.0", "255.255.255.255", Some(GUEST))), passes);
    assert_eq!(guard.check(IN, &answers(GUEST, FAR6, OUR6, None)), passes);
    let guard = guard_of(|nic| nic.dhcp_servers = vec![addr("2001:db8:0:1::1")]);
    assert_eq!(guard.check(IN, &answers(GUEST, FAR6, OUR6, None)), REFUSED_DHCP);
    assert_eq!(guard.check(IN, &answers(GUEST, "2001:db8:0:1::1", OUR6, None)), passes);
    assert_eq!(guard.check(IN, &answers(GUEST, ROUTER_LINK_LOCAL, OUR_LINK_LOCAL, None)), passes);
    assert_eq!(guard.check(IN, &answers(GUEST, NEIGHBOUR4, OUR4, Some(GUEST))), passes);
}

#[test]
fn reports_go_out_and_queries_come_in() {
    let group = |from: &str, to_mac: &str, source: &str, destination: &str, message| {
        frame(from, to_mac, ip(addr(source), addr(destination), L4::Group(message)))
    };
    let (query, report) = (GroupMessage::Query, GroupMessage::Report);
    let passes = allowed(GuardRule::Mld);
    for source in [OUR_LINK_LOCAL, "::"] {
        let message = group(GUEST, "33:33:00:00:00:16", source, "ff02::16", report);
        assert_eq!(guard().check(OUT, &message), passes, "{source}");
    }
    assert_eq!(guard().check(OUT, &group(GUEST, "01:00:5e:00:00:16", OUR4, "224.0.0.22", report)), passes);
    // A snooping switch without an address asks from 0.0.0.0.
    for source in ["10.0.0.1", "0.0.0.0"] {
        let message = group(ROUTER, "01:00:5e:00:00:01", source, "224.0.0.1", query);
        assert_eq!(guard().check(IN, &message), passes, "{source}");
    }
    assert_eq!(guard().check(IN, &group(ROUTER, ALL_NODES, ROUTER_LINK_LOCAL, "ff02::1", query)), passes);
    for (direction, message) in [
        (OUT, group(GUEST, ALL_NODES, OUR_LINK_LOCAL, "ff02::1", query)),
        (OUT, group(GUEST, "01:00:5e:00:00:01", OUR4, "224.0.0.1", query)),
        (OUT, group(GUEST, ROUTER, OUR4, FAR4, report)),
        (OUT, group(GUEST, "33:33:00:00:00:16", OUR6, "ff02::16", report)),
        (IN, group(NEIGHBOUR, "33:33:00:00:00:16", "fe80::2", "ff02::16", report)),
        (IN, group(NEIGHBOUR, "01:00:5e:00:00:16", NEIGHBOUR4, "224.0.0.22", report)),
        (IN, group(ROUTER, ALL_NODES, FAR6, "ff02::1", query)),
    ] {
        assert_eq!(guard().check(direction, &message), REFUSED_GROUP, "{direction} {message:?}");
    }
}
