//! Every way a rule set can be wrong, with the words its operator reads.

use fw_model::{Binding, Helper};

use super::*;

fn refusal(rules: &RuleSet) -> String {
    let findings = Matcher::check(rules);
    let new = Matcher::new(rules.clone()).map(drop);
    assert_eq!(new, findings.first().cloned().map_or(Ok(()), Err), "`new` refuses what `check` finds");
    findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn refused(rule: Rule, place: &str, words: &str) {
    let text = refusal(&rule_set(&[("corp", &["10.0.0.0/8"])], vec![rule]));
    assert!(text.starts_with(&format!("rule `r`: {place}: ")) && text.contains(words), "{text}");
    assert!(!text.contains('\n'), "one mistake, one finding: {text}");
}

fn accepted(rule: Rule) {
    assert_eq!(refusal(&rule_set(&[("corp", &["10.0.0.0/8"])], vec![rule])), "");
}

fn of(protocol: ProtocolMatch) -> Rule {
    Rule { protocol, ..allow_tcp("r") }
}

#[test]
fn ports_go_with_protocols_that_have_them() {
    let with = |protocol| Rule { ports: vec![ports(80, 80)], ..of(protocol) };
    for protocol in [ProtocolMatch::Usual, ProtocolMatch::Tcp, ProtocolMatch::Udp, ProtocolMatch::Number(17)]
    {
        accepted(with(protocol));
    }
    refused(with(ProtocolMatch::Icmp), "ports", "ICMP has no ports");
    refused(with(ProtocolMatch::Any), "ports", "leave `protocol` out");
    refused(with(ProtocolMatch::Number(132)), "ports", "protocol 132 has no ports");
}

#[test]
fn icmp_types_go_with_icmp() {
    let with = |protocol| Rule { icmp: vec!["echo-request".parse().unwrap()], ..of(protocol) };
    accepted(with(ProtocolMatch::Icmp));
    for protocol in [ProtocolMatch::Usual, ProtocolMatch::Tcp, ProtocolMatch::Any, ProtocolMatch::Number(1)] {
        refused(with(protocol), "icmp", "`protocol: icmp` is missing");
    }
}

#[test]
fn an_ethertype_rule_is_for_frames_that_are_not_ip() {
    let with = |ethertype| Rule { ethertype: Some(ethertype), ..of(ProtocolMatch::Usual) };
    for ethertype in [0x0600, 0x0806, 0x8035, 0x88cc, 0xffff] {
        accepted(with(ethertype));
    }
    refused(with(0x05ff), "ethertype", "0x05ff is a frame length");
    for ethertype in [0x0800, 0x86dd] {
        refused(with(ethertype), "ethertype", "is IP");
    }
    for ethertype in [0x8100, 0x88a8, 0x9100] {
        refused(with(ethertype), "ethertype", "is a VLAN tag");
    }
    let l2 = with(0x88cc);
    refused(Rule { protocol: ProtocolMatch::Any, ..l2.clone() }, "protocol", "not IP");
    refused(Rule { ports: vec![ports(1, 1)], ..l2.clone() }, "ports", "not IP");
    refused(Rule { icmp: vec!["3".parse().unwrap()], ..l2.clone() }, "icmp", "not IP");
    refused(Rule { remote: vec![set("corp")], ..l2.clone() }, "remote", "not IP");
    refused(Rule { helper: Some(Helper::Ftp), ..l2.clone() }, "helper", "not IP");
    refused(Rule { reply_from: vec![set("corp")], ..l2 }, "reply-from", "not IP");
}

#[test]
fn helpers_go_with_their_protocol() {
    let with = |helper, protocol| Rule { helper: Some(helper), ..of(protocol) };
    accepted(with(Helper::Ftp, ProtocolMatch::Tcp));
    accepted(with(Helper::Tftp, ProtocolMatch::Udp));
    refused(with(Helper::Ftp, ProtocolMatch::Udp), "helper", "`ftp` needs `protocol: tcp`");
    refused(with(Helper::Tftp, ProtocolMatch::Usual), "helper", "`tftp` needs `protocol: udp`");
}

#[test]
fn only_allowed_udp_requests_are_answered() {
    let with = |protocol| Rule { reply_from: vec![set("corp")], ..of(protocol) };
    for protocol in [ProtocolMatch::Usual, ProtocolMatch::Udp, ProtocolMatch::Any] {
        accepted(with(protocol));
    }
    refused(with(ProtocolMatch::Tcp), "reply-from", "write `protocol: udp`");
    refused(with(ProtocolMatch::Icmp), "reply-from", "write `protocol: udp`");
    refused(Rule { action: Action::Drop, ..with(ProtocolMatch::Udp) }, "reply-from", "write `action: allow`");
}

#[test]
fn an_unknown_set_is_named_with_the_nearest_known_one() {
    refused(Rule { remote: vec![set("crop")], ..allow_tcp("r") }, "remote", "no address set `crop`");
    refused(Rule { remote: vec![set("corps")], ..allow_tcp("r") }, "remote", "is `corp` meant?");
    refused(
        Rule { reply_from: vec![set("cor")], ..of(ProtocolMatch::Udp) },
        "reply-from",
        "is `corp` meant?",
    );
}

#[test]
fn ids_are_unique_and_not_the_guards() {
    let check = |ids: &[&str]| refusal(&rule_set(&[], ids.iter().map(|id| allow_tcp(id)).collect()));
    assert_eq!(check(&["a", "b"]), "");
    assert_eq!(check(&["a", "b", "a"]), "rule `a`: id: another rule has this id; ids must differ");
    assert_eq!(
        check(&["guard/x"]),
        "rule `guard/x`: id: ids that start with `guard/` are the built-in rules'"
    );
}

#[test]
fn pass_goes_forward_to_a_rule_that_is_there() {
    let pass =
        |id: &str, target: &str| Rule { action: Action::Pass(target.parse().unwrap()), ..allow_tcp(id) };
    let check = |rules| refusal(&rule_set(&[], rules));
    assert_eq!(check(vec![pass("a", "b"), allow_tcp("b")]), "");
    for rules in [vec![pass("a", "a")], vec![allow_tcp("b"), pass("a", "b")]] {
        let text = check(rules);
        assert!(text.starts_with("rule `a`: continue-at: ") && text.contains("forward only"), "{text}");
    }
    let text = check(vec![pass("a", "tier-tow"), allow_tcp("tier-two")]);
    assert_eq!(text, "rule `a`: continue-at: there is no rule `tier-tow`; is `tier-two` meant?");
}

#[test]
fn a_nic_says_possible_things() {
    let with = |change: fn(&mut NicIdentity)| {
        let mut rules = rule_set(&[], vec![]);
        change(&mut rules.nic);
        refusal(&rules)
    };
    assert_eq!(with(|nic| nic.addresses.clear()), "");
    assert_eq!(with(|nic| nic.mtu = Some(68)), "");
    assert!(with(|nic| nic.mtu = Some(67)).starts_with("nic: mtu: 67 is less than IPv4 needs"));
    let with_v6 = |mtu| {
        let mut rules = rule_set(&[], vec![]);
        rules.nic.addresses.push("2001:db8::/64".parse().unwrap());
        rules.nic.mtu = Some(mtu);
        refusal(&rules)
    };
    assert_eq!(with_v6(1280), "");
    assert!(with_v6(1279).starts_with("nic: mtu: 1279 is less than IPv6 needs"));
    assert!(with(|nic| nic.mac = MacAddr::BROADCAST).starts_with("nic: mac: "));
    assert!(with(|nic| nic.mac = MacAddr([0; 6])).starts_with("nic: mac: "));
}

#[test]
fn an_address_has_one_holder() {
    let mac = |last| MacAddr([0x52, 0x54, 0, 0, 0, last]);
    let member = |text: &str, last| Member { prefix: text.parse().unwrap(), mac: Some(mac(last)) };
    let check = |members: Vec<Member>| {
        let mut rules = rule_set(&[("app", &[])], vec![]);
        rules.nic.gateways.push(Binding { address: "10.0.0.1".parse().unwrap(), mac: mac(1) });
        rules.address_sets.insert("app".parse().unwrap(), Arc::new(AddressSet { members }));
        refusal(&rules)
    };
    assert_eq!(check(vec![member("10.0.0.1", 1), member("10.0.0.2", 1), member("10.0.0.2", 1)]), "");
    let text = check(vec![member("10.0.0.1", 2)]);
    assert!(
        text.starts_with("address 10.0.0.1: is bound to 52:54:00:00:00:01 and to 52:54:00:00:00:02"),
        "{text}"
    );
    let text = check(vec![member("10.0.1.0/24", 2)]);
    assert!(text.starts_with("address set `app`: 10.0.1.0/24 is not one address"), "{text}");
}

#[test]
fn numbers_have_limits() {
    let rules = |count: u32| rule_set(&[], (0..count).map(|place| allow_tcp(&format!("r{place}"))).collect());
    assert_eq!(Matcher::check(&rules(65_535)), []);
    assert_eq!(refusal(&rules(65_536)), "rules: 65536 rules are more than the 65535 there may be");

    let mut sets = rule_set(&[], vec![]);
    let add = |sets: &mut RuleSet, name: u32, members: u32| {
        let member = |bits: u32| Member { prefix: Cidr::host(Addr::v4(bits.to_be_bytes())), mac: None };
        let members = (0..members).map(member).collect();
        sets.address_sets.insert(format!("s{name}").parse().unwrap(), Arc::new(AddressSet { members }));
    };
    (0..10_000).for_each(|name| add(&mut sets, name, 0));
    assert_eq!(refusal(&sets), "");
    add(&mut sets, 10_000, 0);
    assert!(refusal(&sets).starts_with("address-sets: 10001 address sets are more"));

    let mut prefixes = rule_set(&[], vec![]);
    add(&mut prefixes, 0, 1_000_000);
    assert_eq!(Matcher::check(&prefixes), [], "the NIC's own are not counted");
    add(&mut prefixes, 0, 1_000_001);
    assert!(refusal(&prefixes).starts_with("address-sets: 1000001 prefixes"));
}

#[test]
fn every_mistake_is_found_but_not_told_without_end() {
    let wrong = |place: u32| Rule { remote: vec![set("nowhere")], ..allow_tcp(&format!("r{place}")) };
    let findings = |count| Matcher::check(&rule_set(&[], (0..count).map(wrong).collect())).len();
    assert_eq!((findings(3), findings(100), findings(1_000)), (3, 100, 100));
}

#[test]
fn tables_that_grow_without_bound_are_refused() {
    let rule = |place: u16| Rule { ports: vec![ports(place, u16::MAX)], ..allow_tcp(&format!("r{place}")) };
    let error = Matcher::new(rule_set(&[], (0..65_535).map(rule).collect())).unwrap_err();
    assert_eq!(error.place, "rules");
    assert!(error.message.contains("256 MiB"), "{error}");
}
