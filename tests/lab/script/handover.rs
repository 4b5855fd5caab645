//! A script's conns leave for another script.
//!
//! Knows the engine's verbs of a handover. Never knows how conns travel.

use fw_engine::{Arrival, Trust};
use fw_model::{Adoption, RuleId};

use super::{Implied, Script};

impl Script {
    /// The conns as they leave, and the rules that admitted them.
    #[must_use]
    pub fn export(&self) -> (Vec<Arrival>, Vec<RuleId>) {
        let mut names: Vec<RuleId> = Vec::new();
        let mut leaving = Vec::new();
        self.engine.export(0..self.engine.slots(), self.now, |_, conn, slot| {
            let rule = slot.and_then(|slot| self.engine.rule_id(slot)).map(|id| {
                names.iter().position(|name| name == id).unwrap_or_else(|| {
                    names.push(id.clone());
                    names.len() - 1
                })
            });
            leaving.push(Arrival { conn: *conn, rule });
        });
        (leaving, names)
    }

    /// Conns arrive; what became of them.
    pub fn adopt(&mut self, arrivals: &[Arrival], names: &[RuleId], trust: Trust) -> String {
        self.left.clear();
        let Adoption { kept, judged_again, refused } = self.engine.adopt(arrivals, names, trust, self.now);
        let refused: String = refused.iter().map(|(reason, count)| format!(", {count} {reason}")).collect();
        self.told(format!("kept {kept}, judged again {judged_again}{refused}"), &Implied::default())
    }

    /// The guest is announced.
    pub fn announce(&mut self) -> String {
        self.left.clear();
        self.engine.announce(&mut self.answers);
        self.told(String::new(), &Implied::default())
    }
}
