//! A tap that outlives the process that made it.
//!
//! Knows a tap's owner, its bridge and the mark by which it is known again. Never knows which NICs there should be.
//!
//! A tap becomes persistent last, when all else is done: whoever dies before leaves none behind. So a tap without our
//! mark was never ours, and is left alone.

use std::io;
use std::os::fd::AsFd;

use fw_model::NicId;

use super::link::{self, Link};
use super::{UplinkError, bridge, tap, tun};

/// What stands on our taps (`ip -d link` shows it), before the NIC's id.
const MARK: &str = "portcullis nic ";

/// Makes the tap `name` for `nic`, owned by the user `uid` and a port of `bridge` if one is named; mends what has come
/// off one that was made before. Whether anything was changed.
///
/// # Errors
/// A device of that name that is not the NIC's, no such bridge, or the kernel refuses.
pub(crate) fn make(name: &str, nic: &NicId, uid: u32, bridge: Option<&str>) -> Result<bool, UplinkError> {
    let bridge = bridge.map(bridge::find).transpose()?;
    let found = tap::find(name)?;
    let made = found.is_none();
    let link = match found {
        Some(link) if owner_of(&link).as_ref() == Some(nic) => link,
        Some(_) => return Err(UplinkError::NotMade(name.to_owned())),
        None => make_new(name, nic, uid, bridge.as_ref())?,
    };
    let mut mended = !link.is_up;
    if let Some(bridge) = bridge
        && link.controller != Some(bridge.index)
    {
        link::enslave(link.index, bridge.index)
            .map_err(tap::refused(name, "becoming a port of the bridge"))?;
        mended = true;
    }
    tap::bring_up(name, &link)?;
    Ok(made || mended)
}

fn make_new(name: &str, nic: &NicId, uid: u32, bridge: Option<&Link>) -> Result<Link, UplinkError> {
    let step = |step| move |source| UplinkError::Tap { name: name.to_owned(), step, source };
    let fd = tap::attach(name)?;
    tun::set_owner(fd.as_fd(), uid).map_err(step("giving it to its user"))?;
    let link = tap::set_up(name, false, bridge.map(|bridge| bridge.mtu))?;
    link::set_alias(link.index, &format!("{MARK}{nic}")).map_err(tap::refused(name, "marking it"))?;
    tun::set_persistent(fd.as_fd(), true).map_err(step("making it persistent"))?;
    Ok(link)
}

/// Removes the tap `name` of `nic`. Whether there was one.
///
/// # Errors
/// It is in use, is not the NIC's, or the kernel refuses.
pub(crate) fn remove(name: &str, nic: &NicId) -> Result<bool, UplinkError> {
    match tap::find(name)? {
        None => return Ok(false),
        Some(link) if owner_of(&link).as_ref() == Some(nic) => {}
        Some(_) => return Err(UplinkError::NotMade(name.to_owned())),
    }
    // Attached, nobody else can be; let go of, it is no more.
    let fd = tap::attach(name)?;
    tun::set_persistent(fd.as_fd(), false).map_err(|source| UplinkError::Tap {
        name: name.to_owned(),
        step: "removing it",
        source,
    })?;
    Ok(true)
}

/// Every tap with our mark, and whose it is.
///
/// # Errors
/// The kernel does not tell.
pub(crate) fn all() -> io::Result<Vec<(String, NicId)>> {
    let links = link::all()?;
    Ok(links.into_iter().filter_map(|(name, link)| Some((name, owner_of(&link)?))).collect())
}

fn owner_of(link: &Link) -> Option<NicId> {
    link.alias.as_deref()?.strip_prefix(MARK)?.parse().ok()
}
