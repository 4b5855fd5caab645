//! The control socket's place in the file system.
//!
//! Never open to others, not even for the moment between making and closing it; a dead process's socket is replaced,
//! a living one's is not. Never knows what is said on it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A living process has it.
    #[error("{0}: a running process listens here; is this NIC up already?")]
    InUse(PathBuf),
    /// Something else stands there.
    #[error("{0}: exists and is no socket; remove it or name another place")]
    NoSocket(PathBuf),
    /// The system refused.
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

/// Removes the socket's file when the NIC goes.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl SocketFile {
    /// The file of a socket that is bound already.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: fs::symlink_metadata(path)?.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let same = fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode);
        if same && let Err(error) = fs::remove_file(&self.path) {
            log::warn!("{}: {error}", self.path.display());
        }
    }
}

/// Listens at `path` for this user and root alone. Its folder is made if absent.
///
/// # Errors
/// Somebody else has the place, or the system refuses.
pub fn bind(path: &Path) -> Result<(UnixListener, SocketFile), ControlError> {
    let wrong = |error| ControlError::Io(path.to_owned(), error);
    make_folder(path).map_err(wrong)?;
    require_free(path)?;
    // Made under another name and closed before it gets its own: rename also replaces what a dead process left.
    let mut making = path.as_os_str().to_owned();
    making.push(format!(".{}", std::process::id()));
    let making = PathBuf::from(making);
    match fs::remove_file(&making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(wrong(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&making).map_err(wrong)?;
    let placed = fs::set_permissions(&making, Permissions::from_mode(0o600))
        .and_then(|()| fs::symlink_metadata(&making))
        .and_then(|made| fs::rename(&making, path).map(|()| made.ino()));
    match placed {
        Ok(inode) => Ok((listener, SocketFile { path: path.to_owned(), inode })),
        Err(error) => {
            let _ = fs::remove_file(&making);
            Err(wrong(error))
        }
    }
}

/// Whether [`bind`] would find its way free, without changing anything.
///
/// # Errors
/// Somebody else has the place.
pub(crate) fn require_free(path: &Path) -> Result<(), ControlError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ControlError::Io(path.to_owned(), error)),
        Ok(found) if !found.file_type().is_socket() => Err(ControlError::NoSocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(ControlError::Io(path.to_owned(), error)),
            Ok(_) => Err(ControlError::InUse(path.to_owned())),
        },
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            // Those above it are passed through by users that this NIC is not.
            if let Some(above) = folder.parent() {
                fs::create_dir_all(above)?;
            }
            DirBuilder::new().recursive(true).mode(0o750).create(folder)
        }
        _ => Ok(()),
    }
}
