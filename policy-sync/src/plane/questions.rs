//! Questions to engines: put to the agent of a NIC's host, and waited for.
//!
//! Knows who waits for what. Never knows what an answer means.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fw_model::{Explanation, NicId, Probe};
use tokio::sync::{mpsc, oneshot};

/// How long an engine's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Questions that wait for a slow agent.
const WAITING_MAX: usize = 256;

/// What a NIC's engine is asked.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// The answer bears the same number.
    pub(crate) number: u64,
    /// The NIC.
    pub(crate) nic: NicId,
    /// The frame it is asked about.
    pub(crate) probe: Probe,
}

/// An engine's answer, or why there is none.
pub(crate) type Answered = Result<Explanation, String>;

#[derive(Debug, Default)]
struct Open {
    number: u64,
    /// By host, with the number of its connection.
    agents: BTreeMap<String, (u64, mpsc::Sender<Question>)>,
    /// By number: the host that is asked, and who waits.
    waiting: BTreeMap<u64, (String, oneshot::Sender<Answered>)>,
}

/// Questions that are open.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<Open>);

impl Questions {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An agent connected: what it shall be asked comes here.
    pub(crate) fn connect(&self, host: &str, connection: u64) -> mpsc::Receiver<Question> {
        let (ask, asked) = mpsc::channel(WAITING_MAX);
        self.open().agents.insert(host.to_owned(), (connection, ask));
        asked
    }

    /// A connection ended: nobody waits for its answers any longer.
    pub(crate) fn disconnect(&self, host: &str, connection: u64) {
        let mut open = self.open();
        if open.agents.get(host).is_some_and(|(newest, _)| *newest == connection) {
            open.agents.remove(host);
            open.waiting.retain(|_, (asked, _)| asked != host);
        }
    }

    /// An agent answers; what nobody asked it is not heard.
    pub(crate) fn answered(&self, host: &str, number: u64, answer: Answered) {
        let mut open = self.open();
        if open.waiting.get(&number).is_some_and(|(asked, _)| asked == host)
            && let Some((_, waits)) = open.waiting.remove(&number)
        {
            let _ = waits.send(answer);
        }
    }

    /// Asks the engine of `nic` on `host`.
    pub(crate) async fn ask(&self, host: &str, nic: &NicId, probe: Probe) -> Answered {
        let (tell, told) = oneshot::channel();
        let number = {
            let mut open = self.open();
            open.number += 1;
            let number = open.number;
            let Some((_, agent)) = open.agents.get(host) else {
                return Err("its host's agent is not connected".to_owned());
            };
            if agent.try_send(Question { number, nic: nic.clone(), probe }).is_err() {
                return Err("its host's agent has more questions than it answers".to_owned());
            }
            open.waiting.insert(number, (host.to_owned(), tell));
            number
        };
        let answer = tokio::time::timeout(PATIENCE, told).await;
        self.open().waiting.remove(&number);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err("its host's agent went away".to_owned()),
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}
