//! A tap of our own that is a port of a bridge.
//!
//! Knows the bridge's name and the NIC's. Never knows a frame.
//!
//! The port keeps the kernel's settings (learning on, hairpin off, BPDU guard off): who may speak, and how, is
//! judged before a frame gets here. It has the bridge's MTU, because a port with a smaller one would shrink the
//! bridge for everybody; `--mtu` limits the guest alone.

use fw_model::NicId;

use super::link::Link;
use super::{Tap, UplinkError, link};
use crate::fingerprint::fingerprint;

/// The longest name of a network device, in bytes.
const NAME_LEN_MAX: usize = 15;

/// Makes the tap of `nic` and enslaves it to `bridge`.
pub(super) fn open(bridge: &str, nic: &NicId, mtu: Option<u16>) -> Result<Tap, UplinkError> {
    let link = find(bridge)?;
    if let Some(asked) = mtu.filter(|asked| *asked > link.mtu) {
        return Err(UplinkError::BridgeMtu { bridge: bridge.to_owned(), has: link.mtu, asked });
    }
    Tap::open_on_bridge(&tap_name(nic), &link, mtu.unwrap_or(link.mtu))
}

/// The bridge of this name.
pub(super) fn find(bridge: &str) -> Result<Link, UplinkError> {
    let found = link::find(bridge).map_err(|source| UplinkError::Link {
        name: bridge.to_owned(),
        step: "looking it up",
        source,
    })?;
    let Some(link) = found else { return Err(UplinkError::NoBridge(bridge.to_owned())) };
    if link.is_bridge { Ok(link) } else { Err(UplinkError::NotABridge(bridge.to_owned())) }
}

/// `pc-<nic>`; an id that is too long is cut and told apart by six digits of its fingerprint.
pub(crate) fn tap_name(nic: &NicId) -> String {
    let whole = format!("pc-{nic}");
    if whole.len() <= NAME_LEN_MAX {
        return whole;
    }
    let kept = whole.get(..NAME_LEN_MAX - 7).unwrap_or_default();
    format!("{kept}-{:06x}", fingerprint(nic) & 0xff_ffff)
}
