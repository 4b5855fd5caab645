//! The socket file: made for its owner alone, put into place whole, taken away at the end.
//!
//! A socket that nobody listens on is replaced; one that somebody does, or a file of another kind, is an error.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::io::fcntl_dupfd_cloexec;
use vhost::vhost_user::Listener;

use super::ServeError;

/// A listening socket with its file.
pub struct Socket {
    listener: Listener,
    path: PathBuf,
    inode: u64,
}

impl Socket {
    /// Listens at `path`, mode 0600.
    ///
    /// # Errors
    /// Another process listens there, something else stands there, or the system refuses.
    pub fn bind(path: &Path) -> Result<Self, ServeError> {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            if !metadata.file_type().is_socket() {
                return Err(ServeError::NoSocket(path.to_owned()));
            }
            if UnixStream::connect(path).is_ok() {
                return Err(ServeError::InUse(path.to_owned()));
            }
        }
        Self::put_in_place(path).map_err(|source| ServeError::Socket { path: path.to_owned(), source })
    }

    pub(super) fn listener(&mut self) -> &mut Listener {
        &mut self.listener
    }

    /// Under a name of its own first, so that nobody connects before the mode is set and a stale socket is
    /// replaced at once.
    fn put_in_place(path: &Path) -> io::Result<Self> {
        let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        name.push(".new");
        let new = path.with_file_name(name);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = first_to_close(UnixListener::bind(&new)?);
        fs::set_permissions(&new, Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&new)?.ino();
        fs::rename(&new, path)?;
        Ok(Self { listener: Listener::from(listener), path: path.to_owned(), inode })
    }
}

/// Gives a listener a number above all others.
///
/// The kernel closes the files of a killed process from the highest number down. Were the VMM's connection closed before
/// the listener, the VMM could connect once more to the dying process, be cut off in mid-conversation, and never try
/// again (Cloud Hypervisor up to 53 gives its NIC up then).
fn first_to_close(listener: UnixListener) -> UnixListener {
    // Where so many files are not allowed it keeps its number: it serves as well.
    fcntl_dupfd_cloexec(&listener, ABOVE_ALL).map_or(listener, UnixListener::from)
}

/// Below the limit of files that the sandbox sets.
const ABOVE_ALL: i32 = 1000;

impl Drop for Socket {
    fn drop(&mut self) {
        // Only our own: a successor may have put its socket there.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_ours_is_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vhost.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_in_use_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vhost.sock");
        let first = Socket::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(ServeError::InUse(_))));
        drop(first);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vhost.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path), Err(ServeError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}
