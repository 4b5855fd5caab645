//! A NIC that is a control socket and nothing behind it: takes rules as an engine does, and judges nothing.
//!
//! It may know the control socket's words. It must never say that it enforces what it did not take whole.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Result;
use fw_control::message::{LEN_MAX, encode, receive};
use fw_control::{Advance, Reply, Request};
use fw_model::{FrameCounts, RuleSet, Stats};

/// Room for one thread: a NIC answers small questions.
const STACK: usize = 256 << 10;

/// Lives until the laboratory ends.
#[derive(Debug)]
pub(super) struct Nic {
    generation: Arc<AtomicU64>,
}

impl Nic {
    /// Puts its control socket where an agent looks for it.
    pub(super) fn attach(run_dir: &Path, name: &str) -> Result<Self> {
        let folder = run_dir.join(name);
        fs::create_dir_all(&folder)?;
        let listener = UnixListener::bind(folder.join("control.sock"))?;
        let generation = Arc::new(AtomicU64::new(0));
        let enforced = Arc::clone(&generation);
        let rules = Mutex::new(None);
        thread::Builder::new().stack_size(STACK).spawn(move || {
            for asking in listener.incoming().filter_map(Result::ok) {
                let _ = answer(asking, &rules, &enforced);
            }
        })?;
        Ok(Self { generation })
    }

    /// The generation it took last; 0 = none.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

fn answer(
    mut asking: UnixStream,
    rules: &Mutex<Option<RuleSet>>,
    enforced: &AtomicU64,
) -> std::io::Result<()> {
    while let Some(request) = receive::<Request>(&mut asking, LEN_MAX)? {
        let reply = match request {
            Ok(Request::Stats) => {
                let enforced = Some(enforced.load(Ordering::Acquire)).filter(|generation| *generation > 0);
                Reply::Stats(Box::new(stats(enforced)))
            }
            Ok(Request::Advance(advance)) => advanced(advance, rules, enforced),
            Ok(_) | Err(_) => Reply::Refused("this NIC takes rules and nothing else".to_owned()),
        };
        asking.write_all(&encode(&reply)?)?;
    }
    Ok(())
}

fn stats(enforced: Option<u64>) -> Stats {
    Stats {
        nic: None,
        generation: enforced,
        enforced,
        swept: enforced,
        conns: 0,
        frames: FrameCounts::default(),
        drops: BTreeMap::new(),
        rules: BTreeMap::new(),
        log_lost: 0,
        frozen: false,
        arrived: None,
        resumed: None,
    }
}

fn advanced(advance: Advance, rules: &Mutex<Option<RuleSet>>, enforced: &AtomicU64) -> Reply {
    let mut rules = rules.lock().unwrap_or_else(PoisonError::into_inner);
    let next = match (advance, rules.take()) {
        (Advance::Whole(next), _) => Ok(*next),
        (Advance::Sets(change), Some(before)) => change.onto(before).map_err(|misfit| misfit.to_string()),
        (Advance::Sets(_), None) => Err("there are no rules to change".to_owned()),
    };
    match next {
        Ok(next) => {
            let generation = next.generation;
            *rules = Some(next);
            enforced.store(generation, Ordering::Release);
            Reply::Enforced(generation)
        }
        Err(why) => Reply::Refused(why),
    }
}
