//! `vhost-fw nic`: what a NIC has on its host before its process starts and after it has ended.
//!
//! A folder for its sockets, a persistent tap, and a record of both that only the administrator can write. Knows the
//! order of making and removing. Never knows a frame, a rule or the VMM.
//!
//! The record is written first and removed last, so that a verb that was cut short anywhere is finished by the next
//! one. What no record names is not ours to touch.

mod folder;
mod gc;
mod list;
mod record;

use std::io::{self, Write};
use std::path::PathBuf;

use fw_model::NicId;

pub use record::Record;

use crate::config::{NicArgs, NicVerb, uplink_of};
use crate::sandbox::user_of;
use crate::uplink::{UplinkError, persistent, tap_name};

/// Why a verb did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NicError {
    /// The words make no sense; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The NIC was added with other arguments.
    #[error("{nic} is there with {differences}; `vhost-fw nic del {nic}` first, or add it as it is")]
    Differs {
        /// The NIC.
        nic: NicId,
        /// What is other than asked.
        differences: String,
    },
    /// Its process runs.
    #[error("{0} is running; stop it first")]
    Running(NicId),
    /// The tap cannot be made or removed.
    #[error("{0}")]
    Tap(#[from] UplinkError),
    /// The file system refused, or something else stands there.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

impl NicError {
    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Differs { .. } | Self::Running(_) | Self::Tap(_) | Self::Io(..) => 1,
        }
    }
}

fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> NicError {
    move |error| NicError::Io(path.into(), error)
}

/// Does what the command line asks.
///
/// # Errors
/// See [`NicError`].
pub fn run(args: &NicArgs, mut out: impl Write) -> Result<(), NicError> {
    let run_dir = &args.run_dir;
    let said = match &args.verb {
        NicVerb::Add { nic, tap, bridge, config } => {
            let wanted = uplink_of(nic, tap.as_deref(), bridge.as_deref(), config.as_ref());
            let (tap, bridge) = wanted.map_err(NicError::Usage)?;
            let (uid, gid) = user_of(nic);
            let tap = tap.unwrap_or_else(|| tap_name(nic));
            add(run_dir, &Record { nic: nic.clone(), uid, gid, tap, bridge })?
        }
        NicVerb::Del { nic } => del(run_dir, nic)?,
        NicVerb::List => return list::write(run_dir, args.output, &mut out),
        NicVerb::Gc { dry_run } => gc::collect(run_dir, *dry_run)?,
    };
    said.iter().try_for_each(|line| writeln!(out, "{line}")).map_err(at("stdout"))
}

/// Makes what `wanted` says, or what is missing of it.
fn add(run_dir: &std::path::Path, wanted: &Record) -> Result<Vec<String>, NicError> {
    let _lock = record::lock(run_dir)?;
    let nic = &wanted.nic;
    match Record::read(run_dir, nic)? {
        Some(made) if made == *wanted => {}
        Some(made) => {
            return Err(NicError::Differs { nic: nic.clone(), differences: made.differences(wanted) });
        }
        None => wanted.write(run_dir)?,
    }
    let tap = match persistent::make(&wanted.tap, nic, wanted.uid, wanted.bridge.as_deref()) {
        Ok(changed) => changed,
        Err(error) => {
            // A name that cannot be had, or a bridge that is not there, must not stay on record.
            let has_folder = wanted.folder(run_dir).exists();
            if !has_folder && !persistent::all().is_ok_and(|all| all.iter().any(|(_, owner)| owner == nic)) {
                wanted.remove(run_dir)?;
            }
            return Err(error.into());
        }
    };
    let folder = folder::make(&wanted.folder(run_dir), wanted.uid, wanted.gid)?;
    let place = wanted.socket(run_dir);
    let word = if tap || folder { "added" } else { "is there already" };
    Ok(vec![format!("{nic} {word}: tap {}, user {}, socket {}", wanted.tap, wanted.uid, place.display())])
}

/// Removes all that `add` made for `nic`.
fn del(run_dir: &std::path::Path, nic: &NicId) -> Result<Vec<String>, NicError> {
    let _lock = record::lock(run_dir)?;
    let Some(made) = Record::read(run_dir, nic)? else {
        return Ok(vec![format!("{nic} is not there")]);
    };
    take_away(run_dir, &made)?;
    Ok(vec![format!("{nic} removed: tap {}, {}", made.tap, made.folder(run_dir).display())])
}

fn take_away(run_dir: &std::path::Path, made: &Record) -> Result<(), NicError> {
    let folder = made.folder(run_dir);
    if folder::is_inhabited(&folder)? {
        return Err(NicError::Running(made.nic.clone()));
    }
    match persistent::remove(&made.tap, &made.nic) {
        // Somebody else's by now: ours is gone.
        Ok(_) | Err(UplinkError::NotMade(_)) => {}
        Err(error) => return Err(error.into()),
    }
    folder::remove(&folder)?;
    made.remove(run_dir)
}
