//! Rules files that are right, wrong and hostile; most cases stand in `tests/golden/rules`.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use fw_model::{Action, Direction, OnRevoke, ProtocolMatch};

use super::*;

const LEAST: &str = "nic: {id: a, mac: \"52:54:00:00:00:01\"}\ndefaults: {out: drop, in: drop}\n";

fn read(text: &str) -> Result<RuleSet, String> {
    let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    read_rules(text, "r.yaml", 6, now).map(|(rules, _)| rules).map_err(|error| error.to_string())
}

fn with_rule(fields: &str) -> Result<Rule, String> {
    let rules = read(&format!("{LEAST}rules:\n  - {{id: x, direction: in, {fields}}}\n"))?;
    Ok(rules.rules.into_iter().next().unwrap())
}

#[test]
fn the_least_file_gets_the_next_generation_and_every_default() {
    let rules = read(LEAST).unwrap();
    assert_eq!(rules.generation, 7);
    assert_eq!(rules.timers, Timers::DEFAULT);
    assert!(rules.rules.is_empty() && rules.address_sets.is_empty() && rules.nic.addresses.is_empty());
    assert_eq!(rules.nic.guard, fw_model::GuardSwitches::ALL);
}

#[test]
fn the_contract_s_example_is_read_as_it_is_meant() {
    let rules = read(include_str!("../../../tests/golden/rules/example.yaml")).unwrap();
    assert_eq!(rules.generation, 7);
    let [web, ping, db] = &rules.rules[..] else { panic!("{:?}", rules.rules) };
    assert_eq!(
        (web.direction, &web.action, web.protocol),
        (Direction::In, &Action::Allow, ProtocolMatch::Tcp)
    );
    assert_eq!(web.ports.iter().map(ToString::to_string).collect::<Vec<_>>(), ["80", "8000-8010"]);
    assert_eq!(ping.icmp[0].to_string(), "echo-request");
    assert_eq!((db.log, db.on_revoke, db.remote.len()), (true, OnRevoke::Drain, 2));
    let app = &rules.address_sets[&"app".parse().unwrap()];
    assert_eq!(app.members[0].mac.unwrap().to_string(), "52:54:00:00:00:02");
}

#[test]
fn json_is_yaml_too() {
    let text = r#"{"nic": {"id": "a", "mac": "52:54:00:00:00:01"}, "defaults": {"out": "drop", "in": "reject"},
        "rules": [{"id": "w", "direction": "in", "action": "allow", "protocol": 47}]}"#;
    assert_eq!(read(text).unwrap().rules[0].protocol, ProtocolMatch::Number(47));
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest_key() {
    let text = format!("{LEAST}rules:\n  - id: x\n    protocl: tcp\n    direction: in\n    action: drop\n");
    let error = read(&text).unwrap_err();
    assert!(error.starts_with("r.yaml:5: unknown key `protocl`; did you mean `protocol`?"), "{error}");
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_lines() {
    let text = "nic: {id: a/b, mac: 1}\ndefaults: {out: maybe}\nrules:\n- {id: x}\ntimers: {udp: 0}\n";
    let error = read(text).unwrap_err();
    let lines: Vec<_> = error.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        lines,
        ["r.yaml:1", "r.yaml:1", "r.yaml:2", "r.yaml:2", "r.yaml:4", "r.yaml:4", "r.yaml:5"],
        "{error}"
    );
}

#[test]
fn a_flood_of_problems_is_counted_and_not_told() {
    let mut text = format!("{LEAST}rules:\n");
    for _ in 0..1000 {
        text.push_str("  - 1\n");
    }
    let error = read(&text).unwrap_err();
    assert_eq!(error.lines().count(), 51);
    assert!(error.ends_with("and 950 more"), "{error}");
}

#[test]
fn what_depends_on_another_place_is_refused() {
    for (line, text) in [
        (1, "nic: &a {id: b}\nrules: *a\n"),
        (2, "nic: {id: b}\nrules: *a\n"),
        (1, "nic: !!map {id: b}\n"),
        (2, "nic: {id: b}\n<<: {rules: []}\n"),
        (2, "nic: {id: b}\n--- \nnic: {id: c}\n"),
        (1, "? [a]\n: b\n"),
        (1, ""),
        (1, "rules: [1\n"),
        (1, "rules: [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]\n"),
        (2, "nic: {id: b}\nrules: @x\n"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.lines().any(|told| told.starts_with(&format!("r.yaml:{line}: "))), "{text}: {error}");
    }
}

#[test]
fn an_alias_bomb_does_not_expand() {
    let mut text = String::from("a0: &a0 [1]\n");
    for level in 1..30 {
        let previous = level - 1;
        writeln!(text, "a{level}: &a{level} [*a{previous}, *a{previous}, *a{previous}]").unwrap();
    }
    assert!(read(&text).unwrap_err().contains("anchors and aliases"));
}

#[test]
fn expiry_counts_from_the_time_of_reading() {
    let left = |fields: &str| with_rule(&format!("action: drop, {fields}")).map(|rule| rule.expires_in_ms);
    assert_eq!(left("log: true"), Ok(None));
    assert_eq!(left("expires_in_s: 60"), Ok(Some(60_000)));
    assert_eq!(left("expires_at: 2001-09-09T01:46:41Z"), Ok(Some(1000)));
    assert_eq!(left("expires_at: \"2001-09-09T03:46:41.5+02:00\""), Ok(Some(1500)));
    assert_eq!(left("expires_at: 1999-01-01T00:00:00Z"), Ok(Some(0)));
    assert!(left("expires_at: 2001-09-09").is_err());
    assert!(left("expires_in_s: 1, expires_at: 2001-09-09T01:46:41Z").is_err());
}

#[test]
fn numbers_are_digits_and_words_are_words() {
    for wrong in [
        "action: pass",
        "action: drop, continue-at: y",
        "action: Allow",
        "action: drop, log: yes",
        "action: drop, ports: 80",
        "action: drop, ports: [080-99999]",
        "action: drop, ports: []",
        "action: drop, remote: []",
        "action: drop, remote: [{sets: a}]",
        "action: drop, remote: [nobody]",
        "action: drop, protocol: 256",
        "action: drop, protocol: -1",
        "action: drop, ethertype: 0x5ff",
        "action: drop, limits: {conns: 0}",
        "action: drop, limits: {conns: \"5\"}",
        "action: drop, on_revoke: ~",
        "action: drop, icmp: [ping]",
    ] {
        assert!(with_rule(wrong).is_err(), "{wrong}");
    }
    assert_eq!(with_rule("action: pass, continue-at: z").unwrap().action, Action::Pass("z".parse().unwrap()));
    assert_eq!(with_rule("action: drop, ethertype: 0x88cc").unwrap().ethertype, Some(0x88cc));
}

#[test]
fn a_hundred_thousand_members_are_read() {
    let mut text = format!("{LEAST}address-sets:\n  big:\n");
    for number in 0..100_000_u32 {
        writeln!(text, "    - 10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255).unwrap();
    }
    let rules = read(&text).unwrap();
    assert_eq!(rules.address_sets[&"big".parse().unwrap()].members.len(), 100_000);
    let one_line =
        format!("{LEAST}address-sets: {{\"big\": [{}\"::1\"]}}", "\"10.0.0.0/24\",".repeat(100_000));
    assert_eq!(read(&one_line).unwrap().address_sets[&"big".parse().unwrap()].members.len(), 100_001);
}

#[test]
fn what_the_engine_refuses_gets_its_line() {
    let text = format!(
        "{LEAST}address-sets:\n  s:\n    - {{address: 10.0.0.1, mac: \"52:54:00:00:00:07\"}}\n\
         rules:\n  - id: y\n    direction: in\n    action: drop\n"
    );
    let (_, lines) = read_rules(&text, "r.yaml", 0, SystemTime::now()).unwrap();
    for (place, line) in [
        ("rule `y`", 7),
        ("rule `y`: action", 9),
        ("rule `y`: ports", 7),
        ("rule `z`: ports", 1),
        ("address set `s`", 4),
        ("address 10.0.0.1", 5),
        ("address 10.0.0.2", 1),
        ("rules", 7),
        ("nic: mac", 1),
        ("somewhere", 1),
    ] {
        let error = RuleSetError { place: place.to_owned(), message: "wrong".to_owned() };
        assert_eq!(lines.place(vec![error], "r.yaml").to_string(), format!("r.yaml:{line}: {place}: wrong"));
    }
}
