//! A VMM, as a move needs it: whether its VM can move, moving it, how far that is, and stopping that.
//!
//! It may know that there are two. It must never know a NIC.

mod cloud_hypervisor;
mod qemu;

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use cloud_hypervisor::CloudHypervisor;
use qemu::Qemu;

/// Where a VMM takes orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmmSocket {
    kind: Kind,
    path: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Qemu,
    CloudHypervisor,
}

impl FromStr for VmmSocket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}`: expected qemu:SOCKET or cloud-hypervisor:SOCKET");
        let (kind, path) = text.split_once(':').ok_or_else(expected)?;
        let kind = match kind {
            "qemu" => Kind::Qemu,
            "cloud-hypervisor" => Kind::CloudHypervisor,
            _ => return Err(expected()),
        };
        if path.is_empty() { Err(expected()) } else { Ok(Self { kind, path: path.into() }) }
    }
}

/// Where a VM is with its VMM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmState {
    /// There is none, or it has left.
    None,
    /// It is expected, or on its way here.
    Arriving,
    /// It runs.
    Running,
    /// It is here and does not run.
    Paused,
}

/// How far a move is.
#[derive(Debug, Clone, PartialEq)]
pub enum Sending {
    /// Under way: what the VMM says of it.
    Goes(String),
    /// The VM has left; milliseconds of downtime, where the VMM counts them.
    Left(Option<u64>),
    /// It failed or was cancelled, and the VMM says so.
    Failed(String),
}

/// Why a VMM does not do what it should.
#[derive(Debug, thiserror::Error)]
#[error("{vmm}: {cause}")]
pub struct VmmError {
    vmm: String,
    cause: String,
}

impl VmmError {
    fn new(vmm: &str, cause: impl ToString) -> Self {
        Self { vmm: vmm.to_owned(), cause: cause.to_string() }
    }
}

/// A VMM that takes orders.
#[derive(Debug)]
pub enum Vmm {
    /// QEMU.
    Qemu(Qemu),
    /// Cloud Hypervisor.
    CloudHypervisor(CloudHypervisor),
}

impl Vmm {
    /// Asks it who it is.
    ///
    /// # Errors
    /// It does not answer.
    pub fn open(socket: &VmmSocket) -> Result<Self, VmmError> {
        match socket.kind {
            Kind::Qemu => Qemu::open(&socket.path).map(Self::Qemu),
            Kind::CloudHypervisor => CloudHypervisor::open(&socket.path).map(Self::CloudHypervisor),
        }
    }

    /// That it carries a backend's state, and its VM runs.
    ///
    /// # Errors
    /// It is too old, or its VM cannot move now.
    pub fn require_movable(&mut self) -> Result<(), VmmError> {
        match self {
            Self::Qemu(qemu) => qemu.require_movable(),
            Self::CloudHypervisor(api) => api.require_movable(),
        }
    }

    /// Where its VM is.
    ///
    /// # Errors
    /// It does not answer.
    pub fn state(&mut self) -> Result<VmState, VmmError> {
        match self {
            Self::Qemu(qemu) => qemu.state(),
            Self::CloudHypervisor(api) => api.state(),
        }
    }

    /// Begins to send the VM to a VMM that waits at `uri`.
    ///
    /// # Errors
    /// It refuses.
    pub fn send(&mut self, uri: &str) -> Result<(), VmmError> {
        match self {
            Self::Qemu(qemu) => qemu.send(uri),
            Self::CloudHypervisor(api) => api.send(uri),
        }
    }

    /// How far that is.
    ///
    /// # Errors
    /// It does not answer.
    pub fn sending(&mut self) -> Result<Sending, VmmError> {
        match self {
            Self::Qemu(qemu) => qemu.sending(),
            Self::CloudHypervisor(api) => api.sending(),
        }
    }

    /// Stops sending; whether that can be: Cloud Hypervisor goes on to its end.
    ///
    /// # Errors
    /// It does not answer.
    pub fn cancel(&mut self) -> Result<bool, VmmError> {
        match self {
            Self::Qemu(qemu) => qemu.cancel().map(|()| true),
            Self::CloudHypervisor(_) => Ok(false),
        }
    }

    /// Lets the VM run on here, if a move that failed has left it paused.
    ///
    /// # Errors
    /// It does not answer, or the VM is gone.
    pub fn run_on(&mut self) -> Result<(), VmmError> {
        match self {
            Self::Qemu(qemu) => qemu.run_on(),
            Self::CloudHypervisor(api) => api.run_on(),
        }
    }

    /// Waits for a VM at `uri`.
    ///
    /// # Errors
    /// It refuses.
    pub fn receive(&mut self, uri: &str) -> Result<(), VmmError> {
        match self {
            Self::Qemu(qemu) => qemu.receive(uri),
            Self::CloudHypervisor(api) => api.receive(uri),
        }
    }

    /// Ends a VMM whose VM has left.
    ///
    /// # Errors
    /// It does not answer.
    pub fn leave(&mut self) -> Result<(), VmmError> {
        match self {
            Self::Qemu(qemu) => qemu.quit(),
            // It has no VM any more, and may get another.
            Self::CloudHypervisor(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vmm_is_named_by_its_kind_and_socket() {
        let socket: VmmSocket = "qemu:/run/a:b".parse().unwrap();
        assert_eq!(socket, VmmSocket { kind: Kind::Qemu, path: "/run/a:b".into() });
        for wrong in ["qemu", "qemu:", "/run/vm.sock", "xen:/run/vm.sock"] {
            assert!(wrong.parse::<VmmSocket>().unwrap_err().contains("cloud-hypervisor:SOCKET"));
        }
    }
}
