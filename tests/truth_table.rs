//! Generated policies, every pair and service: what the second, stupid reader of the intent says is what the compiled rules
//! say, simplified or not, and what real engines with these rules say. And a change made piece by piece ends where a whole
//! compilation of the changed policy ends.
#![cfg(test)]

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_engine::{Engine, PreparedRules, Tick};
use fw_model::{
    Addr, AddressSet, DefaultAction, Direction, NicId, Probe, Protocol, Reason, RuleId, RuleSet, SetName,
    VerdictName,
};
use fw_tests::policy::{model, random};
use fw_tests::random::Random;
use fw_tests::script::CONFIG;
use fw_tests::suite::Size;
use policy_compiler::{
    Author, Change, Intent, Name, Owner, Question, SharedForm, Source, Tag, Verb, compile, decide, read,
};

/// Addresses nobody of ours holds.
const STRANGERS: [&str; 4] = ["198.51.100.7", "198.51.100.200", "203.0.113.9", "2001:db8::99"];

fn policies() -> u64 {
    match Size::asked() {
        Size::Fast => 40,
        Size::Whole => 150,
        Size::Long => 3_000,
    }
}

fn intent_of(text: &str) -> Intent {
    read(&[Source { name: "random.yaml", text, author: Author::Provider }])
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Protocol, port, ICMP type and code.
type Service = (u8, u16, Option<(u8, u8)>);

fn services(is_v4: bool) -> Vec<Service> {
    let echo = if is_v4 { (1, 0, Some((8, 0))) } else { (58, 0, Some((128, 0))) };
    let mut services = vec![(17, 53, None), (47, 0, None), echo];
    services.extend([22, 53, 80, 1_000, 8_005, 9_005, 40_000].map(|port| (6, port, None)));
    services
}

fn questions(own: Addr, remotes: &[Addr]) -> Vec<Question> {
    let mut questions = Vec::new();
    for remote in remotes.iter().filter(|remote| remote.is_v4() == own.is_v4() && **remote != own) {
        for direction in [Direction::Out, Direction::In] {
            for (protocol, port, icmp) in services(own.is_v4()) {
                questions.push(Question { direction, remote: *remote, protocol, port, icmp });
            }
        }
    }
    questions
}

fn engine(rules: RuleSet) -> Engine {
    let mut engine = Engine::new(CONFIG);
    let prepared =
        PreparedRules::new(rules).unwrap_or_else(|error| panic!("a NIC refuses the rules: {error}"));
    engine.install(Arc::new(prepared), Tick(0));
    engine
}

fn asked(engine: &Engine, own: Addr, question: &Question) -> (DefaultAction, Option<RuleId>) {
    let (source, destination) = match question.direction {
        Direction::Out => (own, question.remote),
        Direction::In => (question.remote, own),
    };
    let probe = Probe {
        direction: question.direction,
        protocol: Protocol(question.protocol),
        source,
        source_port: 0,
        destination,
        destination_port: question.port,
    };
    let explained = engine.explain(&probe, Tick(0));
    let action = match explained.verdict {
        VerdictName::Pass => DefaultAction::Allow,
        VerdictName::Reject => DefaultAction::Reject,
        VerdictName::Drop | VerdictName::Hold => DefaultAction::Drop,
    };
    assert!(
        matches!(explained.reason, Reason::New | Reason::RuleDrop | Reason::RuleReject | Reason::DefaultDrop),
        "not the rules decided: {explained:?} of {probe:?}"
    );
    (action, explained.rule)
}

#[test]
fn what_the_intent_means_is_what_engines_do() {
    let mut asked_in_all = 0_u64;
    let mut verdicts: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..policies() {
        let mut random = Random::new(seed);
        let text = random::policy(&mut random);
        let intent = intent_of(&text);
        let form = compile(intent.clone(), 0, 1).form;
        for (name, workload) in &intent.workloads {
            for nic in &workload.nics {
                let realm = &intent.segments[&nic.segment].realm;
                let addresses = model::hosts(&nic.identity.addresses);
                let end = model::End { intent: &intent, name, workload, realm, addresses: &addresses };
                let rules = form.rules_of(&nic.identity.id, 0).unwrap();
                let whole = form.whole_rules_of(&nic.identity.id, 0).unwrap();
                let engine = engine(rules.clone());
                let remotes = remotes(&intent, realm, &addresses);
                for (own, question) in
                    addresses.iter().flat_map(|own| questions(*own, &remotes).into_iter().map(|q| (*own, q)))
                {
                    let meant = end.verdict(&question);
                    let compiled = decide(&rules, &question);
                    let (action, rule) = asked(&engine, own, &question);
                    let told = |what: &str| {
                        format!("seed {seed}, NIC {}, {question:?}: {what}\n{text}", nic.identity.id)
                    };
                    assert_eq!(
                        action_of(meant.verb),
                        compiled.action,
                        "{}",
                        told("model and compiler disagree")
                    );
                    assert_eq!(
                        meant.rule,
                        compiled.rule.as_ref().and_then(written),
                        "{}",
                        told("rules differ")
                    );
                    let unsimplified = decide(&whole, &question);
                    assert_eq!(
                        (compiled.action, compiled.rule.as_ref().and_then(written)),
                        (unsimplified.action, unsimplified.rule.as_ref().and_then(written)),
                        "{}",
                        told("simplifying changed a verdict")
                    );
                    assert_eq!(
                        (compiled.action, compiled.rule),
                        (action, rule),
                        "{}",
                        told("engine and compiler disagree")
                    );
                    asked_in_all += 1;
                    *verdicts.entry(meant.verb.word()).or_default() += 1;
                }
            }
        }
    }
    assert!(
        verdicts.len() == 3 && verdicts.values().all(|count| *count > asked_in_all / 50),
        "a dull lot: {verdicts:?}"
    );
}

/// The rule of the policy behind a NIC's rule id.
fn written(id: &RuleId) -> Option<String> {
    let (text, _) = id.as_str().rsplit_once(':')?;
    (text != "provider-default").then(|| text.to_owned())
}

fn action_of(verb: Verb) -> DefaultAction {
    match verb {
        Verb::Allow => DefaultAction::Allow,
        Verb::Reject => DefaultAction::Reject,
        Verb::Drop | Verb::Pass => DefaultAction::Drop,
    }
}

fn remotes(intent: &Intent, realm: &Name, own: &[Addr]) -> Vec<Addr> {
    let nics = intent.workloads.values().flat_map(|workload| &workload.nics);
    let of_realm = nics.filter(|nic| intent.segments[&nic.segment].realm == *realm);
    let mut remotes: Vec<Addr> = of_realm.flat_map(|nic| model::hosts(&nic.identity.addresses)).collect();
    remotes.retain(|address| !own.contains(address));
    remotes.extend(STRANGERS.iter().map(|text| text.parse::<Addr>().unwrap()));
    remotes
}

type Sets = BTreeMap<SetName, Arc<AddressSet>>;

fn sets_of(form: &SharedForm) -> Sets {
    form.sets().map(|(name, set)| (name.clone(), Arc::clone(set))).collect()
}

fn views(form: &SharedForm) -> BTreeMap<NicId, RuleSet> {
    form.nics().map(|nic| (nic.clone(), form.rules_of(nic, 0).unwrap())).collect()
}

fn without_generation(rules: &RuleSet) -> RuleSet {
    RuleSet { generation: 0, ..rules.clone() }
}

/// One random change, made in the form and in the intent.
fn change(random: &mut Random, form: &mut SharedForm, intent: &mut Intent) -> Change {
    let names: Vec<Name> = intent.workloads.keys().cloned().collect();
    let name = random.one_of(&names).clone();
    let tenant = intent.workloads[&name].tenant.clone();
    let owner = Owner::Tenant(tenant.clone());
    let name_of = |text: &str| text.parse::<Name>().unwrap();
    let tag = |intent: &Intent, value: &str| {
        let place = intent.workloads[&name].place;
        Tag { value: value.parse().unwrap(), author: Owner::Provider, place }
    };
    match random.below(4) {
        0 => {
            let (key, value) =
                *random.one_of(&[("app", "web"), ("app", "db"), ("env", "prod"), ("env", "test")]);
            let gone = random.once_in(3);
            let new = tag(intent, value);
            let labels = &mut intent.workloads.get_mut(&name).unwrap().labels;
            if gone {
                labels.remove(key)
            } else {
                labels.insert(name_of(key), new)
            };
            form.set_label(&name, &name_of(key), (!gone).then(|| name_of(value)), &owner).unwrap()
        }
        1 => {
            let value = *random.one_of(&["yes", "no"]);
            let new = tag(intent, value);
            intent.workloads.get_mut(&name).unwrap().facts.insert(name_of("infected"), new);
            form.set_fact(&name, &name_of("infected"), Some(name_of(value))).unwrap()
        }
        2 => {
            let group = random.one_of(&["two", "range", "one"]);
            let group = policy_compiler::Ref { owner, name: name_of(group) };
            let is_member = random.once_in(2);
            let members = &mut intent.groups.get_mut(&group).unwrap().include.members;
            members.retain(|member| member.value != name);
            if is_member {
                let place = intent.workloads[&name].place;
                members.push(policy_compiler::Placed { value: name.clone(), place });
            }
            form.set_member(&group, &name, is_member).unwrap()
        }
        _ => {
            let number = 20 + random.below(200);
            let mut addresses = vec![format!("10.0.0.{number}").parse().unwrap()];
            if random.once_in(2) {
                addresses.push(format!("2001:db8::{number}").parse().unwrap());
            }
            let nic = &mut intent.workloads.get_mut(&name).unwrap().nics[0];
            match form.set_addresses(&nic.identity.id, addresses.clone()) {
                Ok(change) => {
                    nic.identity.addresses = addresses;
                    change
                }
                Err(_) => Change { epoch: u64::MAX, ..Change::default() },
            }
        }
    }
}

#[test]
fn pieces_come_to_what_the_whole_comes_to() {
    for seed in 0..policies() / 3 {
        let mut random = Random::new(seed ^ 0xabcd);
        let text = random::policy(&mut random);
        let mut intent = intent_of(&text);
        let mut form = compile(intent.clone(), 0, 1).form;
        for step in 0..20 {
            let (before, sets_before) = (views(&form), sets_of(&form));
            let change = change(&mut random, &mut form, &mut intent);
            if change.epoch == u64::MAX {
                continue;
            }
            let told = |what: &str| format!("seed {seed}, step {step}: {what}: {change:?}\n{text}");
            let whole = compile(intent.clone(), 0, 1).form;
            let (after, fresh) = (views(&form), views(&whole));
            for (nic, rules) in &after {
                assert_eq!(
                    without_generation(rules),
                    without_generation(&fresh[nic]),
                    "{}",
                    told("pieces and whole differ")
                );
                let is_same = without_generation(rules) == without_generation(&before[nic]);
                let (was, is) = (before[nic].generation, rules.generation);
                assert!(
                    if is_same { is == was } else { is > was },
                    "{}",
                    told(&format!("generation of {nic}: {was} then {is}, same view: {is_same}"))
                );
                assert_eq!(form.affected(&change).contains(nic), !is_same, "{}", told("affected"));
            }
            let mut applied = sets_before;
            for delta in &change.sets {
                let empty = || Arc::new(AddressSet { members: Vec::new() });
                let members =
                    &mut Arc::make_mut(applied.entry(delta.set.clone()).or_insert_with(empty)).members;
                members.retain(|member| !delta.removed.contains(member));
                members.extend(&delta.added);
                members.sort_unstable();
            }
            for (name, set) in sets_of(&form) {
                let held = applied.get(&name).map(|set| set.members.clone()).unwrap_or_default();
                assert_eq!(held, set.members, "{}", told(&format!("deltas of {name}")));
            }
        }
    }
}

#[test]
fn a_replaced_policy_raises_the_generations_of_those_that_see_it() {
    for seed in 0..policies() / 3 {
        let (first, second) =
            (random::policy(&mut Random::new(seed)), random::policy(&mut Random::new(seed + 1)));
        let mut form = compile(intent_of(&first), 0, 1).form;
        let before = views(&form);
        let (nothing, _) = form.replace(intent_of(&first), 0);
        assert!(nothing.is_empty(), "seed {seed}: the same policy changed {nothing:?}");
        assert_eq!(views(&form), before);
        let (change, _) = form.replace(intent_of(&second), 0);
        let fresh = views(&compile(intent_of(&second), 0, 1).form);
        for (nic, rules) in views(&form) {
            assert_eq!(without_generation(&rules), without_generation(&fresh[&nic]), "seed {seed}");
            let is_same = without_generation(&rules) == without_generation(&before[&nic]);
            assert_eq!(rules.generation > before[&nic].generation, !is_same, "seed {seed}: {nic} {change:?}");
        }
    }
}
