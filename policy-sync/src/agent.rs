//! The agent of one host: follows serve, keeps the last good policy, and keeps every NIC of the host at it.
//!
//! What is kept is in force whether serve is there or not. Knows hosts and patience. Never knows what a policy means.

pub(crate) mod coverage;
pub(crate) mod enrolment;
mod follow;
pub(crate) mod kept;
mod nic;
mod nics;
mod questions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use kept::{Kept, KeptError, Vault};
use nics::Nics;

/// How often the host is looked over for NICs that came or went.
const LOOK: Duration = Duration::from_millis(50);

/// What an agent is started with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where serve listens for agents, as `https://HOST:PORT`.
    pub(crate) serve: String,
    /// The name in serve's certificate.
    pub(crate) name: String,
    /// The folder with the agent's certificate, key and kept policy.
    pub(crate) state_dir: PathBuf,
    /// The folder with a folder per NIC.
    pub(crate) run_dir: PathBuf,
}

/// Runs until it is told to stop. Serve may come and go.
pub(crate) async fn run(settings: Settings, mut stop: watch::Receiver<bool>) -> Result<(), KeptError> {
    let vault = Vault::open(&settings.state_dir)?;
    let kept = match vault.load() {
        Ok(kept) => kept,
        // Fail closed: NICs go on with what they enforce, and get nothing from a file that cannot be believed.
        Err(KeptError::NotBelieved(why)) => {
            log::error!("the kept policy is not believed ({why}): waiting for serve");
            Kept::default()
        }
        Err(error) => return Err(error),
    };
    log::info!("version {} of the policy is kept here", kept.version);
    let wake = Arc::new(Notify::new());
    let kept = watch::Sender::new(Arc::new(kept));
    let (reports, _) = tokio::sync::broadcast::channel(8192);
    let nics = Arc::new(Nics::new(settings.run_dir.clone(), reports.clone()));
    let follower = follow::Follower {
        settings,
        vault,
        kept: kept.clone(),
        nics: Arc::clone(&nics),
        reports,
        wake: Arc::clone(&wake),
    };
    let following = tokio::spawn(follower.run());
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = wake.notified() => {}
            _ = stop.changed() => break,
        }
        nics.look_over(&kept.borrow().clone());
    }
    following.abort();
    Ok(())
}
