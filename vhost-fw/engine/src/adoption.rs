//! Conns that arrive from another engine.
//!
//! Each is held to who the NIC is, judged again by the rules in force and by its opener, and only then takes its place.
//! Knows what arrives and the rules. Never knows where it comes from.

use std::hint::black_box;

use fw_model::{Adoption, OnRevoke, Reason, RuleId};

use crate::conntrack::Admitted;
use crate::in_force::InForce;
use crate::portable::{Arrival, PortableConn, Trust};
use crate::revision;
use crate::state::State;
use crate::time::Tick;
use crate::verdict::RuleSlot;

/// Arrivals whose lines are loaded together, so that memory is waited for once.
const TOGETHER: usize = 32;

/// By what an adopted conn lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// By the rule that admitted it before, or by the default still.
    Same,
    /// By another rule, or by what its own says of revoking.
    Other,
}

impl State {
    /// Adopts conns; `names` are the rules that admitted them.
    pub(crate) fn adopt(
        &mut self,
        rules: &InForce,
        arrivals: &[Arrival],
        names: &[RuleId],
        trust: Trust,
        now: Tick,
    ) -> Adoption {
        let mut adoption = Adoption::default();
        self.adopt_each(rules, arrivals, names, trust, now, |_, outcome| match outcome {
            Ok(Home::Same) => adoption.kept += 1,
            Ok(Home::Other) => adoption.judged_again += 1,
            Err(reason) => *adoption.refused.entry(reason).or_default() += 1,
        });
        adoption
    }

    /// Adopts conns and tells of each what became of it.
    pub(crate) fn adopt_each(
        &mut self,
        rules: &InForce,
        arrivals: &[Arrival],
        names: &[RuleId],
        trust: Trust,
        now: Tick,
        mut told: impl FnMut(usize, Result<Home, Reason>),
    ) {
        let slots: Vec<_> = names.iter().map(|id| self.ledger.slot_by_id(id)).collect();
        let mut place = 0;
        for together in arrivals.chunks(TOGETHER) {
            let mut hashes = [0; TOGETHER];
            for (hash, arrival) in hashes.iter_mut().zip(together) {
                *hash = self.table.hash(&arrival.conn.flow);
            }
            // A loop of its own, so that all loads are under way at once.
            for hash in hashes.iter().take(together.len()) {
                black_box(self.table.warm(*hash));
            }
            for (hash, arrival) in hashes.into_iter().zip(together) {
                let held = arrival.rule.and_then(|place| slots.get(place).copied().flatten());
                let outcome = self.adopt_one(rules, &arrival.conn, hash, held, trust, now);
                // A rule that is not known here is another one than the default it now lives by.
                let renamed = arrival.rule.is_some() != held.is_some();
                told(place, outcome.map(|home| if renamed { Home::Other } else { home }));
                place += 1;
            }
        }
    }

    fn adopt_one(
        &mut self,
        rules: &InForce,
        conn: &PortableConn,
        hash: u64,
        held: Option<RuleSlot>,
        trust: Trust,
        now: Tick,
    ) -> Result<Home, Reason> {
        rules.guard().check_conn(&conn.flow, conn.peer_mac)?;
        let held = Admitted {
            rule: held,
            epoch: rules.epoch(),
            on_revoke: conn.on_revoke,
            expected: conn.expected,
            log: false,
        };
        let verdict = revision::readmission(rules, &conn.flow, conn.opener, &held);
        let admitted = match (verdict, held.on_revoke) {
            (Some(admitted), _) => admitted,
            (None, OnRevoke::Keep | OnRevoke::Drain) => held,
            (None, OnRevoke::Kill) => return Err(Reason::Revoked),
        };
        let gone = self.table.adopt(conn, hash, &admitted, trust, now, rules.timers())?;
        if let Some(gone) = gone {
            self.ledger.conn_closed(gone.rule);
        }
        self.ledger.conn_adopted(admitted.rule);
        if verdict.is_none() && held.on_revoke == OnRevoke::Drain {
            self.drain_adopted(conn, hash, &admitted, now);
        }
        Ok(if verdict.is_some_and(|admitted| admitted.rule == held.rule) { Home::Same } else { Home::Other })
    }

    /// No rule allows it any more, and its own said to drain: once.
    fn drain_adopted(&mut self, conn: &PortableConn, hash: u64, admitted: &Admitted, now: Tick) {
        if let Some(id) = self.table.find(&conn.flow, hash, now) {
            self.table.drain(id, now);
            self.table.readmit(id, Admitted { on_revoke: OnRevoke::Keep, ..*admitted });
        }
    }
}
