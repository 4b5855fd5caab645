//! Capabilities, uid, limits: what the kernel grants by who one is.
//!
//! Knows users and capabilities. Never knows what the process does.
//!
//! Started as root, the process becomes a user of its own: `portcullis`, if `/etc/passwd` has one, else a uid derived
//! from the NIC id out of 1879048192..2147483647, which no distribution hands out, so that NICs cannot touch each
//! other. Files the new user must write or remove are handed over first.

use std::io;
use std::path::Path;

use fw_model::NicId;
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::{Degraded, Plan, SandboxError, lacking};
use crate::fingerprint::fingerprint;

/// The lowest derived uid, and how many there are.
const OWN_UID_FIRST: u32 = 0x7000_0000;
const OWN_UID_MASK: u64 = 0x0fff_ffff;

/// Who the process is to be, if it is started as root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunAs {
    /// The user `portcullis`, else the NIC's own uid ([`own_uid`]).
    Own,
    /// This one.
    User {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
    /// Whoever it is now. Capabilities go all the same.
    Keep,
}

/// The uid (and gid) derived from a NIC id.
#[must_use]
pub fn own_uid(nic: &NicId) -> u32 {
    OWN_UID_FIRST | u32::try_from(fingerprint(nic) & OWN_UID_MASK).unwrap_or_default()
}

/// The user and group that a NIC of this id runs as, if this process's user starts it.
#[must_use]
pub fn user_of(nic: &NicId) -> (u32, u32) {
    let me = (rustix::process::geteuid(), rustix::process::getegid());
    let own = own_uid(nic);
    let (uid, gid) = service_user().unwrap_or((own, own));
    if me.0.is_root() && Mapped::read(uid, gid) == Mapped::Yes {
        (uid, gid)
    } else {
        (me.0.as_raw(), me.1.as_raw())
    }
}

/// Gives up every privilege, for good.
pub(super) fn drop_all(plan: &Plan<'_>) -> Result<Option<Degraded>, SandboxError> {
    limit(Resource::Core, 0)?;
    limit(Resource::Nofile, plan.open_files)?;
    drop_bounding_set()?;
    let degraded = if rustix::process::geteuid().is_root() { become_user(plan)? } else { None };
    step("clearing the ambient capabilities", rustix::thread::clear_ambient_capability_set())?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    step("dropping capabilities", rustix::thread::set_capabilities(None, sets))?;
    step("setting no_new_privs", rustix::thread::set_no_new_privs(true))?;
    let undumpable = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    step("forbidding dumps", undumpable)?;
    Ok(degraded)
}

/// Lowers a limit, never raises it.
fn limit(resource: Resource, most: u64) -> Result<(), SandboxError> {
    let now = rustix::process::getrlimit(resource);
    let lower = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    let limits = Rlimit { current: lower(now.current), maximum: lower(now.maximum) };
    step("setting limits", rustix::process::setrlimit(resource, limits))
}

/// Without the right to do so there is nothing to gain from the set either, since no_new_privs bars the way to it.
fn drop_bounding_set() -> Result<(), SandboxError> {
    let own = step("reading capabilities", rustix::thread::capabilities(None))?;
    if !own.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for bit in 0..u64::BITS {
        match rustix::thread::remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            // Past the last capability this kernel knows.
            Err(Errno::INVAL) => return Ok(()),
            Err(error) => return step("dropping the bounding set", Err(error)),
        }
    }
    Ok(())
}

fn become_user(plan: &Plan<'_>) -> Result<Option<Degraded>, SandboxError> {
    let (uid, gid) = match plan.run_as {
        RunAs::Keep => return Ok(Some(Degraded::UidKept)),
        RunAs::User { uid, gid } => (uid, gid),
        RunAs::Own => {
            let own = own_uid(plan.nic);
            service_user().unwrap_or((own, own))
        }
    };
    match Mapped::read(uid, gid) {
        Mapped::Yes => {}
        // `root` here is an ordinary user outside: there is nothing to give up.
        Mapped::OnlyOrdinary => return Ok(Some(Degraded::UidUnmapped)),
        Mapped::No => {
            let what = "a uid to change to (the user namespace maps none)";
            return lacking(plan.missing, what, Degraded::UidUnmapped).map(Some);
        }
    }
    for path in plan.hand_over {
        // Never through a link that somebody else may have put there.
        std::os::unix::fs::lchown(path, Some(uid), Some(gid))
            .map_err(|source| SandboxError::Step { step: "handing files over to the new user", source })?;
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    step("leaving groups", rustix::thread::set_thread_groups(&[]))?;
    step("changing the group", rustix::thread::set_thread_res_gid(group, group, group))?;
    step("changing the user", rustix::thread::set_thread_res_uid(user, user, user))?;
    Ok(None)
}

/// The user `portcullis` of `/etc/passwd`.
fn service_user() -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = users.lines().find(|line| line.starts_with("portcullis:"))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Whether a uid and gid exist in this user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mapped {
    Yes,
    /// They do not, and root of this namespace is not root outside.
    OnlyOrdinary,
    No,
}

impl Mapped {
    fn read(uid: u32, gid: u32) -> Self {
        let map =
            |name: &str| std::fs::read_to_string(Path::new("/proc/self").join(name)).unwrap_or_default();
        let (uids, gids) = (map("uid_map"), map("gid_map"));
        if is_mapped(&uids, uid) && is_mapped(&gids, gid) {
            Self::Yes
        } else if root_outside(&uids).is_some_and(|outside| outside != 0) {
            Self::OnlyOrdinary
        } else {
            Self::No
        }
    }
}

/// Lines of a map are `first-inside first-outside count` (`user_namespaces(7)`).
fn lines(map: &str) -> impl Iterator<Item = (u64, u64, u64)> {
    map.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse().ok());
        Some((numbers.next()?, numbers.next()?, numbers.next()?))
    })
}

fn is_mapped(map: &str, id: u32) -> bool {
    lines(map)
        .any(|(inside, _, count)| u64::from(id).checked_sub(inside).is_some_and(|offset| offset < count))
}

fn root_outside(map: &str) -> Option<u64> {
    lines(map).find_map(|(inside, outside, _)| (inside == 0).then_some(outside))
}

fn step<T>(step: &'static str, done: Result<T, Errno>) -> Result<T, SandboxError> {
    done.map_err(|error| SandboxError::Step { step, source: io::Error::from(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nics_have_uids_of_their_own() {
        let (one, two) = (own_uid(&"web-1".parse().unwrap()), own_uid(&"web-2".parse().unwrap()));
        assert_ne!(one, two);
        assert!((0x7000_0000..0x8000_0000).contains(&one));
        assert_eq!(one, own_uid(&"web-1".parse().unwrap()));
    }

    #[test]
    fn a_uid_map_is_read_as_the_kernel_writes_it() {
        let host = "         0          0 4294967295\n";
        assert!(is_mapped(host, 0x7000_0000));
        assert_eq!(root_outside(host), Some(0));
        let plain_user = "         0       1000          1\n";
        assert!(is_mapped(plain_user, 0) && !is_mapped(plain_user, 1));
        assert_eq!(root_outside(plain_user), Some(1000));
        assert!(!is_mapped("", 0));
    }
}
