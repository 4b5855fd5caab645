//! Where a NIC's control socket is.
//!
//! Knows the name in a NIC's folder. Never opens one.

use std::path::{Path, PathBuf};

use fw_model::NicId;

/// The control socket's name in its NIC's folder.
pub const SOCKET: &str = "control.sock";

/// The control socket of a NIC whose folder is in `run_dir`.
#[must_use]
pub fn control_in(run_dir: &Path, nic: &NicId) -> PathBuf {
    run_dir.join(nic.as_str()).join(SOCKET)
}
