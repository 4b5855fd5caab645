//! A rule set made ready to be put in force.
//!
//! Everything slow about new rules happens here, away from the frames. Knows a rule set. Never knows a conn, nor
//! what was in force before.

use fw_model::RuleSet;

use crate::guard::Guard;
use crate::matcher::{Matcher, RuleSetError};

/// A rule set made ready: built for looking up, accepted as a whole. Making one may allocate and take long.
#[derive(Debug)]
pub struct PreparedRules {
    pub(crate) matcher: Matcher,
    pub(crate) guard: Guard,
}

impl PreparedRules {
    /// Prepares `rules`, or refuses them as a whole.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place and the remedy: an unknown set, two rules with one id, a
    /// `continue-at` that is missing or not further down, two MAC addresses for one address, fields that contradict
    /// each other.
    pub fn new(rules: RuleSet) -> Result<Self, RuleSetError> {
        let guard = Guard::new(&rules);
        Ok(Self { matcher: Matcher::new(rules)?, guard })
    }

    /// Everything that is wrong with `rules`; empty if they would be accepted.
    #[must_use]
    pub fn check(rules: &RuleSet) -> Vec<RuleSetError> {
        Matcher::check(rules)
    }

    /// The rules as they were written.
    #[must_use]
    pub fn rules(&self) -> &RuleSet {
        self.matcher.rules()
    }
}
