//! The keeper, from settings to its end: opens what needs privileges, gives them up, serves.
//!
//! Knows what a worker will be given. Never knows what it does with it.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use conn_snapshot::KEY_LEN;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::kept::copies_of;
use super::{RunError, Settled, close_sandbox, doing, load_rules, uplink_file};
use crate::config::DeviceConfig;
use crate::control::{self, ControlError};
use crate::handover::load_secret;
use crate::keeper::{Keeper, Over, Watch, rules};
use crate::serve::{door_of, first_to_close};
use crate::uplink::{self, UplinkError};
use crate::worker::boot_time;

/// Runs the keeper of a NIC until it is told to stop; the process's exit code. Called while the process has one thread.
///
/// # Errors
/// See [`RunError`].
pub fn keep(config: &DeviceConfig) -> Result<u8, RunError> {
    let settled = Settled::new(config, load_rules(config)?, None)?;
    let key = config.state_key.as_deref().map(load_secret).transpose()?;
    control::block_signals().map_err(doing("blocking signals"))?;
    let bind = |path| once_free(|| control::bind(path), |error| matches!(error, ControlError::InUse(_)));
    let (control, _control_file) = bind(&settled.control)?;
    let hold = || uplink::hold(&config.uplink, &settled.nic, config.mtu);
    let held = once_free(hold, |error| matches!(error, UplinkError::Busy(_) | UplinkError::SocketInUse(_)))?;
    let _uplink_file = uplink_file(config)?;
    let (vmms, _socket_file) = bind(&config.socket)?;
    let (door, _door_file) = bind(&door_of(&settled.control))?;
    let written = settled.rules.as_ref().map(|rules| rules::write_down(rules.rules(), boot_time()));
    if let Some(copies) = copies_of(config, &settled.nic) {
        make_folder(&copies).map_err(doing(&copies.display().to_string()))?;
    }
    let seal = random_seal().map_err(doing("/dev/urandom"))?;
    let program = env::current_exe().map_err(doing("finding this program"))?;
    let sandbox = close_sandbox(config, &settled, Some(&program))?;
    drop(settled);
    let own = SigSet::from_iter([Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT]);
    let signals = SignalFd::with_flags(&own, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
    sandbox.enter_keeper().map_err(doing("closing the keeper's sandbox"))?;
    let keeper = Keeper {
        program,
        vmms: first_to_close(vmms),
        control,
        door,
        uplink: held,
        key,
        seal,
        rules: written.transpose().map_err(doing("writing the rules down"))?,
        signals: signals.map_err(|error| doing("making a signalfd")(error.into()))?,
        asker: None,
        watch: Watch::new(boot_time()),
        pause: Duration::ZERO,
    };
    match keeper.serve().map_err(doing("keeping"))? {
        Over::Stopped => Ok(0),
        Over::Code(code) => Ok(code),
    }
}

/// How long the worker of a keeper that was killed may hold what the next one wants, in milliseconds.
const LEFT_BEHIND_MS: u64 = 2_000;

/// Opens something that may be held by a process which is just ending.
fn once_free<T, E>(mut open: impl FnMut() -> Result<T, E>, is_held: fn(&E) -> bool) -> Result<T, E> {
    let end = boot_time().after_ms(LEFT_BEHIND_MS);
    loop {
        match open() {
            Err(error) if is_held(&error) && boot_time() < end => thread::sleep(Duration::from_millis(5)),
            done => return done,
        }
    }
}

/// Good for this keeper's life: what one worker seals, the next believes, and nobody else can make.
fn random_seal() -> io::Result<[u8; KEY_LEN]> {
    let mut seal = [0; KEY_LEN];
    File::open("/dev/urandom")?.read_exact(&mut seal)?;
    Ok(seal)
}

/// Its folder alone is this NIC's: those of other NICs pass through the one above.
fn make_folder(copies: &Path) -> io::Result<()> {
    if let Some(above) = copies.parent() {
        fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(copies)
}
