//! What keeps an uplink from being opened.
//!
//! Every message names the place and the remedy. Knows names, paths and the kernel's answer. Never knows how the
//! uplink works.

use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Why an uplink could not be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UplinkError {
    /// `/dev/net/tun` is not usable.
    #[error(
        "/dev/net/tun cannot be opened: {0}; load the driver with `modprobe tun`, in a container pass the device in, or use `--uplink unix:PATH`, which needs neither"
    )]
    NoTun(#[source] io::Error),
    /// The name is none that a network device can have.
    #[error("`{0}` cannot name a tap: 1 to 15 characters without `/`, `%`, `:` and blanks")]
    Name(String),
    /// Somebody else holds the tap.
    #[error(
        "the tap `{0}` is in use by another process; stop that one (`fuser -v /dev/net/tun` lists the candidates) or name another tap"
    )]
    Busy(String),
    /// The tap may not be made or used.
    #[error(
        "not permitted to make or use the tap `{0}`; start with CAP_NET_ADMIN, or let root prepare it: `ip tuntap add dev {0} mode tap user <you> && ip link set {0} up`"
    )]
    Forbidden(String),
    /// The name belongs to another kind of device.
    #[error(
        "`{0}` exists and is no tap with one queue (`ip -d link show {0}`); name another one, or a bridge with `--bridge`"
    )]
    NotATap(String),
    /// A device that `nic add` did not make has the tap's name.
    #[error(
        "`{0}` is there already and was not made for this NIC; remove it (`ip link del {0}`) or name another tap"
    )]
    NotMade(String),
    /// The kernel refused a step of setting up the tap.
    #[error("setting up the tap `{name}`, {step}: {source}")]
    Tap {
        /// The tap.
        name: String,
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a change of a network device.
    #[error(
        "`{name}`, {step}: {source}; this needs CAP_NET_ADMIN, or root does it beforehand with `ip link set {name} …`"
    )]
    Link {
        /// The device.
        name: String,
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// There is no such bridge.
    #[error("there is no bridge `{0}`; make it with `ip link add {0} type bridge && ip link set {0} up`")]
    NoBridge(String),
    /// The device is no bridge.
    #[error("`{0}` is no bridge (`ip -d link show {0}`); to use a tap of that name say `--tap {0}`")]
    NotABridge(String),
    /// The bridge carries less than was asked for.
    #[error(
        "`--mtu {asked}` is more than the bridge `{bridge}` carries ({has}); lower it, or raise the bridge's with `ip link set {bridge} mtu {asked}`"
    )]
    BridgeMtu {
        /// The bridge.
        bridge: String,
        /// Its MTU.
        has: u16,
        /// The MTU asked for.
        asked: u16,
    },
    /// The inherited descriptor is not what it should be.
    #[error(
        "`--tap-fd {fd}`: {what}; it must be /dev/net/tun after TUNSETIFF with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR"
    )]
    TapFd {
        /// The descriptor.
        fd: RawFd,
        /// What is wrong with it.
        what: String,
    },
    /// Another process listens on the socket.
    #[error("another process listens on {}; stop it or name another path", .0.display())]
    SocketInUse(PathBuf),
    /// Something else stands where the socket should be.
    #[error("{} exists and is no socket; remove it or name another path", .0.display())]
    NotASocket(PathBuf),
    /// A step of listening failed.
    #[error("listening on {}, {step}: {source}; its folder must exist and be writable, and the path shorter than 108 bytes", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Not a form of `--uplink`.
    #[error("`--uplink {0}`: expected `null` or `unix:PATH`")]
    Choice(String),
}
