//! The decision log: refusals, and what rules want logged, as JSON lines.
//!
//! The data thread asks for leave and hands over; formatting and writing happen on a thread of their own. Knows
//! decisions and a file. Never knows rules, and never makes a frame wait.

mod headline;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use fw_model::{By, Direction, NicId, Reason, RuleId, VerdictName};
use serde::Serialize;

use crate::decision::{Decision, Observer};
use crate::hex;
use headline::Headline;

/// Lines per second and reason: one noisy reason does not hide another.
const LINES_PER_S: u8 = 10;

/// Decisions that wait for the writer.
const WAITING_MAX: usize = 1024;

/// The data thread's end of the decision log.
#[derive(Debug)]
pub struct DecisionLog {
    sender: SyncSender<Decision>,
    second: u64,
    left: [u8; Reason::ALL.len()],
    lost: Arc<AtomicU64>,
}

impl DecisionLog {
    /// A log of `nic`'s decisions, and the thread that writes it to `out`. The thread ends with the log.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn start(nic: NicId, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let unwritten = Arc::clone(&lost);
        let writer = thread::Builder::new().name("decision-log".to_owned());
        writer.spawn(move || write_all(&nic, &receiver, out, &unwritten))?;
        Ok(Self { sender, second: 0, left: [LINES_PER_S; Reason::ALL.len()], lost })
    }

    fn wants_at(&mut self, reason: Reason, second: u64) -> bool {
        if self.second != second {
            self.second = second;
            self.left = [LINES_PER_S; Reason::ALL.len()];
        }
        if let Some(left) = self.left.get_mut(reason.index()).filter(|left| **left > 0) {
            *left -= 1;
            return true;
        }
        self.lose();
        false
    }

    fn lose(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }
}

impl Observer for DecisionLog {
    fn wants(&mut self, reason: Reason) -> bool {
        self.wants_at(reason, since_epoch_ms() / 1000)
    }

    fn decided(&mut self, decision: &Decision) {
        if self.sender.try_send(decision.clone()).is_err() {
            self.lose();
        }
    }

    fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// One line; the time is the writer's, who follows within moments.
#[derive(Debug, Serialize)]
struct Line<'a> {
    time_ms: u64,
    nic: &'a str,
    dir: Direction,
    verdict: VerdictName,
    reason: Reason,
    by: By,
    rule: Option<&'a RuleId>,
    #[serde(flatten)]
    headline: Headline,
    len: usize,
    head: String,
}

fn write_all(nic: &NicId, decisions: &Receiver<Decision>, mut out: impl Write, lost: &AtomicU64) {
    for decision in decisions {
        let head = decision.head.get(..decision.head_len).unwrap_or(&decision.head);
        let line = Line {
            time_ms: since_epoch_ms(),
            nic: nic.as_str(),
            dir: decision.direction,
            verdict: decision.verdict,
            reason: decision.reason,
            by: decision.by,
            rule: decision.rule.as_ref(),
            headline: Headline::read(head),
            len: decision.length,
            head: hex::encode(head),
        };
        let written = serde_json::to_vec(&line).map_err(std::io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            out.write_all(&line)
        });
        if written.is_err() {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn since_epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
