//! The pure heart of policy-sync: documents about groups in, rules of NICs out.
//!
//! The stages in order: `document` (text to intent, every value with its line) → `check` (all that is wrong at once) →
//! `membership` (who is in which group) → `order` (one total order of rules) → `sets` (groups as realms see them) → `expand`
//! (what one NIC carries) → `simplify` (without what never decides). No I/O, no clock, no threads; time is an argument.
//! Never knows a socket, a store or a host.
#![forbid(unsafe_code)]

mod change;
mod check;
mod diagnostic;
mod diff;
mod document;
mod evaluate;
mod expand;
mod explain;
mod form;
mod group;
mod index;
mod intent;
mod inventory;
mod membership;
mod name;
mod nesting;
mod one_sided;
mod order;
mod policy;
mod postings;
mod provenance;
mod ranges;
mod services;
mod sets;
mod shadow;
mod simplify;
mod tags;
mod who;

pub use change::{Change, ChangeError};
pub use diagnostic::{Diagnostic, Place, Refusal, Severity};
pub use diff::{NicDiff, PolicyDiff, RuleChange};
pub use document::{Author, Source};
pub use evaluate::{Decision, Question, decide};
pub use explain::{Answer, EndVerdict};
pub use form::SharedForm;
pub use group::{Condition, Field, Group, Parts, Placed, Selector, Share};
pub use intent::Intent;
pub use inventory::{Key, Nic, Segment, Tag, Tenant, Workload};
pub use name::{
    LONG_NAME_LEN_MAX, NAME_LEN_MAX, Name, NameError, Owner, PROVIDER, REALM_LEN_MAX, Ref, WORKLOAD_LEN_MAX,
};
pub use policy::{Ends, Peer, Peers, Policy, PolicyRule, Service, ServicePart, ServiceUse, Tier, Verb};
pub use provenance::Origin;
pub use sets::SetDelta;
pub use tags::{TagKind, Tagged};
pub use who::GroupMember;

use diagnostic::Findings;

/// A policy that was accepted, and what somebody should look at all the same.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The shared form.
    pub form: SharedForm,
    /// Duplicates, shadowed rules, expired ones, and the like.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks documents.
///
/// # Errors
/// All that is wrong with them, each with file and line; nothing of them is taken then.
pub fn read(sources: &[Source<'_>]) -> Result<Intent, Refusal> {
    let mut findings = Findings::default();
    let mut intent = document::read(sources, &mut findings);
    check::check(&mut intent, &mut findings);
    findings.told(&intent.files)?;
    Ok(intent)
}

/// Compiles a checked intent at `now_ms` (milliseconds since 1970). NICs' generations begin at `first_generation`.
#[must_use]
pub fn compile(intent: Intent, now_ms: i64, first_generation: u64) -> Compiled {
    let mut findings = Findings::default();
    let form = SharedForm::new(intent, now_ms, first_generation, &mut findings);
    shadow::warn(&form, &mut findings);
    one_sided::warn(&form, now_ms, &mut findings);
    let warnings = findings.told(&form.intent.files).unwrap_or_default();
    Compiled { form, warnings }
}
