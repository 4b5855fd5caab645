//! The host a VM moves to, as the source sees it.
//!
//! Knows errands and their answers. Never knows what they are for.

use std::io;
use std::time::Duration;

use fw_control::{Reply, Request, Terms, message};
use fw_model::{HandoverId, NicId, Stats};

use crate::channel::{Channel, ChannelError, Credentials};
use crate::errand::{Errand, Outcome};
use crate::host::{self, NicError};
use crate::vmm::VmState;

/// Why the target did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    /// There is no way to it.
    #[error("the target: {0}")]
    Channel(#[from] ChannelError),
    /// The way broke.
    #[error("the target went away: {0}")]
    Gone(#[from] io::Error),
    /// It said no.
    #[error("the target refuses: {0}")]
    Refused(String),
    /// Its NIC said no.
    #[error("at the target: {0}")]
    Nic(#[from] NicError),
    /// It answered another question.
    #[error("the target gave an answer that belongs to another question")]
    Other,
}

/// A way to the target.
pub(crate) struct Target<'a> {
    address: &'a str,
    credentials: &'a Credentials,
    channel: Channel,
}

impl<'a> Target<'a> {
    pub(crate) fn open(address: &'a str, credentials: &'a Credentials) -> Result<Self, TargetError> {
        Ok(Self { address, credentials, channel: Channel::open(address, credentials)? })
    }

    /// The NIC's terms there.
    pub(crate) fn terms(&mut self, nic: &NicId) -> Result<Terms, TargetError> {
        let reply = self.nic(nic, Request::Terms)?;
        Ok(host::terms(nic.as_str(), reply)?)
    }

    pub(crate) fn stats(&mut self, nic: &NicId) -> Result<Stats, TargetError> {
        let reply = self.nic(nic, Request::Stats)?;
        Ok(host::stats(nic.as_str(), reply)?)
    }

    pub(crate) fn tell(&mut self, nic: &NicId, request: Request) -> Result<(), TargetError> {
        let reply = self.nic(nic, request)?;
        Ok(host::done(nic.as_str(), reply)?)
    }

    /// Lets the VMM there wait for the VM; where, if it is known there.
    pub(crate) fn await_vm(&mut self) -> Result<Option<String>, TargetError> {
        match self.run(&Errand::AwaitVm)? {
            Outcome::Awaiting(uri) => Ok(uri),
            Outcome::Nic(_) | Outcome::Vm(_) | Outcome::Refused(_) => Err(TargetError::Other),
        }
    }

    /// Where the VM is there, if anybody knows.
    pub(crate) fn vm_state(&mut self) -> Result<Option<VmState>, TargetError> {
        match self.run(&Errand::VmState)? {
            Outcome::Vm(state) => Ok(state),
            Outcome::Nic(_) | Outcome::Awaiting(_) | Outcome::Refused(_) => Err(TargetError::Other),
        }
    }

    /// A way of its own on which a NIC's table goes ahead.
    pub(crate) fn receive_ahead(&self, nic: &NicId, id: HandoverId) -> Result<Channel, TargetError> {
        let mut way = Self::open(self.address, self.credentials)?;
        way.tell(nic, Request::ReceiveAhead(id))?;
        Ok(way.channel)
    }

    fn nic(&mut self, nic: &NicId, request: Request) -> Result<Reply, TargetError> {
        match self.run(&Errand::Nic(nic.clone(), request))? {
            Outcome::Nic(reply) => Ok(reply),
            Outcome::Awaiting(_) | Outcome::Vm(_) | Outcome::Refused(_) => Err(TargetError::Other),
        }
    }

    fn run(&mut self, errand: &Errand) -> Result<Outcome, TargetError> {
        // A way that broke is opened once more: the receiver there may have been started again.
        let outcome = match message::exchange(&mut self.channel, errand) {
            Ok(outcome) => outcome,
            Err(error) => {
                log::debug!("the way to the target broke: {error}");
                std::thread::sleep(Duration::from_millis(200));
                self.channel = Channel::open(self.address, self.credentials)?;
                message::exchange(&mut self.channel, errand)?
            }
        };
        match outcome {
            Outcome::Refused(why) => Err(TargetError::Refused(why)),
            outcome @ (Outcome::Nic(_) | Outcome::Awaiting(_) | Outcome::Vm(_)) => Ok(outcome),
        }
    }
}
