//! What one host may ask of another.
//!
//! The few things a move needs, and nothing else of what a NIC can be asked. Knows words. Never knows how they travel.

use fw_control::{Reply, Request};
use fw_model::NicId;
use serde::{Deserialize, Serialize};

use crate::vmm::VmState;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Errand {
    /// Ask a NIC of yours.
    Nic(NicId, Request),
    /// Let your VMM wait for the VM; asked again, it goes on waiting.
    AwaitVm,
    /// Where the VM is with your VMM.
    VmState,
}

/// What is answered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The NIC's answer.
    Nic(Reply),
    /// The VMM waits there, in the words of the source's VMM; without a VMM of ours the operator knows where.
    Awaiting(Option<String>),
    /// Where the VM is; absent without a VMM of ours.
    Vm(Option<VmState>),
    /// Refused, with the cause.
    Refused(String),
}

impl Errand {
    /// Whether another host may ask it.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        match self {
            Self::AwaitVm | Self::VmState => true,
            Self::Nic(_, request) => matches!(
                request,
                Request::Terms
                    | Request::Stats
                    | Request::ExpectHandover(_)
                    | Request::CancelHandover
                    | Request::ReceiveAhead(_)
            ),
        }
    }
}
