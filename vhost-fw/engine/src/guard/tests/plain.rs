//! The short way says what the long way says, whatever a frame is.

use super::*;

const MACS: [&str; 7] =
    [GUEST, ROUTER, NEIGHBOUR, VIRTUAL, BROADCAST, "01:00:5e:00:00:01", "01:80:c2:00:00:00"];
const ADDRESSES: [&str; 11] = [
    OUR4,
    NEIGHBOUR4,
    "10.0.0.255",
    "198.51.100.7",
    "0.0.0.0",
    "127.0.0.1",
    "224.0.0.1",
    "255.255.255.255",
    OUR6,
    OUR_LINK_LOCAL,
    "2001:db8::7",
];

/// Every frame over these addresses, in both directions.
fn frames() -> impl Iterator<Item = (Direction, Headers)> {
    let layers = || {
        let dhcp = Dhcp::Client { hardware: None };
        [tcp(), udp(53, 53, None), udp(68, 67, Some(dhcp)), L4::Other, L4::Fragment]
    };
    let pairs = |all: &'static [&'static str]| {
        all.iter().flat_map(move |from| all.iter().map(move |to| (*from, *to)))
    };
    pairs(&MACS).flat_map(move |(from, to)| {
        pairs(&ADDRESSES).flat_map(move |(source, destination)| {
            layers().into_iter().flat_map(move |l4| {
                let plain = frame(from, to, ip(addr(source), addr(destination), l4));
                let tagged = Headers { ether: Ether { vlan: Some(30), ..plain.ether }, ..plain };
                let mapped = Headers { ether: Ether { ethertype: 0x86dd, ..plain.ether }, ..plain };
                [plain, tagged, mapped]
                    .into_iter()
                    .flat_map(|headers| [Direction::Out, Direction::In].map(|direction| (direction, headers)))
            })
        })
    })
}

/// How many frames went the short way.
fn short_ways(guard: &Guard) -> usize {
    let mut short = 0;
    for (direction, headers) in frames() {
        let each = guard.check_each(direction, &headers);
        assert_eq!(guard.check(direction, &headers), each, "{direction} {headers:?}");
        let is_plain = guard.plain.as_ref().is_some_and(|plain| plain.peer(direction, &headers).is_some());
        short += usize::from(is_plain);
    }
    short
}

#[test]
fn the_short_way_and_the_long_way_agree() {
    // Two other hosts and a broadcast that may be one, TCP and UDP, three neighbours, both ways.
    assert_eq!(short_ways(&guard()), 3 * 2 * 3 * 2);
    let bound = |nic: &mut NicIdentity| nic.gateways = vec![binding("198.51.100.7", ROUTER)];
    assert_eq!(short_ways(&guard_of(bound)), 3 * 2 * 3 * 2);
    assert_eq!(short_ways(&guard_of(|nic| nic.vlan = VlanId::try_from(30).ok())), 3 * 2 * 3 * 2);
}

#[test]
fn a_nic_that_is_more_than_one_address_goes_the_long_way() {
    let routes = |nic: &mut NicIdentity| nic.addresses.push("10.1.0.0/16".parse().unwrap());
    let has_two = |nic: &mut NicIdentity| nic.addresses.push("10.0.0.11".parse().unwrap());
    let shares = |nic: &mut NicIdentity| nic.shared = vec![binding("10.0.0.100", VIRTUAL)];
    assert_eq!(short_ways(&guard_of(routes)), 0);
    assert_eq!(short_ways(&guard_of(has_two)), 0);
    assert_eq!(short_ways(&guard_of(shares)), 0);
}
