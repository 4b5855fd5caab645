//! Tells the service manager that the NIC is ready (`sd_notify(3)`).
//!
//! Ready means: the rules are in force and a VMM can connect. Knows the manager's socket, which it opens before the
//! sandbox closes. Never knows a rule.

use std::env;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};

/// The way to the service manager, if one waits.
pub(crate) struct Readiness {
    manager: Option<UnixDatagram>,
    told: AtomicBool,
}

impl Readiness {
    /// Opens the socket of `NOTIFY_SOCKET`: a path, or an abstract name after `@`.
    ///
    /// # Errors
    /// It is named and cannot be reached.
    pub(crate) fn from_environment() -> io::Result<Self> {
        let told = AtomicBool::new(false);
        let Some(place) = env::var_os("NOTIFY_SOCKET") else { return Ok(Self { manager: None, told }) };
        let address = match place.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(&place)?,
        };
        let manager = UnixDatagram::unbound()?;
        manager.connect_addr(&address)?;
        // A manager that does not listen must not hold the NIC up.
        manager.set_nonblocking(true)?;
        Ok(Self { manager: Some(manager), told })
    }

    /// The rules of `generation` are in force. The first time it means that the NIC is ready.
    pub(crate) fn enforced(&self, generation: u64) {
        let Some(manager) = &self.manager else { return };
        let ready = if self.told.swap(true, Ordering::Relaxed) { "" } else { "READY=1\n" };
        let told = manager.send(format!("{ready}STATUS=generation {generation} is enforced\n").as_bytes());
        if let Err(error) = told {
            log::warn!("the service manager was not told: {error}");
        }
    }
}
