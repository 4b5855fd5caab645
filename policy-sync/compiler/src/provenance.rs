//! Where a rule of a NIC comes from: its policy, its name there, and the line.
//!
//! Knows how ids are made. Never knows what a rule does.

use std::fmt;

use fw_model::RuleId;

use crate::form::SharedForm;
use crate::name::{LONG_NAME_LEN_MAX, Name, Owner, PROVIDER, Ref};
use crate::policy::Tier;

/// Where a rule is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Its policy.
    pub policy: Ref,
    /// Its name there.
    pub rule: Name,
    /// The policy's tier.
    pub tier: Tier,
    /// File and line, as `FILE:LINE`.
    pub place: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { policy, rule, tier, place } = self;
        write!(f, "rule {rule} of policy {policy} ({}) at {place}", tier.word())
    }
}

impl SharedForm {
    /// Where the rule that a NIC calls `id` is written; `None` if the policy has none such.
    #[must_use]
    pub fn origin(&self, id: &RuleId) -> Option<Origin> {
        let (text, _) = id.as_str().rsplit_once(':')?;
        let mut parts = text.split('/');
        let (owner, policy, rule) = (parts.next()?, parts.next()?, parts.next()?);
        let owner = if owner == PROVIDER { Owner::Provider } else { Owner::Tenant(owner.parse().ok()?) };
        let policy = Ref { owner, name: Name::limited(policy, LONG_NAME_LEN_MAX).ok()? };
        let found = self.intent.policies.get(&policy)?;
        let written = found.rules.iter().find(|written| written.name.as_str() == rule)?;
        let (rule, place) = (written.name.clone(), self.intent.shown(written.place));
        Some(Origin { policy, rule, tier: found.tier, place })
    }
}
