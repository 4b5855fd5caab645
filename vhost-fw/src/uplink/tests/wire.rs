//! The host's side of a tap, and the namespace it stands in.
//!
//! Knows packet sockets and tun descriptors as a foreign program would use them. Never knows the uplink's code.
#![expect(unsafe_code, reason = "packet sockets and tun ioctls have no safe form")]

use std::ffi::{CString, c_int};
use std::fs::File;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::Command;

use super::super::link;

const INSIDE: &str = "PORTCULLIS_TEST_IN_OWN_NETWORK";

/// Whether this is the copy of the test that runs in a network of its own. The other one starts that copy, waits for
/// it and fails if it failed; both come here first.
pub(super) fn in_own_network(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--"]);
        command
    };
    let can = unshare().arg("true").output().is_ok_and(|output| output.status.success());
    if !can || !Path::new("/dev/net/tun").exists() {
        eprintln!(
            "skipped {test}: needs /dev/net/tun and user namespaces (`unshare --user --map-root-user --net`)"
        );
        return false;
    }
    let full_name = format!("uplink::tests::{test}");
    let output = unshare()
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &full_name, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in its own network: {said}{complained}");
    assert!(said.contains("1 passed"), "{full_name} did not run: {said}");
    false
}

/// A packet socket on one device.
pub(super) struct Wire(OwnedFd);

impl Wire {
    pub(super) fn open(device: &str) -> Self {
        let every_protocol = u16::try_from(libc::ETH_P_ALL).unwrap().to_be();
        let index = link::find(device).unwrap().unwrap().index;
        // SAFETY: plain system calls; the address lives through `bind`, its length is its own.
        unsafe {
            let fd =
                libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(every_protocol));
            assert!(fd >= 0, "{}", std::io::Error::last_os_error());
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
            address.sll_protocol = every_protocol;
            address.sll_ifindex = i32::try_from(index).unwrap();
            let length = u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
            assert_eq!(libc::bind(fd, std::ptr::from_ref(&address).cast(), length), 0);
            let two_seconds = libc::timeval { tv_sec: 2, tv_usec: 0 };
            let size = u32::try_from(size_of::<libc::timeval>()).unwrap();
            let value = std::ptr::from_ref(&two_seconds).cast();
            assert_eq!(libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, value, size), 0);
            Self(OwnedFd::from_raw_fd(fd))
        }
    }

    pub(super) fn send(&self, frame: &[u8]) {
        assert_eq!(rustix::io::write(&self.0, frame).unwrap(), frame.len());
    }

    /// The next frame; none within two seconds is a failure.
    pub(super) fn recv(&self) -> Vec<u8> {
        let mut buffer = vec![0; 70_000];
        let length = rustix::io::read(&self.0, &mut buffer[..]).unwrap();
        buffer.truncate(length);
        buffer
    }
}

/// Gives the device 10.9.0.1/24 and a socket that may broadcast from it.
pub(super) fn speaker(device: &str) -> UdpSocket {
    let index = link::find(device).unwrap().unwrap().index;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        handle.address().add(index, Ipv4Addr::new(10, 9, 0, 1).into(), 24).execute().await.unwrap();
    });
    let socket = UdpSocket::bind("10.9.0.1:0").unwrap();
    socket.set_broadcast(true).unwrap();
    socket
}

// <linux/if_tun.h>.
pub(super) const TUN: u16 = 0x0001;
pub(super) const TAP: u16 = 0x0002;
pub(super) const NO_PI: u16 = 0x1000;
pub(super) const VNET_HDR: u16 = 0x4000;

/// A tun descriptor attached with these flags, as another program would hand it down.
pub(super) fn prepared_tap(name: &str, flags: u16) -> OwnedFd {
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request = [0_u8; 40];
    let name = CString::new(name).unwrap();
    request[..name.count_bytes()].copy_from_slice(name.as_bytes());
    request[16..18].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the kernel reads and writes one `struct ifreq`, 40 bytes.
    let answer: c_int = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) };
    assert_eq!(answer, 0, "{}", std::io::Error::last_os_error());
    file.into()
}

/// Leaves the descriptor open under its number, for whoever is told it.
pub(super) fn give_away(fd: OwnedFd) -> RawFd {
    fd.into_raw_fd()
}
