//! The file that holds the cluster's key.
//!
//! Knows what such a file must be. Never knows what the key is used for.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use conn_snapshot::{KEY_LEN, Key};

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("{0}: {1}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// It has another length.
    #[error("{0}: a key is exactly {KEY_LEN} bytes; scripts/state-key makes one")]
    WrongLength(PathBuf),
    /// Everybody may read it.
    #[error("{0}: others than its owner and group may read it; chmod o= it")]
    Exposed(PathBuf),
}

/// Reads the key of `--state-key`.
///
/// # Errors
/// See [`KeyFileError`].
pub fn load_key(path: &Path) -> Result<Key, KeyFileError> {
    load_secret(path).map(|secret| Key::new(&secret))
}

/// What is in the file of `--state-key`.
pub(crate) fn load_secret(path: &Path) -> Result<[u8; KEY_LEN], KeyFileError> {
    let unreadable = |error| KeyFileError::Unreadable(path.to_owned(), error);
    let mut file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & 0o007 != 0 {
        return Err(KeyFileError::Exposed(path.to_owned()));
    }
    let mut secret = Vec::new();
    file.by_ref().take(KEY_LEN as u64 + 1).read_to_end(&mut secret).map_err(unreadable)?;
    secret.try_into().map_err(|_| KeyFileError::WrongLength(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_has_its_length_and_is_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let write = |bytes: &[u8], mode| {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        assert!(matches!(load_key(&path), Err(KeyFileError::Unreadable(..))));
        write(&[1; 32], 0o640);
        assert!(load_key(&path).is_ok());
        write(&[1; 32], 0o644);
        assert!(matches!(load_key(&path), Err(KeyFileError::Exposed(_))));
        for length in [0, 31, 33, 4096] {
            write(&vec![1; length], 0o600);
            let error = load_key(&path).unwrap_err().to_string();
            assert!(error.contains("scripts/state-key"), "{error}");
        }
    }
}
