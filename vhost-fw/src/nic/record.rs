//! What `nic add` made for a NIC, on record.
//!
//! The records lie beside the NICs' folders and not in them: a folder is its NIC's own, and what the administrator's
//! `nic del` believes must not be the NIC's to write. Knows files. Never knows devices.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use fw_model::NicId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::{NicError, at};

/// No NIC's name starts with a dot.
const FOLDER: &str = ".nics";
const LOCK: &str = ".nics.lock";
const SUFFIX: &str = ".json";

/// What was made for a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Whose it is.
    pub nic: NicId,
    /// The user its process runs as, who owns folder and tap.
    pub uid: u32,
    /// That user's group.
    pub gid: u32,
    /// The tap's name.
    pub tap: String,
    /// The bridge it is a port of.
    pub bridge: Option<String>,
}

impl Record {
    /// The record of `nic`, if it was added.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn read(run_dir: &Path, nic: &NicId) -> Result<Option<Self>, NicError> {
        let path = place(run_dir, nic);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(NicError::Io(path, error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| NicError::Io(path, error.into()))
    }

    /// Every record, by NIC.
    pub(super) fn all(run_dir: &Path) -> Result<Vec<Self>, NicError> {
        let mut found = Vec::new();
        for nic in names(&run_dir.join(FOLDER))? {
            let nic = nic.strip_suffix(SUFFIX).and_then(|nic| nic.parse().ok());
            // One that is removed just now is no error.
            if let Some(nic) = nic {
                found.extend(Self::read(run_dir, &nic)?);
            }
        }
        found.sort_by(|one: &Self, other| one.nic.cmp(&other.nic));
        Ok(found)
    }

    /// Puts it in place whole.
    pub(super) fn write(&self, run_dir: &Path) -> Result<(), NicError> {
        let path = place(run_dir, &self.nic);
        let folder = run_dir.join(FOLDER);
        DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(at(&folder))?;
        // Under the lock, so that one name is enough; one that was left behind is written over.
        let new = folder.join(".new");
        let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new);
        let written = written.and_then(|mut file| {
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            fs::rename(&new, &path)
        });
        written.map_err(at(path))
    }

    pub(super) fn remove(&self, run_dir: &Path) -> Result<(), NicError> {
        let path = place(run_dir, &self.nic);
        fs::remove_file(&path).map_err(at(path))
    }

    /// The NIC's own folder.
    #[must_use]
    pub fn folder(&self, run_dir: &Path) -> PathBuf {
        run_dir.join(self.nic.as_str())
    }

    /// Where its VMM connects.
    #[must_use]
    pub fn socket(&self, run_dir: &Path) -> PathBuf {
        self.folder(run_dir).join("vhost.sock")
    }

    /// What is made and what is wanted, where they differ.
    pub(super) fn differences(&self, wanted: &Self) -> String {
        let bridge = |record: &Self| record.bridge.clone().unwrap_or_else(|| "none".to_owned());
        let user = |record: &Self| format!("{}:{}", record.uid, record.gid);
        let pairs = [
            ("tap", self.tap.clone(), wanted.tap.clone()),
            ("bridge", bridge(self), bridge(wanted)),
            ("user", user(self), user(wanted)),
        ];
        let differs = pairs.into_iter().filter(|(_, made, wanted)| made != wanted);
        let told = differs.map(|(what, made, wanted)| format!("{what} {made} (asked for: {wanted})"));
        told.collect::<Vec<_>>().join(", ")
    }
}

fn place(run_dir: &Path, nic: &NicId) -> PathBuf {
    run_dir.join(FOLDER).join(format!("{nic}{SUFFIX}"))
}

/// Names in a folder; none if it is not there.
pub(super) fn names(folder: &Path) -> Result<Vec<String>, NicError> {
    match fs::read_dir(folder) {
        Ok(entries) => {
            let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
            Ok(entries.filter_map(Result::ok).map(name).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(NicError::Io(folder.to_owned(), error)),
    }
}

/// One verb at a time; the kernel unlocks for one that dies.
pub(super) fn lock(run_dir: &Path) -> Result<File, NicError> {
    DirBuilder::new().recursive(true).mode(0o755).create(run_dir).map_err(at(run_dir))?;
    let path = run_dir.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let locked = file.and_then(|file| Ok(flock(&file, FlockOperation::LockExclusive).map(|()| file)?));
    locked.map_err(at(path))
}
