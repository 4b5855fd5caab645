//! A NIC's table on its way ahead of the VM, and how far it is.
//!
//! A thread passes snapshots from the NIC here to the NIC there until its table has left with the VM or somebody goes away.
//! Knows counts. Never knows a conn.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use conn_snapshot::{Answer, Kind};
use serde::Serialize;

use crate::channel::Channel;
use crate::relay;

/// How far a table is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AheadCounts {
    /// Conns that went ahead, changed ones again.
    pub conns: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Rounds after the first.
    pub rounds: u64,
}

/// A table that goes ahead.
pub(crate) struct AheadOfVm {
    shared: Arc<Mutex<Shared>>,
    /// The NIC's connection, to end it.
    nic: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    counts: AheadCounts,
    /// The whole table is there.
    is_there: bool,
    /// It came to an end, for this cause; with none the NIC had no more.
    ended: Option<Option<String>>,
}

impl AheadOfVm {
    /// Begins.
    pub(crate) fn begin(nic: UnixStream, channel: Channel) -> std::io::Result<Self> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        // Between rounds a NIC says nothing for as long as nothing changes.
        nic.set_read_timeout(None)?;
        let (giver, told) = (nic.try_clone()?, Arc::clone(&shared));
        let work = move || {
            let ended = carry(giver, channel, &told).err();
            lock(&told).ended = Some(ended);
        };
        let thread = Builder::new().name("ahead".to_owned()).spawn(work)?;
        Ok(Self { shared, nic, thread: Some(thread) })
    }

    /// Whether the whole table is there.
    ///
    /// # Errors
    /// It will not be, in words.
    pub(crate) fn is_there(&self) -> Result<bool, String> {
        let shared = lock(&self.shared);
        match &shared.ended {
            Some(cause) => Err(cause.clone().unwrap_or_else(|| "the NIC ended it".to_owned())),
            None => Ok(shared.is_there),
        }
    }

    pub(crate) fn counts(&self) -> AheadCounts {
        lock(&self.shared).counts.clone()
    }
}

impl Drop for AheadOfVm {
    fn drop(&mut self) {
        // The thread reads its end, and says goodbye to the target.
        let _ = self.nic.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn carry(mut nic: UnixStream, mut channel: Channel, told: &Mutex<Shared>) -> Result<(), String> {
    while let Some(passed) = relay::pass_on(&mut nic, &mut channel).map_err(|error| error.to_string())? {
        if let Answer::Refused(cause) = passed.answer {
            return Err(format!("the target's NIC refuses the table: {cause}"));
        }
        let mut shared = lock(told);
        shared.counts.conns += passed.header.records;
        shared.counts.bytes += passed.header.body_len;
        match passed.header.kind {
            Kind::Bulk => shared.is_there = true,
            Kind::Delta => shared.counts.rounds += 1,
            Kind::Whole => {}
        }
    }
    Ok(())
}
