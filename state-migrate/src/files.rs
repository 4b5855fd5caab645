//! Tables in files: written from a NIC, given to a NIC, and the key that opens them.
//!
//! Knows files and a NIC's connection. Never knows a conn.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use conn_snapshot::{Answer, Checked, Decoder, Header, KEY_LEN, Key, SnapshotError};
use fw_control::Request;

use crate::config::FileArgs;
use crate::host::{Nic, NicError};
use crate::relay;

/// Why a file and a NIC do not come together.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read or written.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// It holds no table, or not one by this key.
    #[error("{0}: {1}")]
    Snapshot(PathBuf, #[source] SnapshotError),
    /// The key is none.
    #[error("{0}: a key is exactly {KEY_LEN} bytes; scripts/state-key makes one")]
    Key(PathBuf),
    /// Others may read the key.
    #[error("{0}: others than its owner and group may read it; chmod o= it")]
    Exposed(PathBuf),
    /// The NIC does not answer or refuses.
    #[error("{0}")]
    Nic(#[from] NicError),
    /// The NIC does not take the table.
    #[error("the NIC refuses the table: {0}")]
    Refused(String),
}

/// Writes a NIC's conns to a file: as they stand, while its VM runs or rests.
///
/// # Errors
/// See [`FileError`]; what was there before stays until all of the new is written.
pub fn export(args: &FileArgs) -> Result<Header, FileError> {
    let mut nic = nic_of(args).hand_over(&Request::Export)?;
    let mut bytes = Vec::new();
    let wrong = |error| FileError::Io(args.file.clone(), error);
    nic.read_to_end(&mut bytes).map_err(wrong)?;
    let sealed =
        conn_snapshot::Sealed::read(&bytes).map_err(|error| FileError::Snapshot(args.file.clone(), error))?;
    let whole = conn_snapshot::HEADER_LEN as u64 + sealed.header.body_len;
    if whole != bytes.len() as u64 {
        return Err(wrong(io::Error::other("the NIC went away before all of its table was here")));
    }
    write_whole(&args.file, &bytes).map_err(wrong)?;
    Ok(sealed.header)
}

/// Gives a NIC at rest the conns of a file, in place of those it has.
///
/// # Errors
/// See [`FileError`]; the NIC's own table stays then.
pub fn import(args: &FileArgs) -> Result<(), FileError> {
    let wrong = |error| FileError::Io(args.file.clone(), error);
    let bytes = fs::read(&args.file).map_err(wrong)?;
    // A file that is none need not be sent.
    conn_snapshot::Sealed::read(&bytes).map_err(|error| FileError::Snapshot(args.file.clone(), error))?;
    let mut nic = nic_of(args).hand_over(&Request::Import)?;
    nic.write_all(&bytes).map_err(wrong)?;
    match relay::read_answer(&mut nic).map_err(wrong)? {
        (_, Answer::Taken(_)) => Ok(()),
        (_, Answer::Refused(cause)) => Err(FileError::Refused(cause)),
    }
}

fn nic_of(args: &FileArgs) -> Nic {
    match (&args.control, &args.nic) {
        (Some(control), _) => Nic::at(control.clone()),
        (None, Some(nic)) => Nic::of(Path::new("/run/portcullis"), nic),
        // The command line asks for one of them.
        (None, None) => Nic::at(PathBuf::new()),
    }
}

/// Beside its place first, then there at once: a full disk leaves the old file.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let written = (|| {
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// A file of conns.
#[derive(Debug)]
pub struct ConnFile {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl ConnFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = fs::read(path).map_err(|error| FileError::Io(path.to_owned(), error))?;
        Ok(Self { path: path.to_owned(), bytes })
    }

    /// What it says of itself, unbelieved.
    ///
    /// # Errors
    /// It holds no table.
    pub fn header(&self) -> Result<Header, FileError> {
        let sealed = conn_snapshot::Sealed::read(&self.bytes);
        sealed.map(|sealed| sealed.header).map_err(|error| FileError::Snapshot(self.path.clone(), error))
    }

    /// All of it, believed.
    ///
    /// # Errors
    /// It is not whole, or not by this key.
    pub fn check(&self, key: &Key) -> Result<Checked<'_>, FileError> {
        // A record has bytes: a file has no more of them than that.
        let most = self.bytes.len() as u64;
        Decoder::check(&self.bytes, key, most).map_err(|error| FileError::Snapshot(self.path.clone(), error))
    }
}

/// Reads the cluster's key.
///
/// # Errors
/// It is no key, or others may read it.
pub fn load_key(path: &Path) -> Result<Key, FileError> {
    let wrong = |error| FileError::Io(path.to_owned(), error);
    let file = File::open(path).map_err(wrong)?;
    if file.metadata().map_err(wrong)?.mode() & 0o007 != 0 {
        return Err(FileError::Exposed(path.to_owned()));
    }
    let mut secret = Vec::new();
    (&file).take(KEY_LEN as u64 + 1).read_to_end(&mut secret).map_err(wrong)?;
    let secret: [u8; KEY_LEN] = secret.try_into().map_err(|_| FileError::Key(path.to_owned()))?;
    Ok(Key::new(&secret))
}
