//! What the data thread tells an onlooker of one verdict.
//!
//! Knows verdicts and a frame's first bytes. Never knows where they are written, nor waits for it.

use fw_model::{By, Direction, Reason, RuleId, VerdictName};

/// Bytes of a frame that a [`Decision`] shows.
pub const SHOWN_LEN: usize = 64;

/// One verdict, with enough of the frame to say what it was about.
#[derive(Debug, Clone)]
pub struct Decision {
    /// Which way the frame went.
    pub direction: Direction,
    /// What happened to it.
    pub verdict: VerdictName,
    /// Why.
    pub reason: Reason,
    /// Who decided.
    pub by: By,
    /// The rule that admitted or refused it.
    pub rule: Option<RuleId>,
    /// Its first bytes, zeros behind them.
    pub head: [u8; SHOWN_LEN],
    /// How many of `head` are the frame's.
    pub head_len: usize,
    /// Its whole length in bytes.
    pub length: usize,
}

/// Sees the verdicts that are refusals, and those a rule wants logged. It runs on the data thread: it must not
/// block, and what it cannot take it counts as lost.
pub trait Observer: Send {
    /// Whether a decision with this reason would be taken just now. Asked before one is put together.
    fn wants(&mut self, reason: Reason) -> bool;

    /// Takes a decision.
    fn decided(&mut self, decision: &Decision);

    /// How many decisions were not taken, or taken and not written.
    fn lost(&self) -> u64;
}
