//! The matcher against a judge that reads rules one by one, and every reason to refuse a set.

mod refusals;

use std::sync::Arc;

use fw_model::{
    AddressSet, Cidr, Defaults, IcmpMatch, MacAddr, Member, NicIdentity, OnRevoke, PortRange, ProtocolMatch,
    RemoteMatch, RuleLimits,
};

use super::*;
use crate::fixture;

fn allow_tcp(id: &str) -> Rule {
    Rule {
        id: id.parse().unwrap(),
        direction: Direction::Out,
        action: Action::Allow,
        protocol: ProtocolMatch::Tcp,
        remote: vec![],
        ports: vec![],
        icmp: vec![],
        ethertype: None,
        log: false,
        helper: None,
        expires_in_ms: None,
        on_revoke: OnRevoke::Kill,
        limits: RuleLimits { conns: None, new_per_s: None },
        reply_from: vec![],
    }
}

fn rule_set(sets: &[(&str, &[&str])], rules: Vec<Rule>) -> RuleSet {
    let set = |members: &[&str]| {
        let members = members.iter().map(|text| Member { prefix: text.parse().unwrap(), mac: None });
        Arc::new(AddressSet { members: members.collect() })
    };
    let nic = fixture::nic("web-1", MacAddr([0x52, 0x54, 0, 0, 0, 1]), &["10.0.0.10"]);
    RuleSet {
        defaults: Defaults { out: DefaultAction::Drop, in_: DefaultAction::Reject },
        address_sets: sets.iter().map(|(name, members)| (name.parse().unwrap(), set(members))).collect(),
        rules,
        ..fixture::rules(nic)
    }
}

fn set(name: &str) -> RemoteMatch {
    RemoteMatch::Set(name.parse().unwrap())
}

fn prefix(text: &str) -> RemoteMatch {
    RemoteMatch::Prefix(text.parse().unwrap())
}

fn ports(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).unwrap()
}

fn tcp(direction: Direction, remote: &str, port: u16) -> Question {
    Question::Ip { direction, remote: remote.parse().unwrap(), protocol: Protocol::TCP, port, icmp: None }
}

fn places(matcher: &Matcher, questions: &[Question]) -> Vec<Option<usize>> {
    let place = |question| match matcher.first_match(question, &[]) {
        Match::Rule(place) => Some(place),
        Match::Default(_) => None,
    };
    questions.iter().map(place).collect()
}

#[test]
fn the_first_of_several_matches_decides() {
    let app = Rule { remote: vec![set("app")], ports: vec![ports(80, 90)], ..allow_tcp("app") };
    let one = Rule { remote: vec![prefix("10.0.0.1")], ..allow_tcp("one") };
    let any = Rule { ports: vec![ports(443, 443)], ..allow_tcp("any") };
    let matcher = Matcher::new(rule_set(&[("app", &["10.0.0.0/24"])], vec![app, one, any])).unwrap();
    let asked =
        [("10.0.0.1", 85), ("10.0.0.1", 443), ("10.0.0.2", 443), ("10.0.0.2", 91), ("2001:db8::1", 443)]
            .map(|(remote, port)| tcp(Direction::Out, remote, port));
    assert_eq!(places(&matcher, &asked), [Some(0), Some(1), Some(2), None, Some(2)]);
    let reject = Match::Default(DefaultAction::Reject);
    assert_eq!(matcher.first_match(&tcp(Direction::In, "10.0.0.1", 443), &[]), reject);
}

#[test]
fn pass_goes_on_at_its_target_and_skips_what_stands_between() {
    let pass = Rule { action: Action::Pass("last".parse().unwrap()), ..allow_tcp("pass") };
    let rules =
        vec![pass, allow_tcp("between"), Rule { remote: vec![prefix("10.0.0.1")], ..allow_tcp("last") }];
    let matcher = Matcher::new(rule_set(&[], rules)).unwrap();
    let asked = [tcp(Direction::Out, "10.0.0.1", 1), tcp(Direction::Out, "10.0.0.2", 1)];
    assert_eq!(places(&matcher, &asked), [Some(2), None]);
    assert_eq!(
        matcher.first_match(&asked[0], &[1]),
        Match::Rule(1),
        "an expired pass rule passes nothing on"
    );
    assert_eq!(matcher.first_match(&asked[0], &[4]), Match::Default(DefaultAction::Drop));
}

#[test]
fn an_empty_set_matches_nobody() {
    let matcher = Matcher::new(rule_set(
        &[("nobody", &[])],
        vec![Rule { remote: vec![set("nobody")], ..allow_tcp("a") }],
    ));
    assert_eq!(places(&matcher.unwrap(), &[tcp(Direction::Out, "0.0.0.0", 0)]), [None]);
}

#[test]
fn no_rules_means_the_default() {
    let matcher = Matcher::new(rule_set(&[], vec![])).unwrap();
    assert_eq!(places(&matcher, &[tcp(Direction::Out, "10.0.0.1", 0)]), [None]);
}

#[test]
fn the_usual_protocols_are_tcp_udp_and_echo_requests() {
    let usual = Rule { protocol: ProtocolMatch::Usual, ..allow_tcp("usual") };
    let matcher = Matcher::new(rule_set(&[], vec![usual])).unwrap();
    let matches = |remote: &str, protocol, icmp| {
        let remote = remote.parse().unwrap();
        let question =
            Question::Ip { direction: Direction::Out, remote, protocol: Protocol(protocol), port: 0, icmp };
        matcher.first_match(&question, &[]) == Match::Rule(0)
    };
    let matched: Vec<u8> = (0..=255).filter(|number| matches("10.0.0.1", *number, None)).collect();
    assert_eq!(matched, [6, 17]);
    let echoes = |remote, protocol| {
        (0..=255).filter(|kind| matches(remote, protocol, Some((*kind, 0)))).collect::<Vec<_>>()
    };
    assert_eq!(echoes("10.0.0.1", 1), [8]);
    assert_eq!(echoes("2001:db8::1", 58), [128]);
    assert!(echoes("10.0.0.1", 58).is_empty() && echoes("2001:db8::1", 1).is_empty());
}

#[test]
fn only_who_is_named_may_answer() {
    let ask = Rule {
        protocol: ProtocolMatch::Udp,
        remote: vec![prefix("239.0.0.1")],
        reply_from: vec![set("app"), prefix("10.9.0.0/16")],
        ..allow_tcp("ask")
    };
    let matcher =
        Matcher::new(rule_set(&[("app", &["10.0.0.1", "10.9.1.0/24"])], vec![ask, allow_tcp("b")])).unwrap();
    let may = |place, remote: &str| matcher.may_answer(place, remote.parse().unwrap());
    assert!(may(0, "10.0.0.1") && may(0, "10.9.1.1") && may(0, "10.9.2.1"));
    assert!(!may(0, "239.0.0.1") && !may(0, "10.0.0.2") && !may(1, "10.0.0.1") && !may(2, "10.0.0.1"));
}

#[test]
fn a_set_that_only_answers_is_no_remote() {
    let ask = Rule {
        protocol: ProtocolMatch::Udp,
        remote: vec![prefix("239.0.0.1")],
        reply_from: vec![set("app")],
        ..allow_tcp("ask")
    };
    let matcher = Matcher::new(rule_set(&[("app", &["10.0.0.1"])], vec![ask])).unwrap();
    let remote = "10.0.0.1".parse().unwrap();
    let question =
        Question::Ip { direction: Direction::Out, remote, protocol: Protocol::UDP, port: 1, icmp: None };
    assert_eq!(places(&matcher, &[question]), [None]);
}

/// Reads a rule as CONTRACT 1 words it.
fn matches(rules: &RuleSet, rule: &Rule, question: &Question) -> bool {
    let (direction, remote, protocol, port, icmp) = match *question {
        Question::Ethertype { direction, ethertype } => {
            return rule.direction == direction && rule.ethertype == Some(ethertype);
        }
        Question::Ip { direction, remote, protocol, port, icmp } => {
            (direction, remote, protocol.0, port, icmp)
        }
    };
    let family_icmp = if remote.is_v4() { 1 } else { 58 };
    let echo = if remote.is_v4() { 8 } else { 128 };
    let protocol_fits = match rule.protocol {
        ProtocolMatch::Usual if rule.ports.is_empty() => {
            [6, 17].contains(&protocol)
                || (protocol == family_icmp && icmp.is_some_and(|(kind, _)| kind == echo))
        }
        ProtocolMatch::Usual => [6, 17].contains(&protocol),
        ProtocolMatch::Tcp => protocol == 6,
        ProtocolMatch::Udp => protocol == 17,
        ProtocolMatch::Icmp => protocol == family_icmp,
        ProtocolMatch::Any => true,
        ProtocolMatch::Number(number) => protocol == number,
    };
    let message_fits = |wanted: &IcmpMatch| {
        let wanted_kind = if remote.is_v4() { wanted.v4 } else { wanted.v6 };
        icmp.is_some_and(|(kind, code)| {
            wanted_kind == Some(kind) && wanted.code.is_none_or(|wanted| wanted == code)
        })
    };
    rule.direction == direction
        && rule.ethertype.is_none()
        && protocol_fits
        && (rule.ports.is_empty() || rule.ports.iter().any(|ports| ports.contains(port)))
        && (rule.icmp.is_empty() || rule.icmp.iter().any(message_fits))
        && (rule.remote.is_empty() || holds(rules, &rule.remote, remote))
}

fn holds(rules: &RuleSet, remotes: &[RemoteMatch], remote: Addr) -> bool {
    remotes.iter().any(|named| match named {
        RemoteMatch::Prefix(prefix) => prefix.contains(remote),
        RemoteMatch::Set(name) => {
            rules.address_sets[name].members.iter().any(|member| member.prefix.contains(remote))
        }
    })
}

fn first_match_one_by_one(rules: &RuleSet, question: &Question, expired: &[u64]) -> Match {
    let mut place = 0;
    while let Some(rule) = rules.rules.get(place) {
        let is_expired = expired.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1);
        if is_expired || !matches(rules, rule, question) {
            place += 1;
        } else if let Action::Pass(target) = &rule.action {
            place = rules.rules.iter().position(|rule| rule.id == *target).unwrap();
        } else {
            return Match::Rule(place);
        }
    }
    let direction = match *question {
        Question::Ip { direction, .. } | Question::Ethertype { direction, .. } => direction,
    };
    Match::Default(if direction == Direction::Out { rules.defaults.out } else { rules.defaults.in_ })
}

/// A small generator with one seed for each case, so that a failure names the case that repeats it (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap()]
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }

    /// From a small world, so that prefixes nest and questions meet them; the ends of both families included.
    fn address(&mut self) -> Addr {
        let end = self.pick(&[0, 0xff]);
        let (a, b) = (self.pick(&[0, 1, 2, 128, 255]), self.pick(&[0, 1, 127, 128, 254, 255]));
        match self.below(10) {
            0 => Addr::v4([end; 4]),
            1 => Addr::v6([end; 16]),
            2..6 => Addr::v4([10, 0, a, b]),
            _ => Addr::v6([0x20, 1, 0xd, 0xb8, a, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b]),
        }
    }

    fn prefix(&mut self) -> Cidr {
        let address = self.address();
        let length = match (address.is_v4(), self.chance(50)) {
            (_, true) => 128,
            (true, false) => 96 + self.pick(&[0, 1, 8, 16, 23, 24, 25, 30, 31]),
            (false, false) => self.pick(&[0, 1, 32, 40, 64, 111, 112, 120, 127]),
        };
        Cidr::new(address, length)
    }

    fn remotes(&mut self, sets: u64) -> Vec<RemoteMatch> {
        let one = |dice: &mut Self| match sets {
            1.. if dice.chance(60) => set(&format!("set-{}", dice.below(sets))),
            _ => RemoteMatch::Prefix(dice.prefix()),
        };
        (0..=self.below(3)).map(|_| one(self)).collect()
    }

    fn port(&mut self) -> u16 {
        self.pick(&[0, 1, 22, 53, 80, 81, 82, 443, 8_000, 8_005, 65_534, 65_535])
    }

    fn direction(&mut self) -> Direction {
        self.pick(&[Direction::Out, Direction::In])
    }

    fn rule(&mut self, place: u64, count: u64, sets: u64) -> Rule {
        let mut rule = Rule { direction: self.direction(), ..allow_tcp(&format!("r{place}")) };
        if place + 1 < count && self.chance(15) {
            let target = place + 1 + self.below((count - place - 1).min(20));
            rule.action = Action::Pass(format!("r{target}").parse().unwrap());
        }
        if self.chance(10) {
            let ethertype = Some(self.pick(&[0x0806, 0x88cc, 0xffff]));
            return Rule { ethertype, protocol: ProtocolMatch::Usual, ..rule };
        }
        let protocols = [ProtocolMatch::Usual, ProtocolMatch::Tcp, ProtocolMatch::Udp, ProtocolMatch::Icmp];
        rule.protocol = match self.below(6) {
            4 => ProtocolMatch::Any,
            5 => ProtocolMatch::Number(self.pick(&[1, 4, 6, 17, 47, 58, 255])),
            _ => self.pick(&protocols),
        };
        let has_ports = matches!(
            rule.protocol,
            ProtocolMatch::Usual | ProtocolMatch::Tcp | ProtocolMatch::Udp | ProtocolMatch::Number(6 | 17)
        );
        if has_ports && self.chance(75) {
            let range = |dice: &mut Self| {
                let (a, b) = (dice.port(), if dice.chance(50) { dice.port() } else { 0 });
                if b == 0 { ports(a, a) } else { ports(a.min(b), a.max(b)) }
            };
            rule.ports = (0..=self.below(3)).map(|_| range(self)).collect();
        }
        if rule.protocol == ProtocolMatch::Icmp && self.chance(75) {
            let names = ["echo-request", "packet-too-big", "3/4", "3", "redirect", "255/255", "0", "128/0"];
            rule.icmp = (0..=self.below(2)).map(|_| self.pick(&names).parse().unwrap()).collect();
        }
        if self.chance(70) {
            rule.remote = self.remotes(sets);
        }
        rule
    }

    fn rules(&mut self, count: u64) -> RuleSet {
        let sets = self.below(6);
        let mut rules = rule_set(&[], (0..count).map(|place| self.rule(place, count, sets)).collect());
        for number in 0..sets {
            let members = (0..self.below(12)).map(|_| Member { prefix: self.prefix(), mac: None }).collect();
            rules
                .address_sets
                .insert(format!("set-{number}").parse().unwrap(), Arc::new(AddressSet { members }));
        }
        rules
    }

    fn question(&mut self) -> Question {
        let direction = self.direction();
        if self.chance(5) {
            return Question::Ethertype {
                direction,
                ethertype: self.pick(&[0x0806, 0x88cc, 0xffff, 0, 0x0800]),
            };
        }
        let protocol = Protocol(self.pick(&[6, 6, 6, 17, 17, 1, 58, 4, 47, 0, 255]));
        let ports = matches!(protocol, Protocol::TCP | Protocol::UDP);
        let message = matches!(protocol, Protocol::ICMP | Protocol::ICMPV6) && self.chance(90);
        Question::Ip {
            direction,
            remote: self.address(),
            protocol,
            port: if !ports {
                0
            } else if self.chance(70) {
                self.port()
            } else {
                self.byte().into()
            },
            icmp: message.then(|| (self.pick(&[0, 2, 3, 5, 8, 128, 137, 255]), self.pick(&[0, 1, 4, 255]))),
        }
    }
}

fn compare(case: u64, count: u64, questions: u64) -> u64 {
    let mut dice = Dice(case);
    let rules = dice.rules(count);
    let matcher = Matcher::new(rules).unwrap_or_else(|error| panic!("case {case}: {error}"));
    let mut hits = 0;
    for _ in 0..questions {
        let question = dice.question();
        let expired: Vec<u64> =
            (0..dice.below(4)).map(|_| dice.below(u64::MAX) & dice.below(u64::MAX)).collect();
        let wanted = first_match_one_by_one(matcher.rules(), &question, &expired);
        let found = matcher.first_match(&question, &expired);
        assert_eq!(found, wanted, "case {case}: {question:?} without {expired:x?}");
        hits += u64::from(matches!(found, Match::Rule(_)));
    }
    hits
}

#[test]
fn random_rule_sets_are_read_as_one_by_one() {
    let hits: u64 = (0..400).map(|case| compare(case, case % 150, 300)).sum();
    assert!((20_000..110_000).contains(&hits), "{hits} of 120,000 questions matched: the dice are loaded");
}

#[test]
fn rule_sets_of_several_blocks_are_read_as_one_by_one() {
    (1_000..1_004).for_each(|case| {
        compare(case, 9_000, 500);
    });
}

#[test]
fn distinct_ports_in_ten_thousand_rules_each_lead_to_their_rule() {
    let rule = |port: u16| Rule { ports: vec![ports(port, port)], ..allow_tcp(&format!("p{port}")) };
    let matcher = Matcher::new(rule_set(&[], (0..10_000).map(rule).collect())).unwrap();
    for port in 0..10_010_u16 {
        let expected = (port < 10_000).then_some(usize::from(port));
        assert_eq!(places(&matcher, &[tcp(Direction::Out, "10.0.0.1", port)]), [expected]);
    }
}

#[test]
fn random_answers_are_read_as_one_by_one() {
    for case in 0..200 {
        let mut dice = Dice(case);
        let mut rules = dice.rules(20);
        let sets = rules.address_sets.len() as u64;
        for rule in rules.rules.iter_mut().filter(|rule| rule.ethertype.is_none()) {
            (rule.protocol, rule.action, rule.icmp) = (ProtocolMatch::Udp, Action::Allow, vec![]);
            rule.reply_from = dice.remotes(sets);
        }
        let matcher = Matcher::new(rules).unwrap();
        for (place, rule) in matcher.rules().rules.iter().enumerate() {
            for _ in 0..20 {
                let remote = dice.address();
                let wanted = holds(matcher.rules(), &rule.reply_from, remote);
                assert_eq!(matcher.may_answer(place, remote), wanted, "case {case}: rule {place}, {remote}");
            }
        }
    }
}
