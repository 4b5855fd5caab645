//! A NIC's own folder, in which its sockets stand.
//!
//! Knows modes, owners and whether anybody listens inside. Never follows a link that the NIC's user may have put there.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::record::names;
use super::{NicError, at};

/// Its user may all, its group may look, others nothing.
const MODE: u32 = 0o750;

/// Makes the folder, or puts its owner and mode right. Whether anything was changed.
pub(super) fn make(folder: &Path, uid: u32, gid: u32) -> Result<bool, NicError> {
    let made = match DirBuilder::new().mode(MODE).create(folder) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(at(folder)(error)),
    };
    let found = fs::symlink_metadata(folder).map_err(at(folder))?;
    if !found.is_dir() {
        return Err(at(folder)(io::Error::other("exists and is no folder; remove it")));
    }
    let mut changed = made;
    if found.mode() & 0o7777 != MODE {
        fs::set_permissions(folder, Permissions::from_mode(MODE)).map_err(at(folder))?;
        changed = true;
    }
    if (found.uid(), found.gid()) != (uid, gid) {
        lchown(folder, Some(uid), Some(gid)).map_err(at(folder))?;
        changed = true;
    }
    Ok(changed)
}

/// Whether somebody listens on a socket in it. The control socket is asked first: it takes a question more lightly
/// than a socket that waits for a VMM.
pub(super) fn is_inhabited(folder: &Path) -> Result<bool, NicError> {
    let mut names = names(folder)?;
    names.sort_by_key(|name| name != fw_control::SOCKET);
    Ok(names.iter().any(|name| listens(&folder.join(name))))
}

fn listens(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    is_socket
        && match UnixStream::connect(path) {
            Ok(_) => true,
            // Another kind of socket, or one that may not be asked, counts as alive.
            Err(error) => !matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound),
        }
}

/// Removes the folder with all that is in it.
pub(super) fn remove(folder: &Path) -> Result<(), NicError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(folder)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes the folder if nothing but sockets is in it. Whether it is gone.
pub(super) fn remove_sockets(folder: &Path, dry_run: bool) -> Result<bool, NicError> {
    let names = names(folder)?;
    let is_socket = |name: &String| {
        fs::symlink_metadata(folder.join(name)).is_ok_and(|found| found.file_type().is_socket())
    };
    if !names.iter().all(is_socket) {
        return Ok(false);
    }
    if !dry_run {
        for name in &names {
            fs::remove_file(folder.join(name)).map_err(at(folder.join(name)))?;
        }
        fs::remove_dir(folder).map_err(at(folder))?;
    }
    Ok(true)
}
