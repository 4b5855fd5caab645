//! The device, from settings to its end: open everything, close the sandbox, serve.
//!
//! The order is the point: what needs privileges comes before the sandbox, threads come after it, rules are in force
//! before the first frame. Knows every part by its front door. Never knows what happens behind one.

mod check;
mod keep;
mod kept;
mod running;
mod succession;

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;

use conn_snapshot::Key;
use fw_control::Reply;
use fw_engine::{Config, Engine, PreparedRules};
use fw_model::{MacAddr, NicId};
use rustix::thread::{CpuSet, sched_setaffinity};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::config::DeviceConfig;
use crate::control::{self, Control, ControlError, Nic as _, SocketFile};
use crate::crash_copy::{CrashCopy, CrashCopyError};
use crate::device::{Device, DeviceOptions};
use crate::handover::{HandoverOptions, KeyFileError, load_key};
use crate::observe::DecisionLog;
use crate::ready::Readiness;
use crate::rules_file::{self, RulesFileError};
use crate::sandbox::{Missing, Plan, RunAs, Sandbox, SandboxError};
use crate::serve::{Doorway, ServeError, Socket, door_of};
use crate::uplink::{self, Uplink, UplinkChoice, UplinkError};
use crate::worker::{WorkerGone, boot_time};

pub use check::check;
pub use keep::keep;
use kept::Kept;
use running::Running;
use succession::{Keeper, Succession};

/// Most open descriptors: a guest's memory regions, rings, sockets.
const OPEN_FILES: u64 = 1024;

/// Why the device does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings do not go together; exit code 2.
    #[error("{0}")]
    Settings(String),
    /// The rules file is refused; exit code 2.
    #[error("{0}")]
    Rules(#[from] RulesFileError),
    /// There is no key; exit code 2.
    #[error("{0}")]
    Key(#[from] KeyFileError),
    /// There is no crash copy.
    #[error("{0}")]
    CrashCopy(#[from] CrashCopyError),
    /// There is no uplink.
    #[error("{0}")]
    Uplink(#[from] UplinkError),
    /// There is no control socket.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// The sandbox does not close.
    #[error("{0} (--allow-missing-sandbox starts without it)")]
    SandboxMissing(SandboxError),
    /// The sandbox does not close.
    #[error("{0}")]
    Sandbox(SandboxError),
    /// Serving ended; exit code 75 if the uplink is gone.
    #[error("{0}")]
    Serve(#[from] ServeError),
    /// The data thread ended at once.
    #[error("{0}")]
    Worker(#[from] WorkerGone),
    /// The system refused.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

impl RunError {
    /// The process's exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::Rules(_) | Self::Key(_) => 2,
            Self::Serve(ServeError::UplinkGone(_)) => 75,
            Self::Uplink(_)
            | Self::CrashCopy(_)
            | Self::Control(_)
            | Self::SandboxMissing(_)
            | Self::Sandbox(_)
            | Self::Serve(_)
            | Self::Worker(_)
            | Self::Io(..) => 1,
        }
    }
}

fn doing(what: &str) -> impl FnOnce(io::Error) -> RunError {
    |error| RunError::Io(what.to_owned(), error)
}

/// Runs the device until it is told to stop. Called while the process has one thread.
///
/// # Errors
/// See [`RunError`].
pub fn run(config: &DeviceConfig) -> Result<(), RunError> {
    let (settled, opened) = if config.kept {
        let kept = Kept::receive().map_err(doing("hearing from the keeper at standard input"))?;
        kept.opened(config)?
    } else {
        let settled = Settled::new(config, load_rules(config)?, load_key_file(config)?)?;
        let opened = Opened::new(config, &settled)?;
        (settled, opened)
    };
    control::block_signals().map_err(doing("blocking signals"))?;
    let sandbox = close_sandbox(config, &settled, None)?;
    let Opened { uplink, engine, crash_copy, vmm, door, listener, control_file, uplink_file, log, readiness } =
        opened;
    let observer =
        DecisionLog::start(settled.nic.clone(), log).map_err(doing("starting the decision log"))?;
    let mtu = uplink.mtu();
    let device = Device::start(DeviceOptions {
        engine,
        uplink,
        mac: settled.mac,
        mtu,
        queue_size: config.queue_size,
        poll: config.poll,
        observer: Box::new(observer),
        clock: Box::new(boot_time),
        handover: settled.key.map(|key| handover_options(config, &settled.nic, key)),
        crash_copy,
        thread_setup: pinned(config.pin, sandbox.data_thread()),
    });
    let device = device.map_err(doing("starting the data thread"))?;
    sandbox.enter_control_thread().map_err(doing("closing the control thread's sandbox"))?;
    let mut nic = Running {
        worker: device.worker(),
        handover: device.handover(),
        keeper: None,
        readiness,
        standing: Mutex::default(),
        in_force: Mutex::default(),
    };
    if let Vmm::Kept(keeper) = &vmm {
        nic.keeper = Some(keeper.line.try_clone().map_err(doing("holding the keeper's line"))?);
    }
    let nic = Arc::new(nic);
    if let Some(rules) = settled.rules {
        // Nobody serves frames yet, so none was judged without rules.
        let generation = rules.rules().generation;
        if let Reply::Refused(why) = nic.install(rules) {
            return Err(RunError::Settings(why));
        }
        log::info!("generation {generation} is enforced");
    }
    let stop = EventFd::new(EFD_NONBLOCK).map_err(doing("making an eventfd"))?;
    let told = stop.try_clone().map_err(doing("making an eventfd"))?;
    let asked = Box::new(Arc::clone(&nic));
    let control = Control::new(settled.nic.clone(), asked, listener, config.rules.clone(), told);
    let control = control.map_err(doing("starting the control thread"))?;
    let served = match vmm {
        Vmm::Kept(keeper) => {
            let line = keeper.line.try_clone().map_err(doing("holding the keeper's line"))?;
            let options = handover_options(config, &settled.nic, keeper.seal.clone());
            let told = stop.try_clone().map_err(doing("making an eventfd"))?;
            let begun = Succession::begin(keeper, nic, options, control, told);
            device.serve_kept(&line, &mut begun.map_err(doing("telling the keeper"))?, door, &stop)
        }
        Vmm::Listening(socket) => {
            start_control(control, &stop)?;
            device.serve_on(socket, door, &stop)
        }
        Vmm::At(path) => {
            start_control(control, &stop)?;
            device.serve_at(&path, door, &stop)
        }
    };
    drop(device);
    drop((control_file, uplink_file));
    Ok(served?)
}

fn handover_options(config: &DeviceConfig, nic: &NicId, key: Key) -> HandoverOptions {
    HandoverOptions { nic: nic.clone(), key, restore: config.restore, conns: config.max_connections }
}

/// Settings and rules that go together.
struct Settled {
    nic: NicId,
    mac: Option<MacAddr>,
    rules: Option<Arc<PreparedRules>>,
    key: Option<Key>,
    control: PathBuf,
}

impl Settled {
    fn new(
        config: &DeviceConfig,
        rules: Option<Arc<PreparedRules>>,
        key: Option<Key>,
    ) -> Result<Self, RunError> {
        let identity = rules.as_ref().map(|rules| &rules.rules().nic);
        let named = identity.map(|identity| &identity.id);
        let nic = match (&config.nic, named) {
            (Some(nic), Some(named)) if nic != named => {
                return Err(RunError::Settings(format!("--nic {nic}: the rules are those of `{named}`")));
            }
            (Some(nic), _) | (None, Some(nic)) => nic.clone(),
            (None, None) => {
                return Err(RunError::Settings("name the NIC: --rules FILE or --nic ID".to_owned()));
            }
        };
        let own = identity.map(|identity| identity.mac);
        let mac = match (config.mac, own) {
            (Some(mac), Some(own)) if mac != own => {
                return Err(RunError::Settings(format!("--mac {mac}: the rules say {own}; leave it out")));
            }
            (mac, own) => mac.or(own),
        };
        let control = config.control.clone().unwrap_or_else(|| fw_control::control_in(&config.run_dir, &nic));
        Ok(Self { nic, mac, rules, key, control })
    }
}

fn load_rules(config: &DeviceConfig) -> Result<Option<Arc<PreparedRules>>, RunError> {
    Ok(config.rules.as_deref().map(|path| rules_file::load_prepared(path, 0)).transpose()?)
}

fn load_key_file(config: &DeviceConfig) -> Result<Option<Key>, RunError> {
    Ok(config.state_key.as_deref().map(load_key).transpose()?)
}

/// Where the VMM is.
enum Vmm {
    Listening(Socket),
    At(PathBuf),
    /// Behind a keeper.
    Kept(Keeper),
}

/// Everything that needs privileges to be opened.
struct Opened {
    uplink: Box<dyn Uplink>,
    engine: Engine,
    crash_copy: Option<Box<CrashCopy>>,
    vmm: Vmm,
    door: Doorway,
    listener: std::os::unix::net::UnixListener,
    control_file: Option<SocketFile>,
    uplink_file: Option<SocketFile>,
    log: Box<dyn Write + Send>,
    readiness: Readiness,
}

impl Opened {
    fn new(config: &DeviceConfig, settled: &Settled) -> Result<Self, RunError> {
        // First, because it tells a second process of one NIC to go before it touches the first one's tap.
        let (listener, control_file) = control::bind(&settled.control)?;
        let uplink = uplink::open(&config.uplink, &settled.nic, config.mtu)?;
        let mut engine = engine(config, uplink.mtu()).map_err(doing("/dev/urandom"))?;
        let crash_copy = crash_copy(config.state_dir.as_deref(), config, settled, &mut engine)?;
        let uplink_file = uplink_file(config)?;
        let vmm = if config.client {
            Vmm::At(config.socket.clone())
        } else {
            Vmm::Listening(Socket::bind(&config.socket)?)
        };
        let door = Doorway::beside(&settled.control)?;
        let log: Box<dyn Write + Send> = match &config.decision_log {
            Some(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                Box::new(file.map_err(doing(&path.display().to_string()))?)
            }
            None => Box::new(io::stderr()),
        };
        let control_file = Some(control_file);
        let readiness = Readiness::from_environment().map_err(doing("NOTIFY_SOCKET"))?;
        Ok(Self {
            uplink,
            engine,
            crash_copy,
            vmm,
            door,
            listener,
            control_file,
            uplink_file,
            log,
            readiness,
        })
    }
}

/// The uplink's socket, if it is one.
fn uplink_file(config: &DeviceConfig) -> Result<Option<SocketFile>, RunError> {
    match &config.uplink {
        UplinkChoice::Unix(path) => {
            Ok(Some(SocketFile::of(path).map_err(doing(&path.display().to_string()))?))
        }
        UplinkChoice::Tap(_) | UplinkChoice::Bridge(_) | UplinkChoice::TapFd(_) | UplinkChoice::Null => {
            Ok(None)
        }
    }
}

/// Gives up what is not needed to serve, or to start the program `starts` again and again.
fn close_sandbox(
    config: &DeviceConfig,
    settled: &Settled,
    starts: Option<&Path>,
) -> Result<Sandbox, RunError> {
    let door = door_of(&settled.control);
    let mut sockets: Vec<&Path> = vec![&settled.control, &door];
    if !config.client {
        sockets.push(&config.socket);
    }
    if let UplinkChoice::Unix(path) = &config.uplink {
        sockets.push(path);
    }
    let mut writable: Vec<&Path> = sockets.iter().map(|socket| folder_of(socket)).collect();
    let mut hand_over = sockets.clone();
    if config.control.is_none() {
        // The NIC's own folder; one that the operator named may be shared.
        hand_over.push(folder_of(&settled.control));
    }
    // Workers make their crash copies anew; one that stands alone has made its own by now.
    let copies = kept::copies_of(config, &settled.nic).filter(|_| starts.is_some() || config.kept);
    if let Some(copies) = &copies {
        writable.push(copies);
        if starts.is_some() {
            hand_over.push(copies);
        }
    }
    let missing = if config.allow_missing_sandbox { Missing::Allow } else { Missing::Refuse };
    let sandbox = Sandbox::prepare(&Plan {
        nic: &settled.nic,
        run_as: RunAs::Own,
        missing,
        rules: config.rules.as_deref(),
        writable: &writable,
        hand_over: &hand_over,
        // To its own doorway, also where the VMM connects to us.
        connects: true,
        uplink_listens: config.uplink.listens(),
        open_files: OPEN_FILES,
        starts,
    });
    let sandbox = sandbox.map_err(|error| {
        let lacking = matches!(error, SandboxError::Missing(_));
        if lacking { RunError::SandboxMissing(error) } else { RunError::Sandbox(error) }
    })?;
    for degraded in sandbox.degraded() {
        log::warn!("the sandbox lacks a part: {degraded}");
    }
    Ok(sandbox)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn engine(config: &DeviceConfig, mtu: u16) -> io::Result<Engine> {
    let mut hash_key = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut hash_key)?;
    Ok(Engine::new(Config { conns: config.max_connections, fragments: Config::FRAGMENTS, hash_key, mtu }))
}

/// What the process before this one left. The rules are put in force first: its conns are judged by them.
fn crash_copy(
    folder: Option<&Path>,
    config: &DeviceConfig,
    settled: &Settled,
    engine: &mut Engine,
) -> Result<Option<Box<CrashCopy>>, RunError> {
    let Some(folder) = folder else { return Ok(None) };
    let now = boot_time();
    if let Some(rules) = &settled.rules {
        engine.install(Arc::clone(rules), now);
    }
    let key = settled.key.as_ref();
    let (copy, adoption) = CrashCopy::open(folder, &settled.nic, key, config.max_connections, engine, now)?;
    log::info!("{} conns resume, {} are refused", adoption.kept + adoption.judged_again, adoption.refused());
    Ok(Some(Box::new(copy)))
}

/// A data thread's setup that first ties it to a CPU, while it still may.
fn pinned(
    cpu: Option<u16>,
    setup: Box<dyn FnOnce() -> io::Result<()> + Send>,
) -> Box<dyn FnOnce() -> io::Result<()> + Send> {
    let Some(cpu) = cpu else { return setup };
    Box::new(move || {
        let place = usize::from(cpu);
        if place >= CpuSet::MAX_CPU {
            return Err(io::Error::other(format!("--pin {cpu}: no CPU has this number")));
        }
        let mut one = CpuSet::new();
        one.set(place);
        sched_setaffinity(None, &one).map_err(|error| io::Error::other(format!("--pin {cpu}: {error}")))?;
        setup()
    })
}

fn start_control(control: Control, stop: &EventFd) -> Result<(), RunError> {
    let stop = stop.try_clone().map_err(doing("making an eventfd"))?;
    let thread = thread::Builder::new().name("control".to_owned());
    let spawned = thread.spawn(move || {
        if let Err(error) = control.run() {
            log::error!("the control thread ended, and the NIC with it: {error}");
            let _ = stop.write(1);
        }
    });
    spawned.map(drop).map_err(doing("starting the control thread"))
}
