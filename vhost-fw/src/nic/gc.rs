//! What is left of NICs that are no more.
//!
//! Removes NICs that lack their folder or their tap and do not run, taps with our mark that no record names, and folders of
//! dead sockets. Never touches what a living process uses, or anything that is not marked or laid out as ours.

use std::fs;
use std::path::Path;

use fw_model::NicId;

use super::record::{self, Record};
use super::{NicError, at, folder, take_away};
use crate::uplink::{UplinkError, persistent};

/// Removes it, or only says what would go.
pub(super) fn collect(run_dir: &Path, dry_run: bool) -> Result<Vec<String>, NicError> {
    let _lock = record::lock(run_dir)?;
    let word = if dry_run { "would remove" } else { "removed" };
    let mut said = Vec::new();
    let taps = persistent::all().map_err(at("rtnetlink"))?;
    let records = Record::all(run_dir)?;
    for made in &records {
        let nic = &made.nic;
        let has_tap = taps.contains(&(made.tap.clone(), nic.clone()));
        let place = made.folder(run_dir);
        if (has_tap && place.is_dir()) || folder::is_inhabited(&place)? {
            continue;
        }
        let lacks = if has_tap { "its folder" } else { "its tap" };
        if !dry_run {
            take_away(run_dir, made)?;
        }
        said.push(format!("{word} {nic}: it lacks {lacks} and does not run"));
    }
    for (name, nic) in &taps {
        if records.iter().any(|made| made.tap == *name && made.nic == *nic) {
            continue;
        }
        match if dry_run { Ok(true) } else { persistent::remove(name, nic) } {
            Ok(_) => said.push(format!("{word} the tap {name}: no NIC {nic} was added")),
            Err(UplinkError::Busy(_)) => said.push(format!("kept the tap {name}: it is in use")),
            Err(error) => return Err(error.into()),
        }
    }
    for name in record::names(run_dir)? {
        let place = run_dir.join(&name);
        let is_nics =
            name.parse::<NicId>().is_ok() && fs::symlink_metadata(&place).is_ok_and(|found| found.is_dir());
        if !is_nics || records.iter().any(|made| made.nic.as_str() == name) || folder::is_inhabited(&place)? {
            continue;
        }
        if folder::remove_sockets(&place, dry_run)? {
            said.push(format!("{word} the folder {}: no NIC {name} was added or runs", place.display()));
        } else {
            said.push(format!("kept the folder {}: there is more than sockets in it", place.display()));
        }
    }
    Ok(said)
}
