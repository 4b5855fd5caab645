//! The worker of a keeper: what it does not open but is given.
//!
//! Knows the order in which descriptors come. Never knows how they were opened.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;

use conn_snapshot::Key;
use fw_engine::PreparedRules;
use fw_model::NicId;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::succession::Keeper;
use super::{Opened, RunError, Settled, Vmm, doing, engine};
use crate::config::DeviceConfig;
use crate::crash_copy::CrashCopy;
use crate::keeper::line::{LINE_VERSION, Line, Start, Word};
use crate::keeper::rules::read_again;
use crate::ready::Readiness;
use crate::serve::{Doorway, door_of};
use crate::uplink::{self, Held};
use crate::worker::boot_time;

/// Where the workers of `nic` leave their crash copies: a folder of its own, since its user must be able to write there.
pub(super) fn copies_of(config: &DeviceConfig, nic: &NicId) -> Option<PathBuf> {
    config.state_dir.as_ref().map(|folder| folder.join(nic.as_str()))
}

/// What a keeper gives.
pub(super) struct Kept {
    line: Line,
    pulse: OwnedFd,
    seal: Key,
    successor: bool,
    control: OwnedFd,
    door: OwnedFd,
    uplink: Held,
    rules: Option<OwnedFd>,
    key: Option<Key>,
}

impl Kept {
    /// Waits for the keeper's first word.
    pub(super) fn receive() -> io::Result<Self> {
        // A worker that hangs ends with its keeper as well; a keeper that is gone by now says nothing more.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        let line = Line::inherited()?;
        let Some((Word::Start(start), given)) = line.receive()? else {
            return Err(io::Error::other("no keeper is there; leave --kept out"));
        };
        let Start { version, seal, successor, key, mtu, uplink, rules } = start;
        if version != LINE_VERSION {
            let other =
                format!("the keeper speaks version {version} with its workers, this program {LINE_VERSION}");
            return Err(io::Error::other(format!("{other}; restart the NIC to bring in this version")));
        }
        let mut given = given.into_iter();
        let mut next = || given.next().ok_or_else(|| io::Error::other("a descriptor is missing"));
        let (pulse, control, door) = (next()?, next()?, next()?);
        let uplink = Held { fd: if uplink { Some(next()?) } else { None }, mtu };
        let rules = if rules { Some(next()?) } else { None };
        let (key, seal) = (key.map(|secret| Key::new(&secret)), Key::new(&seal));
        Ok(Self { line, pulse, seal, successor, control, door, uplink, rules, key })
    }

    /// The device's parts, as if they had been opened here.
    pub(super) fn opened(self, config: &DeviceConfig) -> Result<(Settled, Opened), RunError> {
        let rules = self.rules.map(|written| read_again(written, boot_time()));
        let rules = rules.transpose().map_err(doing("reading the rules in force"))?;
        let rules = rules.map(PreparedRules::new).transpose();
        let rules = rules.map_err(|error| RunError::Settings(error.to_string()))?.map(Arc::new);
        let settled = Settled::new(config, rules, self.key)?;
        let mtu = self.uplink.mtu;
        let mut engine = engine(config, mtu).map_err(doing("/dev/urandom"))?;
        let copies = copies_of(config, &settled.nic);
        let (mut crash_copy, mut next_copy) = (None, None);
        match &copies {
            // Another worker writes to that one's place still.
            Some(copies) if self.successor => {
                let room = config.max_connections;
                let (copy, place) = CrashCopy::make_after(copies, &settled.nic, settled.key.as_ref(), room)?;
                next_copy = Some((Box::new(copy), place));
            }
            copies => {
                crash_copy = super::crash_copy(copies.as_deref(), config, &settled, &mut engine)?;
            }
        }
        let opened = Opened {
            uplink: uplink::take(&config.uplink, self.uplink)?,
            engine,
            crash_copy,
            vmm: Vmm::Kept(Keeper {
                line: self.line,
                pulse: self.pulse.into(),
                seal: self.seal,
                successor: self.successor,
                next_copy,
            }),
            door: Doorway::inherited(UnixListener::from(self.door), door_of(&settled.control)),
            listener: UnixListener::from(self.control),
            control_file: None,
            uplink_file: None,
            log: Box::new(io::stderr()),
            readiness: Readiness::from_environment().map_err(doing("NOTIFY_SOCKET"))?,
        };
        Ok((settled, opened))
    }
}
