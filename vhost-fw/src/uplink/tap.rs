//! A Linux tap as the uplink.
//!
//! Knows how a tap is made, set up and told what the guest can take. Never knows what a frame says.
//!
//! Set up means: up, one queue of 4,096 frames (frames the guest has no room for wait there; more than the kernel's
//! 1,000, because a burst waits while rules are installed), the MTU asked for, and, on a tap made here, no IPv6
//! address of the host's own making. A tap that was there keeps its IPv6 settings: the host may route through it.
//! The send buffer stays the kernel's (`INT_MAX`): a write is delivered before it returns.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::queue::memory::Slice;
use fw_engine::{GuestOffloads, Permit};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::link::{self, Link};
use super::vectored::{Spare, write_record};
use super::{MTU_DEFAULT, Sent, Uplink, UplinkError, outcome, permitted, tun};

const DEVICE: &str = "/dev/net/tun";

/// The device is gone, or the descriptor is not what it was. (EINVAL: not this frame. EIO: the device is down, which its
/// operator may end.)
const GONE: &[i32] = &[libc::EBADFD, libc::ENODEV, libc::ENXIO, libc::EBADF];

/// Frames that wait in the tap while the guest has no room.
const QUEUE_LEN: u32 = 4096;

const NO_OFFLOADS: GuestOffloads = GuestOffloads { csum: false, tso4: false, tso6: false, ecn: false };

/// A tap.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    mtu: u16,
    spare: Spare,
}

impl Tap {
    /// Opens the tap `name`, makes it if absent, and sets it up with `mtu` (else its own stays).
    ///
    /// # Errors
    /// See [`UplinkError`].
    pub fn open(name: &str, mtu: Option<u16>) -> Result<Self, UplinkError> {
        let was_there = find(name)?.is_some();
        let fd = attach(name)?;
        let link = set_up(name, was_there, mtu)?;
        bring_up(name, &link)?;
        Self::new(fd, name, mtu.unwrap_or(link.mtu))
    }

    /// Opens the tap `name` as a port of the bridge with index `bridge`, with the bridge's MTU. `mtu` is what the
    /// guest may use of it.
    pub(super) fn open_on_bridge(name: &str, bridge: &Link, mtu: u16) -> Result<Self, UplinkError> {
        let fd = attach(name)?;
        let link = set_up(name, false, Some(bridge.mtu))?;
        if link.controller != Some(bridge.index) {
            link::enslave(link.index, bridge.index)
                .map_err(refused(name, "becoming a port of the bridge"))?;
        }
        bring_up(name, &link)?;
        Self::new(fd, name, mtu)
    }

    /// Takes over an inherited tap that is set up already. Its MTU is `mtu`, else that of the device of its name,
    /// else (the device lives in another network namespace) 1500.
    ///
    /// # Errors
    /// See [`UplinkError`].
    pub fn adopt(fd: RawFd, mtu: Option<u16>) -> Result<Self, UplinkError> {
        let wrong = |what: String| UplinkError::TapFd { fd, what };
        let owned = tun::inherit(fd).map_err(|error| wrong(error.to_string()))?;
        let attached = tun::attached(owned.as_fd()).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTTY | libc::EINVAL) => wrong("it is no tun descriptor".to_owned()),
            Some(libc::EBADFD) => wrong("it is attached to no device, or its device is gone".to_owned()),
            Some(_) | None => wrong(error.to_string()),
        })?;
        if !attached.is_ours {
            return Err(wrong(format!("`{}` is no tap with a virtio-net header", attached.name)));
        }
        rustix::io::fcntl_setfd(&owned, rustix::io::FdFlags::CLOEXEC)
            .and_then(|()| rustix::io::ioctl_fionbio(&owned, true))
            .map_err(|error| wrong(error.to_string()))?;
        let mtu = mtu.or_else(|| Some(find(&attached.name).ok()??.mtu)).unwrap_or_else(|| {
            log::warn!(
                "tap `{}` is in another network namespace; MTU {MTU_DEFAULT}, or say --mtu",
                attached.name
            );
            MTU_DEFAULT
        });
        Self::new(owned, &attached.name, mtu)
    }

    fn new(fd: OwnedFd, name: &str, mtu: u16) -> Result<Self, UplinkError> {
        let step = |step| move |source| UplinkError::Tap { name: name.to_owned(), step, source };
        tun::set_header(fd.as_fd()).map_err(step("making the virtio-net header 12 bytes long"))?;
        // Until the guest says what it takes: whole frames only, whatever an earlier user of the tap had set.
        tun::set_offloads(fd.as_fd(), NO_OFFLOADS).map_err(step("clearing the offloads"))?;
        Ok(Self { fd, mtu, spare: Spare::new() })
    }

    pub(super) fn write(&mut self, record: &[u8], tail: &[Slice<'_>]) -> io::Result<Sent> {
        outcome(write_record(self.fd.as_fd(), record, tail, &mut self.spare), GONE)
    }
}

impl Uplink for Tap {
    fn readable_fd(&self) -> Option<RawFd> {
        Some(self.fd.as_raw_fd())
    }

    fn send(&mut self, permit: Permit, record: &mut [u8], tail: &[Slice<'_>]) -> io::Result<Sent> {
        match permitted(&permit, record, tail) {
            Some(record) => self.write(record, tail),
            None => Ok(Sent::Refused),
        }
    }

    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut *buffer)) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn mtu(&self) -> u16 {
        self.mtu
    }

    fn set_offloads(&mut self, offloads: GuestOffloads) -> io::Result<()> {
        tun::set_offloads(self.fd.as_fd(), offloads)
    }
}

pub(super) fn find(name: &str) -> Result<Option<Link>, UplinkError> {
    link::find(name).map_err(refused(name, "looking it up"))
}

pub(super) fn attach(name: &str) -> Result<OwnedFd, UplinkError> {
    if !is_name(name) {
        return Err(UplinkError::Name(name.to_owned()));
    }
    let fd = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| UplinkError::NoTun(error.into()))?;
    tun::attach(fd.as_fd(), name).map_err(|source| match source.raw_os_error() {
        Some(libc::EBUSY) => UplinkError::Busy(name.to_owned()),
        Some(libc::EPERM | libc::EACCES) => UplinkError::Forbidden(name.to_owned()),
        Some(libc::EINVAL | libc::EEXIST) => UplinkError::NotATap(name.to_owned()),
        Some(_) | None => UplinkError::Tap { name: name.to_owned(), step: "attaching to it", source },
    })?;
    Ok(fd)
}

/// What the kernel takes as a name (`dev_valid_name`), without `%`, which it would replace by a number.
fn is_name(name: &str) -> bool {
    (1..16).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/%:".contains(&byte))
}

/// Gives an attached tap its queue and MTU. Changes nothing that is as it should be, so that a tap which root
/// prepared needs no privilege.
pub(super) fn set_up(name: &str, was_there: bool, mtu: Option<u16>) -> Result<Link, UplinkError> {
    let gone = || refused(name, "looking it up")(io::Error::from_raw_os_error(libc::ENODEV));
    let link = find(name)?.ok_or_else(gone)?;
    if !was_there && let Err(error) = link::silence_ipv6(link.index) {
        log::debug!("tap `{name}`: IPv6 is left as it is: {error}");
    }
    if link.queue < QUEUE_LEN
        && let Err(error) = link::set_queue(link.index, QUEUE_LEN)
    {
        log::warn!("tap `{name}` keeps its queue of {} frames: {error}", link.queue);
    }
    if let Some(mtu) = mtu.filter(|mtu| *mtu != link.mtu) {
        link::set_mtu(link.index, mtu).map_err(refused(name, "setting its MTU"))?;
    }
    Ok(link)
}

pub(super) fn bring_up(name: &str, link: &Link) -> Result<(), UplinkError> {
    if link.is_up { Ok(()) } else { link::bring_up(link.index).map_err(refused(name, "bringing it up")) }
}

pub(super) fn refused(name: &str, step: &'static str) -> impl Fn(io::Error) -> UplinkError {
    let name = name.to_owned();
    move |source| UplinkError::Link { name: name.clone(), step, source }
}
