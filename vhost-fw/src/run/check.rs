//! `--check`: would the device start? As far as that shows without a trace.
//!
//! Looks and changes nothing. Never knows how a device starts.

use std::path::Path;

use super::{RunError, Settled, folder_of, load_key_file, load_rules};
use crate::config::DeviceConfig;
use crate::control::require_free;
use crate::uplink::UplinkChoice;

/// Checks settings, rules, sockets and the uplink; says what was found in order.
///
/// # Errors
/// The first thing that would keep the device from starting.
pub fn check(config: &DeviceConfig) -> Result<String, RunError> {
    let settled = Settled::new(config, load_rules(config)?, load_key_file(config)?)?;
    if !config.client {
        require_folder("--socket", &config.socket)?;
        require_free(&config.socket)?;
    }
    require_free(&settled.control)?;
    if let Some(log) = &config.decision_log {
        require_folder("--decision-log", log)?;
    }
    check_uplink(&config.uplink)?;
    let rules = settled.rules.map_or_else(
        || "no rules yet: every frame is dropped until they are installed".to_owned(),
        |rules| format!("generation {}, {} rules", rules.rules().generation, rules.rules().rules.len()),
    );
    Ok(format!("ok: NIC {}, {rules}", settled.nic))
}

fn check_uplink(choice: &UplinkChoice) -> Result<(), RunError> {
    match choice {
        UplinkChoice::Tap(_) => require("--tap", Path::new("/dev/net/tun")),
        UplinkChoice::Bridge(bridge) => {
            require("--bridge", Path::new("/dev/net/tun"))?;
            let is_bridge: &Path = &Path::new("/sys/class/net").join(bridge).join("bridge");
            if is_bridge.exists() {
                return Ok(());
            }
            Err(RunError::Settings(format!("--bridge {bridge}: there is no such bridge here; make it first")))
        }
        UplinkChoice::TapFd(fd) => require("--tap-fd", &Path::new("/proc/self/fd").join(fd.to_string())),
        UplinkChoice::Unix(path) => {
            require_folder("--uplink", path)?;
            Ok(require_free(path)?)
        }
        UplinkChoice::Null => Ok(()),
    }
}

fn require_folder(flag: &str, path: &Path) -> Result<(), RunError> {
    require(flag, folder_of(path))
}

fn require(flag: &str, path: &Path) -> Result<(), RunError> {
    if path.exists() {
        return Ok(());
    }
    Err(RunError::Settings(format!("{flag}: {} does not exist", path.display())))
}
