//! Documents to the rules of every NIC, and which NICs a change is about.
//!
//! Knows the compiler's front door. Never knows which host a NIC is on, nor what it enforces.

use std::collections::BTreeMap;
use std::sync::Arc;

use fw_control::age;
use fw_model::{NicId, RuleSet};
use policy_compiler::{Author, Compiled, Diagnostic, PROVIDER, Refusal, Severity, SharedForm, Source};

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
    let fresh: BTreeMap<NicId, RuleSet> =
        form.nics().filter_map(|nic| Some((nic.clone(), form.rules_of(nic, now_ms)?))).collect();
    let mut step = Step {
        wanted: Wanted { version, nics: BTreeMap::new(), form: Some(Arc::new(form)) },
        changed: Vec::new(),
        gone: Vec::new(),
        warnings,
    };
    step.gone = before.nics.keys().filter(|nic| !fresh.contains_key(*nic)).cloned().collect();
    for (nic, mut rules) in fresh {
        let code = code_of(&rules, now_ms);
        let wanted = match before.nics.get(&nic) {
            Some(wanted) if wanted.code == code => wanted.clone(),
            Some(_) | None => {
                step.changed.push(nic.clone());
                rules.generation = version;
                NicWanted { rules: Arc::new(rules), made_ms: now_ms, code }
            }
        };
        step.wanted.nics.insert(nic, wanted);
    }
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

/// A code over what rules say, whatever their generation and whenever they are made.
fn code_of(rules: &RuleSet, now_ms: i64) -> [u8; 32] {
    let mut said = rules.clone();
    said.generation = 0;
    let now = u64::try_from(now_ms).unwrap_or(0);
    for rule in &mut said.rules {
        rule.expires_in_ms = rule.expires_in_ms.map(|left| left.saturating_add(now));
    }
    let mut hash = blake3::Hasher::new();
    // Writing into a hash does not fail, and rules are plain values.
    let _ = serde_json::to_writer(&mut hash, &said);
    hash.finalize().into()
}

impl NicWanted {
    /// The rules as they are at `now_ms`: what expires has that much less life.
    pub(crate) fn at(&self, now_ms: i64) -> RuleSet {
        let mut rules = RuleSet::clone(&self.rules);
        age(&mut rules, u64::try_from(now_ms.saturating_sub(self.made_ms)).unwrap_or(0));
        rules
    }
}
