//! What serve wants to know of this host's engines: each is asked on its control socket, and its answer goes back as it came.
//!
//! Knows control sockets. Never answers in an engine's place.

use std::path::{Path, PathBuf};

use fw_control::control_in;
use fw_model::{Explanation, NicId};
use tokio::sync::broadcast;

use super::nic::explain;
use crate::link::wire::{Answered, Question, Report, report};

/// Asks, and reports the answer. What was started ends by itself.
pub(super) fn answer(question: Question, run_dir: PathBuf, reports: broadcast::Sender<Report>) {
    tokio::task::spawn_blocking(move || {
        let number = question.number;
        let said = ask(&question, &run_dir)
            .and_then(|said| serde_json::to_vec(&said).map_err(|error| error.to_string()));
        let answered = match said {
            Ok(explanation) => Answered { number, explanation, problem: String::new() },
            Err(problem) => Answered { number, explanation: Vec::new(), problem },
        };
        // If serve went away meanwhile, nobody waits for it.
        let _ = reports.send(Report { what: Some(report::What::Answered(answered)) });
    });
}

fn ask(question: &Question, run_dir: &Path) -> Result<Explanation, String> {
    let nic: NicId = question.nic.parse().map_err(|_| "this is no name of a NIC".to_owned())?;
    let probe = serde_json::from_slice(&question.probe).map_err(|error| format!("the question: {error}"))?;
    explain(&control_in(run_dir, &nic), probe)
}
