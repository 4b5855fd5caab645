//! The semantics of policies, a named test for each line of the design: ends, order, actions, `applied_to`, membership, sets,
//! change. Asked of the compiled rules, as `policy-sync explain` does.
#![cfg(test)]

use std::collections::BTreeMap;

use fw_model::{Action, DefaultAction, NicId, OnRevoke};
use policy_compiler::{Author, Compiled, GroupMember, Name, Owner, Ref, Source, compile, read};

/// Three workloads of `red` on one segment, one of `blue` with an address of red's in a realm of its own.
const INVENTORY: &str = r#"
tenants: [red, blue]
label-keys: {zone: any}
fact-keys: {infected: ["no", "yes"]}
segments: {red: {tenant: red}, blue: {tenant: blue}}
workloads:
  a: {tenant: red, nics: [{id: a, segment: red, mac: "52:54:00:00:00:01", addresses: [10.0.0.1]}]}
  b: {tenant: red, nics: [{id: b, segment: red, mac: "52:54:00:00:00:02", addresses: [10.0.0.2]}]}
  c: {tenant: red, nics: [{id: c, segment: red, mac: "52:54:00:00:00:03", addresses: [10.0.0.3]}]}
  d: {tenant: blue, nics: [{id: d, segment: blue, mac: "52:54:00:00:00:04", addresses: [10.0.0.1]}]}
"#;

/// Red's keys, labels and groups; `{rules}` go into its application tier.
fn red(rules: &str) -> String {
    format!(
        "---\ntenant: red\nlabel-keys: {{app: any, env: any}}\nlabels: {{a: {{app: web, env: prod}}, b: {{app: db, env: prod}}, c: {{app: db, env: test}}}}\n\
         groups: {{web: {{select: {{app: web}}}}, db: {{select: {{app: db}}}}, both: {{groups: [web, db]}}, none: {{}}, net: {{ranges: [10.0.0.0/30, 198.51.100.0/24]}}, \
         prod: {{groups: [both], exclude: {{select: {{env: test}}}}}}, half: {{members: [a], complete: false}}}}\n\
         policies:\n  app: {{tier: application, position: 10, rules: [{rules}]}}\n"
    )
}

fn compiled(parts: &[&str]) -> Compiled {
    let text = parts.concat();
    let intent = read(&[Source { name: "policy.yaml", text: &text, author: Author::Provider }]);
    compile(intent.unwrap_or_else(|refusal| panic!("{refusal}\n{text}")), 0, 1)
}

fn refused(parts: &[&str]) -> String {
    let text = parts.concat();
    read(&[Source { name: "policy.yaml", text: &text, author: Author::Provider }]).unwrap_err().to_string()
}

/// `a->b` delivered, and by which rules at the source and the destination.
fn ask(policy: &Compiled, from: &str, to: &str, service: &str) -> (bool, String, String) {
    let answers = policy.form.explain(from, to, service).unwrap();
    let [answer] = answers.as_slice() else { panic!("{answers:?}") };
    let by = |end: &policy_compiler::EndVerdict| match (&end.decision, &end.origin) {
        (None, _) => "no vote".to_owned(),
        (Some(decision), Some(origin)) => format!("{} {}", word(decision.action), origin.rule),
        (Some(decision), None) => word(decision.action).to_owned(),
    };
    (answer.is_delivered(), by(&answer.out), by(&answer.in_))
}

const fn word(action: DefaultAction) -> &'static str {
    match action {
        DefaultAction::Allow => "allow",
        DefaultAction::Drop => "drop",
        DefaultAction::Reject => "reject",
    }
}

fn says(policy: &Compiled, from: &str, to: &str, service: &str, out: &str, in_: &str) {
    let (delivered, at_source, at_destination) = ask(policy, from, to, service);
    assert_eq!((at_source.as_str(), at_destination.as_str()), (out, in_), "{from} -> {to} {service}");
    let allows = |end: &str| end == "no vote" || end.starts_with("allow");
    assert_eq!(delivered, allows(out) && allows(in_));
}

#[test]
fn ends_each_nic_judges_for_itself_out_as_source_and_in_as_destination() {
    let policy =
        compiled(&[INVENTORY, &red("{name: r, action: allow, from: web, to: db, services: tcp/5432}")]);
    says(&policy, "a", "b", "tcp/5432", "allow r", "allow r");
    says(&policy, "b", "a", "tcp/5432", "drop", "drop");
    says(&policy, "a", "b", "tcp/5433", "drop", "drop");
    let rules = policy.form.rules_of(&nic("c"), 0).unwrap();
    assert_eq!(rules.rules.len(), 1, "c is a db alone: it carries the way in and nothing else");
}

#[test]
fn ends_an_unmanaged_end_has_no_vote_and_is_shown() {
    let policy =
        compiled(&[INVENTORY, &red("{name: r, action: allow, from: net, to: web, services: tcp/80}")]);
    says(&policy, "198.51.100.9", "a", "tcp/80", "no vote", "allow r");
    assert!(policy.form.explain("198.51.100.9", "a", "tcp/80").unwrap()[0].is_one_end_only());
    says(&policy, "203.0.113.9", "a", "tcp/80", "no vote", "drop");
}

#[test]
fn order_is_tier_then_position_then_place() {
    let tiers = "policies:\n  first: {tier: provider-emergency, position: 1, rules: [{name: e, action: drop, from: any, to: any, services: tcp/1}]}\n  \
        infra: {tier: provider-infrastructure, position: 1, rules: [{name: i, action: drop, from: any, to: any, services: [tcp/1, tcp/2]}]}\n  \
        last: {tier: provider-default, position: 1, rules: [{name: l, action: reject, from: any, to: any, services: any}]}\n";
    let tenant = "---\ntenant: red\npolicies:\n  late: {tier: application, position: 9, rules: [{name: late, action: drop, from: any, to: any, services: tcp/5}]}\n  \
        early: {tier: application, position: 2, rules: [{name: one, action: allow, from: any, to: any, services: [tcp/4, tcp/5]}, {name: two, action: drop, from: any, to: any, services: tcp/4}]}\n  \
        env: {tier: environment, position: 50, rules: [{name: v, action: reject, from: any, to: any, services: [tcp/1, tcp/2, tcp/3, tcp/6]}]}\n  \
        quick: {tier: tenant-emergency, position: 99, rules: [{name: q, action: drop, from: any, to: any, services: tcp/6}]}\n  \
        rest: {tier: tenant-default, position: 1, rules: [{name: t, action: drop, from: any, to: any, services: tcp/7}]}\n";
    let policy = compiled(&[INVENTORY, tiers, tenant]);
    for (port, rule) in [
        (1, "drop e"),
        (2, "drop i"),
        (3, "reject v"),
        (4, "allow one"),
        (5, "allow one"),
        (6, "drop q"),
        (7, "drop t"),
        (8, "reject l"),
    ] {
        says(&policy, "a", "b", &format!("tcp/{port}"), rule, rule);
    }
}

#[test]
fn order_equal_positions_are_an_error() {
    let text = refused(&[
        INVENTORY,
        "policies:\n  p: {tier: provider-default, position: 1, rules: []}\n  q: {tier: provider-default, position: 1, rules: []}\n",
    ]);
    assert!(text.contains("policy.yaml:13: policy `provider/q` has position 1"), "{text}");
}

#[test]
fn order_a_tenant_cannot_reverse_a_providers_verdict() {
    let provider = "policies: {p: {tier: provider-infrastructure, position: 1, rules: [{name: no, action: drop, from: any, to: any, services: tcp/22}]}}\n";
    let policy = compiled(&[
        INVENTORY,
        provider,
        &red("{name: yes, action: allow, from: any, to: any, services: tcp}"),
    ]);
    says(&policy, "a", "b", "tcp/22", "drop no", "drop no");
    says(&policy, "a", "b", "tcp/23", "allow yes", "allow yes");
}

#[test]
fn actions_pass_goes_on_in_the_next_tier_and_only_there() {
    let tenant = "---\ntenant: red\nlabel-keys: {app: any}\npolicies:\n  \
        env: {tier: environment, position: 1, rules: [{name: leave, action: pass, from: any, to: any, services: tcp/1-9}, {name: skipped, action: drop, from: any, to: any, services: any}]}\n  \
        more: {tier: environment, position: 2, rules: [{name: skipped-too, action: reject, from: any, to: any, services: any}]}\n  \
        app: {tier: application, position: 1, rules: [{name: found, action: allow, from: any, to: any, services: tcp/5}]}\n";
    let policy = compiled(&[INVENTORY, tenant]);
    says(&policy, "a", "b", "tcp/5", "allow found", "allow found");
    says(&policy, "a", "b", "tcp/6", "drop", "drop");
    says(&policy, "a", "b", "tcp/10", "drop skipped", "drop skipped");
    let rules = policy.form.rules_of(&nic("a"), 0).unwrap();
    for (place, rule) in rules.rules.iter().enumerate() {
        if let Action::Pass(target) = &rule.action {
            let further = rules.rules.iter().position(|other| other.id == *target).unwrap();
            assert!(further > place, "forward only");
        }
    }
}

#[test]
fn applied_to_says_whose_nics_carry_a_rule() {
    let policy = compiled(&[
        INVENTORY,
        &red("{name: r, action: allow, from: web, to: db, applied_to: [db], services: tcp/1}"),
    ]);
    says(&policy, "a", "b", "tcp/1", "drop", "allow r");
    let warned = policy.warnings.iter().any(|warning| warning.message.contains("the other end"));
    assert!(warned, "{:?}", policy.warnings);
    let policy = compiled(&[
        INVENTORY,
        &red(
            "{name: r, action: allow, from: web, to: db, applied_to: [db], services: tcp/1}, {name: s, action: allow, from: web, to: db, applied_to: [web], services: tcp/1}",
        ),
    ]);
    says(&policy, "a", "b", "tcp/1", "allow s", "allow r");
    assert!(policy.warnings.is_empty(), "{:?}", policy.warnings);
}

#[test]
fn membership_is_static_and_selected_and_nested_minus_exclusions() {
    let policy = compiled(&[INVENTORY, &red("{name: r, action: allow, within: prod, services: tcp/1}")]);
    says(&policy, "a", "b", "tcp/1", "allow r", "allow r");
    says(&policy, "a", "c", "tcp/1", "drop", "drop");
    let named = |member: GroupMember| Some((member.workload?.to_string(), member.why));
    let who: BTreeMap<_, _> = policy.form.who("red/prod").unwrap().into_iter().filter_map(named).collect();
    assert_eq!(who.keys().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(who["a"], "in red/both: in red/web: label app=web");
}

#[test]
fn membership_cycles_are_errors() {
    let text = refused(&[INVENTORY, "groups: {x: {groups: [y]}, y: {exclude: {groups: [x]}}}\n"]);
    assert!(text.contains("group `provider/x` is in itself: provider/x > provider/y > provider/x"), "{text}");
}

#[test]
fn membership_sharing_a_group_grants_nothing() {
    let shared = red("{name: r, action: allow, from: web, to: db, services: tcp/1}")
        .replace("web: {select", "web: {share: all, select");
    let blue = "---\ntenant: blue\npolicies: {p: {tier: application, position: 1, rules: [{name: s, action: allow, from: red/web, to: any, services: any}]}}\n";
    let policy = compiled(&[INVENTORY, &shared, blue]);
    let a = policy.form.rules_of(&nic("a"), 0).unwrap();
    assert!(
        a.rules.iter().all(|rule| rule.id.as_str().starts_with("red/")),
        "blue's rule stands at blue's NICs alone"
    );
    let refused = refused(&[INVENTORY, &red(""), blue]);
    assert!(refused.contains("red shares no group `web` with blue"), "{refused}");
}

#[test]
fn membership_within_and_same_open_traffic_among_equals() {
    let policy = compiled(&[
        INVENTORY,
        &red(
            "{name: in, action: allow, within: db, services: tcp/1}, {name: eq, action: allow, same: env, services: tcp/2}",
        ),
    ]);
    says(&policy, "b", "c", "tcp/1", "allow in", "allow in");
    says(&policy, "a", "b", "tcp/1", "drop", "drop");
    says(&policy, "a", "b", "tcp/2", "allow eq", "allow eq");
    says(&policy, "b", "c", "tcp/2", "drop", "drop");
}

#[test]
fn membership_provider_groups_select_on_provider_owned_keys_only() {
    let text = refused(&[INVENTORY, "groups: {x: {select: {app: web}}}\n", &red("")]);
    assert!(
        text.contains("label key `app` is a tenant's; the provider's groups select on provider-owned keys"),
        "{text}"
    );
}

#[test]
fn sets_are_keyed_by_group_and_realm() {
    let provider = "groups: {all: {select: {tenant: any}}}\npolicies: {p: {tier: provider-infrastructure, position: 1, rules: [{name: r, action: allow, within: all, services: tcp/1}]}}\n";
    let policy = compiled(&[INVENTORY, provider]);
    let members = |id: &str, set: &str| {
        let rules = policy.form.rules_of(&nic(id), 0).unwrap();
        rules.address_sets[&set.parse().unwrap()]
            .members
            .iter()
            .map(|member| member.prefix.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(members("a", "provider/all@red"), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(members("d", "provider/all@blue"), ["10.0.0.1"]);
    assert!(
        policy
            .form
            .explain("a", "d", "tcp/1")
            .unwrap_err()
            .contains("no addresses of one family in one realm")
    );
}

#[test]
fn sets_of_ranges_match_any_holder_managed_or_not() {
    let policy = compiled(&[INVENTORY, &red("{name: r, action: allow, from: net, to: db, services: tcp/1}")]);
    says(&policy, "a", "b", "tcp/1", "allow r", "allow r");
    says(&policy, "198.51.100.1", "b", "tcp/1", "no vote", "allow r");
}

#[test]
fn sets_that_are_empty_match_nobody() {
    let policy = compiled(&[
        INVENTORY,
        &red(
            "{name: r, action: allow, from: none, to: db, services: any}, {name: s, action: drop, from: none, to: any, services: any}, {name: t, action: allow, from: web, to: db, services: tcp/1}",
        ),
    ]);
    says(&policy, "a", "b", "tcp/1", "allow t", "allow t");
    says(&policy, "a", "b", "tcp/2", "drop", "drop");
}

#[test]
fn sets_that_are_incomplete_never_allow_and_always_refuse() {
    let policy = compiled(&[
        INVENTORY,
        &red(
            "{name: r, action: allow, from: half, to: db, services: tcp/1}, {name: s, action: reject, from: half, to: db, services: tcp/2}, {name: t, action: allow, from: any, to: any, services: tcp/2}",
        ),
    ]);
    says(&policy, "a", "b", "tcp/1", "drop", "drop");
    says(&policy, "c", "b", "tcp/2", "reject s", "reject s");
    says(&policy, "b", "a", "tcp/2", "allow t", "allow t");
}

#[test]
fn sets_an_unknown_name_is_an_error_and_any_is_written_out() {
    let text = refused(&[INVENTORY, &red("{name: r, action: allow, from: wbe, to: db, services: any}")]);
    assert!(text.contains("there is no group `wbe`; did you mean `web`?"), "{text}");
    let text = refused(&[INVENTORY, &red("{name: r, action: allow, to: db, services: any}")]);
    assert!(text.contains("a rule needs `from`"), "{text}");
}

#[test]
fn change_emergency_tiers_always_kill() {
    let text = refused(&[
        INVENTORY,
        "policies: {p: {tier: provider-emergency, position: 1, rules: [{name: r, action: drop, from: any, to: any, services: any, on_revoke: drain}]}}\n",
    ]);
    assert!(text.contains("rules of an emergency tier always kill"), "{text}");
    let policy = compiled(&[
        INVENTORY,
        &red("{name: r, action: allow, from: any, to: any, services: any, on_revoke: drain}"),
    ]);
    let rules = policy.form.rules_of(&nic("a"), 0).unwrap();
    assert!(rules.rules.iter().all(|rule| rule.on_revoke == OnRevoke::Drain));
}

#[test]
fn change_a_fact_quarantines_and_raises_only_the_generations_that_see_it() {
    let provider = "groups: {sick: {select: {fact.infected: \"yes\"}}}\npolicies: {q: {tier: provider-emergency, position: 1, rules: [{name: q, action: drop, from: sick, to: any, applied_to: [sick], services: any}]}}\n";
    let mut policy =
        compiled(&[INVENTORY, provider, &red("{name: r, action: allow, from: web, to: db, services: any}")]);
    says(&policy, "a", "b", "tcp/1", "allow r", "allow r");
    let (fact, yes): (Name, Name) = ("infected".parse().unwrap(), "yes".parse().unwrap());
    let change = policy.form.set_fact(&"a".parse().unwrap(), &fact, Some(yes)).unwrap();
    says(&policy, "a", "b", "tcp/1", "drop q", "allow r");
    assert_eq!(change.nics.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a"]);
    let generation = |id: &str| policy.form.generation(&nic(id)).unwrap();
    assert_eq!((generation("a"), generation("b"), generation("d")), (2, 1, 1));
}

#[test]
fn change_of_a_label_moves_a_workload_by_a_delta() {
    let mut policy =
        compiled(&[INVENTORY, &red("{name: r, action: allow, from: web, to: db, services: any}")]);
    let owner = Owner::Tenant("red".parse().unwrap());
    let change = policy
        .form
        .set_label(&"c".parse().unwrap(), &"app".parse().unwrap(), Some("web".parse().unwrap()), &owner)
        .unwrap();
    let mut deltas: Vec<_> = change
        .sets
        .iter()
        .map(|delta| (delta.set.to_string(), delta.added.len(), delta.removed.len()))
        .collect();
    deltas.sort();
    assert_eq!(deltas, [("red/db@red".to_owned(), 0, 1), ("red/web@red".to_owned(), 1, 0)]);
    says(&policy, "c", "b", "tcp/1", "allow r", "allow r");
    says(&policy, "a", "c", "tcp/1", "drop", "drop");
}

#[test]
fn change_by_a_tenant_stops_at_what_is_not_its_own() {
    let mut policy = compiled(&[INVENTORY, &red("")]);
    let (red, blue) = (Owner::Tenant("red".parse().unwrap()), Owner::Tenant("blue".parse().unwrap()));
    let set = |policy: &mut Compiled, workload: &str, key: &str, owner: &Owner| {
        policy
            .form
            .set_label(&workload.parse().unwrap(), &key.parse().unwrap(), Some("x".parse().unwrap()), owner)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        set(&mut policy, "a", "zone", &red),
        "label key `zone` is the provider's; a tenant cannot set it"
    );
    assert_eq!(set(&mut policy, "a", "app", &blue), "there is no workload `a`");
    let group = Ref { owner: red, name: "web".parse().unwrap() };
    let error = policy.form.set_member(&group, &"d".parse().unwrap(), true).unwrap_err();
    assert!(error.to_string().contains("no workload of the owner"), "{error}");
}

#[test]
fn a_tenant_hands_in_its_own_documents_alone() {
    let author = Author::Tenant("red".parse().unwrap());
    for text in ["policies: {}\n", "tenant: blue\n"] {
        let refusal =
            read(&[Source { name: "p.yaml", text, author: author.clone() }]).unwrap_err().to_string();
        assert!(refusal.contains("expected `tenant: red`"), "{refusal}");
    }
}

#[test]
fn oversized_policies_are_refused_before_they_are_compiled() {
    let long = " ".repeat((64 << 20) + 1);
    let deep = format!("groups: {{g: {}}}", "[".repeat(100_000));
    let many: String =
        (0..100_001).map(|number| format!("  g{number}: {{groups: [g{}]}}\n", number + 1)).collect();
    for (text, says) in [
        (long, "longer than"),
        (deep, "not YAML"),
        (format!("groups:\n{many}"), "more than the 100000 there may be"),
    ] {
        let refusal = read(&[Source { name: "p.yaml", text: &text, author: Author::Provider }])
            .unwrap_err()
            .to_string();
        assert!(refusal.contains(says), "{}", &refusal[..refusal.len().min(300)]);
    }
}

/// The nearest name costs as much as all names: nobody pays for it where nothing is wrong, nor for what is not told.
#[test]
fn many_labels_are_read_in_no_time_right_or_wrong() {
    let of = |name: &str| -> String {
        (0..20_000).map(|number| format!("  {name}{number}: {{app: web}}\n")).collect()
    };
    let workloads: String = (0..20_000).map(|number| format!("  w{number}: {{tenant: red}}\n")).collect();
    let head = format!(
        "tenants: [red]\nworkloads:\n{workloads}---\ntenant: red\nlabel-keys: {{app: any}}\nlabels:\n"
    );
    let start = std::time::Instant::now();
    compiled(&[&head, &of("w")]);
    assert!(refused(&[&head, &of("v")]).contains("and 19800 more"));
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn deep_nesting_needs_no_deep_stack() {
    let chain: String =
        (0..50_000).map(|number| format!("  g{number}: {{groups: [g{}]}}\n", number + 1)).collect();
    let text = format!(
        "{INVENTORY}groups:\n{chain}  g50000: {{select: {{tenant: red}}}}\npolicies: {{p: {{tier: provider-default, position: 1, rules: [{{name: r, action: allow, within: g0, services: any}}]}}}}\n"
    );
    let policy = compiled(&[&text]);
    says(&policy, "a", "b", "tcp/1", "allow r", "allow r");
}

fn nic(id: &str) -> NicId {
    id.parse().unwrap()
}
