//! The words of `nic`: what is prepared on a host for a NIC, before and after its process.
//!
//! Knows spellings. Never knows how a tap or a folder is made.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fw_model::NicId;

use super::{DeviceArgs, Form, RUN_DIR, file};

/// `nic`.
#[derive(Debug, Args)]
pub struct NicArgs {
    /// Where NICs have their folders
    #[arg(long, value_name = "DIR", default_value = RUN_DIR, global = true)]
    pub run_dir: PathBuf,
    /// How answers are written
    #[arg(short, long, value_name = "FORM", default_value = "text", global = true)]
    pub output: Form,
    /// What to do.
    #[command(subcommand)]
    pub verb: NicVerb,
}

/// What `nic` does.
#[derive(Debug, Subcommand)]
pub enum NicVerb {
    /// Make its folder and its tap; again: mend them
    Add {
        /// The NIC's id
        nic: NicId,
        /// The tap's name [pc-<nic>]
        #[arg(long, value_name = "NAME")]
        tap: Option<String>,
        /// Make the tap a port of this bridge
        #[arg(long, value_name = "NAME")]
        bridge: Option<String>,
        /// Take tap and bridge from the device's settings
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Remove its folder and its tap
    Del {
        /// The NIC's id
        nic: NicId,
    },
    /// Every NIC of this host that was added
    List,
    /// Remove what no longer belongs to anything
    Gc {
        /// Say what would go, and let it be
        #[arg(long)]
        dry_run: bool,
    },
}

/// Tap and bridge of a NIC, the words' before the file's.
///
/// # Errors
/// The file is refused, is another NIC's, or a name is none.
pub(crate) fn uplink_of(
    nic: &NicId,
    tap: Option<&str>,
    bridge: Option<&str>,
    config: Option<&PathBuf>,
) -> Result<(Option<String>, Option<String>), String> {
    let written = match config {
        Some(path) => file::load(path).map_err(|error| error.to_string())?,
        None => DeviceArgs::default(),
    };
    if let Some(other) = written.nic.filter(|other| other != nic) {
        return Err(format!("the settings are those of `{other}`, not of `{nic}`"));
    }
    let named = |flag, word: Option<&str>, file: Option<String>| {
        word.map(str::to_owned).or(file).map(|name| super::interface(flag, &name)).transpose()
    };
    Ok((named("--tap", tap, written.tap)?, named("--bridge", bridge, written.bridge)?))
}
