//! A VMM carries the table in its own stream (vhost-user `SET_DEVICE_STATE_FD`, `CHECK_DEVICE_STATE`).
//!
//! Bytes move on a thread of their own, so that the connection's thread answers meanwhile; what became of it is told when
//! the VMM asks. A VMM that neither reads nor writes ends its transfer and nothing else. Knows descriptors and patience.
//! Never knows what the bytes say.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use conn_snapshot::{HEADER_LEN, Sealed};
use fw_model::HandoverId;

use super::Handover;
use super::patient::Patient;

/// How long a transfer may take in all: a VMM that trickles is given up too.
const DEADLINE: Duration = Duration::from_secs(120);
/// The longest record with its share of what stands around it, in bytes: what a header may announce for each.
const RECORD_LEN_MAX: u64 = 512;
/// What a body may have beside.
const BODY_SLACK: u64 = 128 * 1024;

/// The transfers of one connection: one at a time.
pub(crate) struct Transfers {
    handover: Arc<Handover>,
    under_way: Mutex<Option<Transfer>>,
}

/// A transfer that was begun and not yet asked about.
enum Transfer {
    Save(JoinHandle<io::Result<HandoverId>>),
    Load(JoinHandle<io::Result<Vec<u8>>>),
}

impl Transfers {
    pub(crate) const fn new(handover: Arc<Handover>) -> Self {
        Self { handover, under_way: Mutex::new(None) }
    }

    /// Begins to write the table to `file`.
    pub(crate) fn begin_save(&self, file: File) -> io::Result<()> {
        self.begin(|handover| {
            let thread = Builder::new().name("save".to_owned()).spawn(move || {
                let table = handover.save().map_err(io::Error::other)?;
                write_all(&file, &table.bytes).map(|()| table.header.handover)
            })?;
            Ok(Transfer::Save(thread))
        })
    }

    /// Begins to read a table from `file`.
    pub(crate) fn begin_load(&self, file: File) -> io::Result<()> {
        self.begin(|handover| {
            let thread = Builder::new().name("load".to_owned()).spawn(move || read_all(&file, &handover))?;
            Ok(Transfer::Load(thread))
        })
    }

    fn begin(&self, start: impl FnOnce(Arc<Handover>) -> io::Result<Transfer>) -> io::Result<()> {
        self.handover.require_rest().map_err(io::Error::other)?;
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.is_some() {
            return Err(io::Error::other("another transfer is under way: CHECK_DEVICE_STATE ends it"));
        }
        *under_way = Some(start(Arc::clone(&self.handover))?);
        Ok(())
    }

    /// Nobody will ask any more: the connection has ended. The thread finds its VMM gone, or loses patience.
    pub(crate) fn forget(&self) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How the transfer went. What was read is taken now, or refused.
    pub(crate) fn check(&self) -> io::Result<()> {
        let transfer = self.under_way.lock().unwrap_or_else(PoisonError::into_inner).take();
        match transfer {
            None => Err(io::Error::other("no transfer is under way")),
            Some(Transfer::Save(thread)) => joined(thread).map(|id| self.handover.left(id)),
            Some(Transfer::Load(thread)) => {
                let bytes = joined(thread).inspect_err(|error| self.handover.refuse(error));
                self.handover.load(&bytes?).map(drop).map_err(io::Error::other)
            }
        }
    }
}

fn joined<T>(thread: JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the transfer's thread died")))
}

/// Reads a snapshot to its end: the header says how much there is, and more is refused.
fn read_all(file: &File, handover: &Handover) -> io::Result<Vec<u8>> {
    let mut input = Patient::until(file, DEADLINE)?;
    let (mut bytes, body_len) = read_header(&mut input, handover)?;
    // One byte more than it may have, so that what follows is seen.
    input.take(body_len + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads one snapshot of several.
pub(super) fn read_one(input: &mut impl Read, handover: &Handover) -> io::Result<Vec<u8>> {
    let (mut bytes, body_len) = read_header(input, handover)?;
    input.take(body_len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a header, and how long the body is that follows it.
fn read_header(input: &mut impl Read, handover: &Handover) -> io::Result<(Vec<u8>, u64)> {
    let mut bytes = vec![0; HEADER_LEN];
    input.read_exact(&mut bytes)?;
    let sealed = Sealed::read(&bytes).map_err(io::Error::other)?;
    sealed.check(handover.key()).map_err(io::Error::other)?;
    let body_len = sealed.header.body_len;
    let limit = u64::from(handover.conns()) * RECORD_LEN_MAX + BODY_SLACK;
    if body_len > limit {
        return Err(io::Error::other(format!(
            "its body has {body_len} bytes, and at most {limit} are taken"
        )));
    }
    handover.make_ready(&sealed.header);
    Ok((bytes, body_len))
}

fn write_all(file: &File, bytes: &[u8]) -> io::Result<()> {
    Patient::until(file, DEADLINE)?.write_all(bytes)
}
