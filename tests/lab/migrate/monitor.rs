//! Orders for the VMM that moves a guest, whichever it is.
//!
//! It may know that there are two. It must never know their languages.

use std::path::Path;

use anyhow::Result;

use super::api::Api;
use super::qmp::Qmp;
use crate::rung::Vmm;
use crate::vm::Moving;

/// A line to one VMM.
#[derive(Debug)]
pub(super) enum Monitor {
    /// QEMU's.
    Qemu(Qmp),
    /// Cloud Hypervisor's.
    CloudHypervisor(Api),
}

/// How a guest left, as its VMM sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left {
    /// When it had stopped, in microseconds of the wall clock.
    pub(super) stopped_us: u64,
    /// Milliseconds of downtime, where the VMM counts them.
    pub(super) downtime_ms: Option<u64>,
}

impl Monitor {
    /// Connects, once the VMM listens, and lets it wait for a guest if one is to arrive.
    ///
    /// # Errors
    /// It does not listen, or speaks otherwise.
    pub(super) fn connect(vmm: &Vmm, moving: &Moving) -> Result<Self> {
        match vmm {
            Vmm::Qemu(..) => Qmp::connect(&moving.monitor).map(Self::Qemu),
            Vmm::CloudHypervisor(_) => {
                let mut api = Api::connect(&moving.monitor, moving.events())?;
                if let Some(door) = &moving.incoming {
                    api.receive(door)?;
                }
                Ok(Self::CloudHypervisor(api))
            }
        }
    }

    /// Moves the guest to the VMM that waits at `to`, and returns when it has left.
    ///
    /// # Errors
    /// It does not leave: the error is the VMM's.
    pub(super) fn migrate(&mut self, to: &Path) -> Result<Left> {
        match self {
            Self::Qemu(qmp) => qmp.migrate(to),
            Self::CloudHypervisor(api) => api.migrate(to),
        }
    }

    /// Returns when a guest that another one moves has left.
    ///
    /// # Errors
    /// It does not leave: the error is the VMM's.
    pub(super) fn left(&mut self) -> Result<Left> {
        match self {
            Self::Qemu(qmp) => qmp.left(),
            Self::CloudHypervisor(api) => api.left(),
        }
    }

    /// Whether a guest runs here; no answer is none.
    pub(super) fn is_running(&mut self) -> bool {
        match self {
            Self::Qemu(qmp) => qmp.is_running(),
            Self::CloudHypervisor(api) => api.is_running(),
        }
    }

    /// Whether a guest is on its way from here.
    pub(super) fn is_sending(&mut self) -> bool {
        match self {
            Self::Qemu(qmp) => qmp.is_sending(),
            Self::CloudHypervisor(_) => false,
        }
    }

    /// Lets a guest's memory go at so many bytes per second, so that there is time to interfere.
    ///
    /// # Errors
    /// The VMM refuses, or cannot.
    pub(super) fn slow_down(&mut self, bytes_per_s: u64) -> Result<()> {
        match self {
            Self::Qemu(qmp) => qmp.slow_down(bytes_per_s),
            Self::CloudHypervisor(_) => anyhow::bail!("Cloud Hypervisor sends as fast as it can"),
        }
    }

    /// Waits until the guest runs here; since when, in microseconds of the wall clock.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn wait_running(&mut self) -> Result<u64> {
        match self {
            Self::Qemu(qmp) => qmp.wait_running(),
            Self::CloudHypervisor(api) => api.wait_running(),
        }
    }
}
