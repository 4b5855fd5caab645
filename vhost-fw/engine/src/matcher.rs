//! The rules, built for looking up: first match decides.
//!
//! Knows addresses, protocols, ports and sets. Never knows conns, nor what a match leads to.

mod bitmaps;
mod check;
mod lines;
mod prefix;
mod remotes;
mod spans;

use std::collections::BTreeMap;

use fw_model::{Action, Addr, DefaultAction, Direction, Protocol, Rule, RuleId, RuleSet};

use bitmaps::{Bitmap, Bitmaps, Growing, TooLarge};
use lines::Lines;
use prefix::Owners;
use remotes::Remotes;

/// A rule set made ready for looking up. Building one is slow and may allocate; it is done away from the frames.
///
/// A question's protocol and port lead to one bitmap of rules, its remote address to a few more; the lowest place
/// they share is the first match. Neither step depends on how many rules there are, only on how many 4,096-rule
/// blocks and on how many differently used address sets hold the address.
#[derive(Debug)]
pub(crate) struct Matcher {
    rules: RuleSet,
    lines: Lines,
    remotes: Remotes,
    bitmaps: Bitmaps,
    /// By place: where a rule that passes on goes on.
    continues_at: Vec<Option<usize>>,
}

/// Why a rule set is refused as a whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct RuleSetError {
    /// The rule, set or field that is wrong.
    pub place: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// A first frame, as rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Question {
    Ip {
        direction: Direction,
        remote: Addr,
        protocol: Protocol,
        /// Destination port of TCP and UDP; 0 otherwise.
        port: u16,
        /// ICMP's and `ICMPv6`'s type and code.
        icmp: Option<(u8, u8)>,
    },
    Ethertype {
        direction: Direction,
        ethertype: u16,
    },
}

/// What the rules say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Match {
    /// The rule at this place decides; its action is never `pass`.
    Rule(usize),
    /// No rule matches.
    Default(DefaultAction),
}

impl Matcher {
    /// Builds a rule set for looking up, or says why it is refused: all that [`Matcher::check`] finds, and rules
    /// whose ports overlap so much that their tables would pass 256 MiB.
    ///
    /// # Errors
    /// The first thing wrong, with its place and the remedy.
    pub(crate) fn new(rules: RuleSet) -> Result<Self, RuleSetError> {
        if let Some(first) = Self::check(&rules).into_iter().next() {
            return Err(first);
        }
        let mut bitmaps = Growing::new(rules.rules.len());
        let (lines, remotes) = tables(&rules, &mut bitmaps).map_err(|TooLarge| too_large())?;
        let continues_at = continues_at(&rules.rules);
        Ok(Self { rules, lines, remotes, bitmaps: bitmaps.finish(), continues_at })
    }

    /// Everything that is wrong with a rule set, 100 findings at most: unknown sets, a `continue-at` that is missing
    /// or not further down, two rules with one id, two MAC addresses for one address, contradictory fields, more of
    /// something than there may be.
    #[must_use]
    pub(crate) fn check(rules: &RuleSet) -> Vec<RuleSetError> {
        check::check(rules)
    }

    /// The rule set it was built from.
    #[must_use]
    pub(crate) const fn rules(&self) -> &RuleSet {
        &self.rules
    }

    pub(crate) fn rule(&self, place: usize) -> Option<&Rule> {
        self.rules.rules.get(place)
    }

    /// First match, leaving out the rules whose bits are set in `expired` (bit `place % 64` of word `place / 64`;
    /// may be shorter than the rules).
    pub(crate) fn first_match(&self, question: &Question, expired: &[u64]) -> Match {
        let (direction, remote) = match *question {
            Question::Ip { direction, remote, .. } => (direction, Some(remote)),
            Question::Ethertype { direction, .. } => (direction, None),
        };
        let asked = self.lines.asked(question);
        if asked == Bitmap::EMPTY {
            return self.default_of(direction);
        }
        let found = remote.map(|remote| self.remotes.find(remote));
        let mut start = 0;
        // Ends, because a rule goes on further down than it stands.
        while let Some(place) = self.first_from(start, asked, found, expired) {
            match self.continues_at.get(place) {
                Some(Some(further)) => start = *further,
                Some(None) | None => return Match::Rule(place),
            }
        }
        self.default_of(direction)
    }

    /// Whether the rule at `place` lets `remote` answer what it allowed (`reply-from`).
    pub(crate) fn may_answer(&self, place: usize, remote: Addr) -> bool {
        self.remotes.may_answer(place, remote)
    }

    fn first_from(
        &self,
        start: usize,
        asked: Bitmap,
        found: Option<Owners>,
        expired: &[u64],
    ) -> Option<usize> {
        let end = self.rules.rules.len();
        let mut first = self.bitmaps.first_common(asked, self.remotes.anyone(), start..end, expired);
        for naming in found.into_iter().flat_map(|found| self.remotes.naming(found)) {
            let earlier = self.bitmaps.first_common(asked, naming, start..first.unwrap_or(end), expired);
            first = earlier.or(first);
        }
        first
    }

    const fn default_of(&self, direction: Direction) -> Match {
        Match::Default(match direction {
            Direction::Out => self.rules.defaults.out,
            Direction::In => self.rules.defaults.in_,
        })
    }
}

fn tables(rules: &RuleSet, bitmaps: &mut Growing) -> Result<(Lines, Remotes), TooLarge> {
    Ok((Lines::new(&rules.rules, bitmaps)?, Remotes::new(rules, bitmaps)?))
}

fn too_large() -> RuleSetError {
    RuleSetError {
        place: "rules".to_owned(),
        message: format!(
            "their ports overlap so much that looking them up would take more than {} MiB; use fewer rules or fewer \
             different ranges of ports",
            bitmaps::BYTES_MAX >> 20
        ),
    }
}

fn continues_at(rules: &[Rule]) -> Vec<Option<usize>> {
    let places: BTreeMap<&RuleId, usize> =
        rules.iter().enumerate().map(|(place, rule)| (&rule.id, place)).collect();
    let target = |rule: &Rule| match &rule.action {
        Action::Pass(id) => places.get(id).copied(),
        Action::Allow | Action::Drop | Action::Reject => None,
    };
    rules.iter().map(target).collect()
}

#[cfg(test)]
mod tests;
