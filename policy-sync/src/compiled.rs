//! Documents to the rules of every NIC, and which NICs a change is about.
//!
//! Knows the compiler's front door. Never knows which host a NIC is on, nor what it enforces.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fw_control::age;
use fw_model::{AddressSet, NicId, RuleSet, SetName};
use policy_compiler::{
    Author, Change, ChangeError, Compiled, Diagnostic, PROVIDER, Refusal, Severity, SharedForm, Source,
};
use serde::Serialize;

use crate::store::{Documents, Generations};

/// The rules of one NIC, as they shall be.
#[derive(Debug, Clone)]
pub(crate) struct NicWanted {
    /// Its rules; the generation is the version of the policy in which they last changed.
    pub(crate) rules: Arc<RuleSet>,
    /// When they were made, milliseconds since 1970: what expires has been ageing since.
    pub(crate) made_ms: i64,
    /// A code over what they say.
    pub(crate) code: [u8; 32],
    /// A code over what they say, whoever is in their sets.
    said: blake3::Hash,
}

/// The rules of every NIC.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// The version of the policy.
    pub(crate) version: u64,
    /// By NIC.
    pub(crate) nics: BTreeMap<NicId, NicWanted>,
    /// What they were made of; absent before the first policy.
    pub(crate) form: Option<Arc<SharedForm>>,
}

/// A policy that was accepted, and what it changes.
#[derive(Debug)]
pub(crate) struct Step {
    /// The rules of every NIC.
    pub(crate) wanted: Wanted,
    /// NICs whose rules change.
    pub(crate) changed: Vec<NicId>,
    /// NICs that the policy knows no more.
    pub(crate) gone: Vec<NicId>,
    /// What somebody should look at.
    pub(crate) warnings: Vec<Diagnostic>,
}

/// Compiles `documents` as version `version`, after `before`.
pub(crate) fn compile(
    documents: &Documents,
    version: u64,
    before: &Wanted,
    now_ms: i64,
) -> Result<Step, Refusal> {
    let Compiled { form, warnings } = read(documents, now_ms)?;
    let mut step = Step {
        wanted: Wanted { version, nics: BTreeMap::new(), form: None },
        changed: Vec::new(),
        gone: before.nics.keys().filter(|nic| !form.has(nic)).cloned().collect(),
        warnings,
    };
    let mut sets = SetCodes::default();
    for nic in form.nics() {
        if let Some(rules) = form.rules_of(nic, now_ms) {
            step.take(nic, rules, before, &mut sets, now_ms);
        }
    }
    step.wanted.form = Some(Arc::new(form));
    Ok(step)
}

/// What one label or fact changes: only NICs that see a difference are looked at.
pub(crate) fn retag(
    before: &Wanted,
    form: &SharedForm,
    version: u64,
    now_ms: i64,
    change: impl FnOnce(&mut SharedForm) -> Result<Change, ChangeError>,
) -> Result<Step, ChangeError> {
    let mut form = form.clone();
    let change = change(&mut form)?;
    let changed: BTreeSet<&SetName> = change.sets.iter().map(|delta| &delta.set).collect();
    let mut step = Step {
        wanted: Wanted { version, nics: before.nics.clone(), form: None },
        changed: Vec::new(),
        gone: Vec::new(),
        warnings: Vec::new(),
    };
    let mut sets = SetCodes::default();
    for (nic, wanted) in &before.nics {
        if change.nics.contains(nic) {
            if let Some(rules) = form.rules_of(nic, now_ms) {
                step.take(nic, rules, before, &mut sets, now_ms);
            }
        } else if wanted.rules.address_sets.keys().any(|name| changed.contains(&whole_of(name))) {
            let mut next = wanted.clone();
            let rules = Arc::make_mut(&mut next.rules);
            for (name, set) in
                rules.address_sets.iter_mut().filter(|(name, _)| changed.contains(&whole_of(name)))
            {
                *set = sets.shared(name, || form.set(name));
            }
            next.code = sets.code_of(next.said, rules);
            rules.generation = version;
            if next.code != wanted.code {
                step.changed.push(nic.clone());
                step.wanted.nics.insert(nic.clone(), next);
            }
        }
    }
    step.wanted.form = Some(Arc::new(form));
    Ok(step)
}

/// Compiles what was kept, with the generations that NICs were given then. What this program compiles otherwise than
/// the one that kept it counts as changed.
pub(crate) fn recompile(
    documents: &Documents,
    version: u64,
    kept: &Generations,
    now_ms: i64,
) -> Result<Step, Refusal> {
    let mut step = compile(documents, version, &Wanted::default(), now_ms)?;
    let known = |nic: &NicId, wanted: &NicWanted| {
        kept.get(nic.as_str()).filter(|(_, code)| *code == wanted.code).map(|(generation, _)| *generation)
    };
    for (nic, wanted) in &mut step.wanted.nics {
        if let Some(generation) = known(nic, wanted) {
            Arc::make_mut(&mut wanted.rules).generation = generation;
            step.changed.retain(|changed| changed != nic);
        }
    }
    Ok(step)
}

fn read(documents: &Documents, now_ms: i64) -> Result<Compiled, Refusal> {
    let names: Vec<String> = documents.keys().map(|key| format!("{}/{}", key.owner, key.name)).collect();
    let sources: Result<Vec<Source<'_>>, Refusal> = documents
        .iter()
        .zip(&names)
        .map(|((key, text), name)| Ok(Source { name, text, author: author(&key.owner)? }))
        .collect();
    Ok(policy_compiler::compile(policy_compiler::read(&sources?)?, now_ms, 1))
}

fn author(owner: &str) -> Result<Author, Refusal> {
    if owner == PROVIDER {
        return Ok(Author::Provider);
    }
    owner.parse().map(Author::Tenant).map_err(|error: policy_compiler::NameError| Refusal {
        diagnostics: vec![Diagnostic {
            file: owner.into(),
            line: 1,
            severity: Severity::Error,
            message: error.to_string(),
        }],
        more: 0,
    })
}

impl Step {
    /// What a NIC gets, if it is news: else it keeps what it has, generation and all.
    fn take(&mut self, nic: &NicId, mut rules: RuleSet, before: &Wanted, sets: &mut SetCodes, now_ms: i64) {
        for (name, set) in &mut rules.address_sets {
            *set = sets.shared(name, || Arc::clone(set));
        }
        let said = said(&rules, now_ms);
        let code = sets.code_of(said, &rules);
        let wanted = match before.nics.get(nic) {
            Some(wanted) if wanted.code == code => wanted.clone(),
            Some(_) | None => {
                self.changed.push(nic.clone());
                rules.generation = self.wanted.version;
                NicWanted { rules: Arc::new(rules), made_ms: now_ms, code, said }
            }
        };
        self.wanted.nics.insert(nic.clone(), wanted);
    }
}

/// Sets by name, each held and coded once for all NICs that name it: a name means one set in one policy.
#[derive(Debug, Default)]
struct SetCodes(BTreeMap<SetName, (Arc<AddressSet>, blake3::Hash)>);

impl SetCodes {
    fn shared(&mut self, name: &SetName, set: impl FnOnce() -> Arc<AddressSet>) -> Arc<AddressSet> {
        let known = self.0.entry(name.clone()).or_insert_with(|| {
            let set = set();
            let code = code_of_set(&set);
            (set, code)
        });
        Arc::clone(&known.0)
    }

    /// A code over rules of which `said` is the code without what their sets hold.
    fn code_of(&mut self, said: blake3::Hash, rules: &RuleSet) -> [u8; 32] {
        let mut hash = blake3::Hasher::new();
        hash.update(said.as_bytes());
        for (name, set) in &rules.address_sets {
            self.shared(name, || Arc::clone(set));
            if let Some((_, code)) = self.0.get(name) {
                hash.update(code.as_bytes());
            }
        }
        hash.finalize().into()
    }
}

/// Whoever is in it, in whatever order they came.
fn code_of_set(set: &AddressSet) -> blake3::Hash {
    let mut members = set.members.clone();
    members.sort_unstable();
    coded(&members)
}

/// A code over what rules say, whatever their generation and whenever they are made; of sets, the names alone.
fn said(rules: &RuleSet, now_ms: i64) -> blake3::Hash {
    let mut said = rules.clone();
    let names: Vec<SetName> = std::mem::take(&mut said.address_sets).into_keys().collect();
    said.generation = 0;
    let now = u64::try_from(now_ms).unwrap_or(0);
    for rule in &mut said.rules {
        rule.expires_in_ms = rule.expires_in_ms.map(|left| left.saturating_add(now));
    }
    coded(&(said, names))
}

fn coded(value: &impl Serialize) -> blake3::Hash {
    let mut hash = blake3::Hasher::new();
    // Writing into a hash does not fail, and these are plain values.
    let _ = serde_json::to_writer(&mut hash, value);
    hash.finalize()
}

/// The set of which `name` is all, or the addresses of one family.
fn whole_of(name: &SetName) -> SetName {
    let text = name.to_string();
    let whole = text.strip_suffix("/4").or_else(|| text.strip_suffix("/6"));
    whole.and_then(|whole| whole.parse().ok()).unwrap_or_else(|| name.clone())
}

impl NicWanted {
    /// The rules as they are at `now_ms`: what expires has that much less life.
    pub(crate) fn at(&self, now_ms: i64) -> RuleSet {
        let mut rules = RuleSet::clone(&self.rules);
        age(&mut rules, u64::try_from(now_ms.saturating_sub(self.made_ms)).unwrap_or(0));
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Key;

    const PROVIDER_TEXT: &str = r#"
tenants: [shop]
fact-keys: {infected: ["no", "yes"], risk: [low, high]}
segments: {front: {tenant: shop, realm: shop}}
groups:
  sick: {select: {fact.infected: "yes"}}
  risky: {select: {fact.risk: high}, groups: [sick], exclude: {members: [n3]}}
  wide: {ranges: [10.0.0.0/24], exclude: {groups: [risky]}}
policies:
  q: {tier: provider-emergency, position: 1, rules: [{name: a, action: drop, from: sick, to: any, services: any}, {name: b, action: drop, from: risky, to: wide, services: tcp/1}]}
  w: {tier: provider-default, position: 1, rules: [{name: a, action: allow, from: wide, to: wide, services: tcp/2}, {name: b, action: allow, from: any, to: risky, services: udp/3}]}
workloads:
"#;

    fn documents(facts: &BTreeMap<(usize, &str), &str>) -> Documents {
        let mut text = PROVIDER_TEXT.to_owned();
        for nic in 0..6 {
            let of = facts.iter().filter(|((workload, _), _)| *workload == nic);
            let facts: Vec<String> = of.map(|((_, key), value)| format!("{key}: \"{value}\"")).collect();
            text.push_str(&format!(
                "  n{nic}: {{tenant: shop, facts: {{{}}}, nics: [{{id: n{nic}, segment: front, mac: \"52:54:00:00:00:{nic:02x}\", addresses: [10.0.0.{}, \"fd00::{nic}\"]}}]}}\n",
                facts.join(", "),
                nic + 1
            ));
        }
        [(Key { owner: PROVIDER.to_owned(), name: "all".to_owned() }, text)].into()
    }

    #[test]
    fn one_fact_after_another_comes_to_what_the_whole_policy_comes_to() {
        let mut facts = BTreeMap::new();
        let mut now = compile(&documents(&facts), 1, &Wanted::default(), 0).unwrap().wanted;
        let mut random = 1_u32;
        for version in 2..120 {
            random = random.wrapping_mul(1_103_515_245).wrapping_add(12345);
            let draw = usize::try_from(random >> 16).unwrap();
            let (workload, key) = (draw % 6, if draw % 2 == 0 { "infected" } else { "risk" });
            let value = match (draw / 12 % 3, key) {
                (0, _) => None,
                (1, "risk") => Some("high"),
                (_, "risk") => Some("low"),
                (1, _) => Some("yes"),
                _ => Some("no"),
            };
            match value {
                Some(value) => facts.insert((workload, key), value),
                None => facts.remove(&(workload, key)),
            };
            let form = Arc::clone(now.form.as_ref().unwrap());
            let step = retag(&now, &form, version, 0, |form| {
                let name = format!("n{workload}").parse().unwrap();
                form.set_fact(&name, &key.parse().unwrap(), value.map(|value| value.parse().unwrap()))
            });
            let step = step.unwrap();
            let whole = compile(&documents(&facts), version, &now, 0).unwrap();
            assert_eq!(step.changed, whole.changed, "{workload} {key} {value:?}");
            for (nic, shall) in &whole.wanted.nics {
                let has = &step.wanted.nics[nic];
                assert_eq!((has.code, has.rules.generation), (shall.code, shall.rules.generation), "{nic}");
                assert_eq!(has.rules.rules, shall.rules.rules);
            }
            now = step.wanted;
        }
    }
}
