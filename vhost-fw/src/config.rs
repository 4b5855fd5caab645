//! What the operator may set: flags, and the same keys in a file.
//!
//! Flags win over the file, and what is left is checked before anything is opened. Knows spellings and ranges.
//! Never knows what is done with a setting.

mod file;
mod nic;
mod verbs;

use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand};
use fw_control::control_in;
use fw_model::{MacAddr, NicId};

use crate::handover::Restore;
use crate::nic::Record;
use crate::uplink::UplinkChoice;
pub(crate) use nic::uplink_of;
pub use nic::{NicArgs, NicVerb};
pub use verbs::{ConnsVerb, CtlArgs, CtlVerb, Form, HandoverVerb, ProbeProtocol};

const EXAMPLES: &str = "\
Examples:
  vhost-fw --socket /run/vm1.sock --tap vm1 --rules web-1.yaml
  cloud-hypervisor … --net vhost_user=true,socket=/run/vm1.sock,num_queues=2
  qemu-system-x86_64 … -object memory-backend-memfd,id=m,size=1G,share=on \\
    -machine memory-backend=m -chardev socket,id=c,path=/run/vm1.sock \\
    -netdev vhost-user,id=n,chardev=c -device virtio-net-pci,netdev=n
  vhost-fw ctl --nic web-1 stats
  vhost-fw simulate --rules web-1.yaml --pcap seen.pcap";

/// Judge every frame of one VM NIC.
#[derive(Debug, Parser)]
#[command(name = "vhost-fw", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; the device runs if nothing is named.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// The device's settings.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Judge frames from a file, without a VM
    Simulate(SimulateArgs),
    /// Ask or tell a running NIC
    Ctl(CtlArgs),
    /// Prepare a NIC on this host, or take it away
    Nic(NicArgs),
    /// Print the table of reasons
    Reasons,
}

/// Settings of the device, as written.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub struct DeviceArgs {
    /// The vhost-user socket: listen here
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Connect to --socket instead of listening
    #[arg(long)]
    pub client: bool,
    /// Uplink: this tap, made if absent
    #[arg(long, value_name = "NAME", group = "uplinks")]
    pub tap: Option<String>,
    /// Uplink: a new tap on this bridge
    #[arg(long, value_name = "NAME", group = "uplinks")]
    pub bridge: Option<String>,
    /// Uplink: an inherited tap
    #[arg(long, value_name = "N", group = "uplinks")]
    pub tap_fd: Option<RawFd>,
    /// Uplink: null (judge and discard) or unix:PATH
    #[arg(long, value_name = "KIND", group = "uplinks")]
    pub uplink: Option<UplinkChoice>,
    /// The NIC's id; the rules must say the same
    #[arg(long, value_name = "ID")]
    pub nic: Option<NicId>,
    /// Rules from the start; SIGHUP reads them again
    #[arg(long, value_name = "FILE")]
    pub rules: Option<PathBuf>,
    /// [/run/portcullis/<nic>/control.sock]
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Where NICs have their folders [/run/portcullis]
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Queue pairs [1, the only number yet]
    #[arg(long, value_name = "N")]
    pub queues: Option<u16>,
    /// Largest ring, a power of two [1024]
    #[arg(long, value_name = "N")]
    pub queue_size: Option<u16>,
    /// MAC address offered to the guest [the rules']
    #[arg(long)]
    pub mac: Option<MacAddr>,
    /// MTU offered to the guest [the uplink's]
    #[arg(long, value_name = "BYTES")]
    pub mtu: Option<u16>,
    /// Size of the conn table [65536]
    #[arg(long, value_name = "N")]
    pub max_connections: Option<u32>,
    /// The cluster's key: conns move with the VM
    #[arg(long, value_name = "FILE")]
    pub state_key: Option<PathBuf>,
    /// Keep a copy of the conns here, for the next start
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Unannounced tables: revalidate, refuse or empty
    #[arg(long, value_name = "HOW")]
    pub restore: Option<Restore>,
    /// Outlive a crash, unseen by the VMM
    #[arg(long)]
    pub keeper: bool,
    /// What a keeper says to its worker.
    #[arg(long, hide = true)]
    pub kept: bool,
    /// Never sleep: a whole CPU for the least delay
    #[arg(long)]
    pub poll: bool,
    /// Keep the data thread on this CPU
    #[arg(long, value_name = "CPU")]
    pub pin: Option<u16>,
    /// Write decisions here instead of stderr
    #[arg(long, value_name = "FILE")]
    pub decision_log: Option<PathBuf>,
    /// error, warn, info, debug or trace [info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<log::LevelFilter>,
    /// Run where the kernel lacks sandbox features
    #[arg(long)]
    pub allow_missing_sandbox: bool,
    /// The same keys, in YAML; flags win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check settings and rules, and exit
    #[arg(long)]
    pub check: bool,
}

/// `simulate`.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The rules file
    #[arg(long, value_name = "FILE")]
    pub rules: PathBuf,
    /// Steps as JSON lines; - for stdin
    #[arg(long, value_name = "FILE", group = "input", required = true)]
    pub steps: Option<PathBuf>,
    /// A capture; frames from nic.mac are the guest's
    #[arg(long, value_name = "FILE", group = "input", required = true)]
    pub pcap: Option<PathBuf>,
}

/// Settings of the device, checked.
#[derive(Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// The vhost-user socket.
    pub socket: PathBuf,
    /// Connect instead of listening.
    pub client: bool,
    /// Where frames go.
    pub uplink: UplinkChoice,
    /// The NIC, if named.
    pub nic: Option<NicId>,
    /// Rules from the start, if any.
    pub rules: Option<PathBuf>,
    /// The control socket, if not the default one.
    pub control: Option<PathBuf>,
    /// Where NICs have their folders.
    pub run_dir: PathBuf,
    /// Largest ring.
    pub queue_size: u16,
    /// MAC address offered to the guest, if not the rules'.
    pub mac: Option<MacAddr>,
    /// MTU offered to the guest, if not the uplink's.
    pub mtu: Option<u16>,
    /// Size of the conn table.
    pub max_connections: u32,
    /// The cluster's key.
    pub state_key: Option<PathBuf>,
    /// Where the crash copy is kept, if one is.
    pub state_dir: Option<PathBuf>,
    /// What becomes of a table that nobody announced.
    pub restore: Restore,
    /// Stand in front of a worker.
    pub keeper: bool,
    /// Be the worker of the keeper at standard input.
    pub kept: bool,
    /// Look for frames without ever sleeping.
    pub poll: bool,
    /// The CPU the data thread stays on.
    pub pin: Option<u16>,
    /// Where decisions are written, if not to stderr.
    pub decision_log: Option<PathBuf>,
    /// How much is logged.
    pub log_level: log::LevelFilter,
    /// Run without part of the sandbox.
    pub allow_missing_sandbox: bool,
    /// Check and exit.
    pub check: bool,
}

/// Where NICs have their folders.
pub const RUN_DIR: &str = "/run/portcullis";
const QUEUE_SIZE_MIN: u16 = 16;
const QUEUE_SIZE_MAX: u16 = 1024;
const CONNS_MAX: u32 = 1 << 24;
const MTU_MIN: u16 = 68;
/// Longest name of a network interface (`IFNAMSIZ` with its final zero).
const NAME_LEN_MAX: usize = 15;

impl DeviceArgs {
    /// Reads the file of `--config`, if one is named, and checks everything together.
    ///
    /// # Errors
    /// What is missing or wrong, and what would be right.
    pub fn resolve(self) -> Result<DeviceConfig, String> {
        let written = match &self.config {
            Some(path) => file::load(path).map_err(|error| error.to_string())?,
            None => Self::default(),
        };
        self.over(written).with_what_was_made()?.checked()
    }

    /// What `nic add` made for the NIC, where nothing else is named: its tap and its socket.
    fn with_what_was_made(mut self) -> Result<Self, String> {
        let Some(nic) = &self.nic else { return Ok(self) };
        let run_dir = self.run_dir.clone().unwrap_or_else(|| RUN_DIR.into());
        let made = Record::read(&run_dir, nic).map_err(|error| error.to_string())?;
        let Some(made) = made else { return Ok(self) };
        let names_none = self.tap.is_none() && self.tap_fd.is_none() && self.uplink.is_none();
        if names_none && (self.bridge.is_none() || self.bridge == made.bridge) {
            (self.tap, self.bridge) = (Some(made.tap.clone()), None);
        }
        self.socket = self.socket.or_else(|| Some(made.socket(&run_dir)));
        Ok(self)
    }

    /// These settings, and those of `file` where these say nothing. An uplink of any kind hides the file's.
    fn over(self, file: Self) -> Self {
        let own_uplink =
            self.tap.is_some() || self.bridge.is_some() || self.tap_fd.is_some() || self.uplink.is_some();
        let file = if own_uplink {
            Self { tap: None, bridge: None, tap_fd: None, uplink: None, ..file }
        } else {
            file
        };
        Self {
            socket: self.socket.or(file.socket),
            client: self.client || file.client,
            tap: self.tap.or(file.tap),
            bridge: self.bridge.or(file.bridge),
            tap_fd: self.tap_fd.or(file.tap_fd),
            uplink: self.uplink.or(file.uplink),
            nic: self.nic.or(file.nic),
            rules: self.rules.or(file.rules),
            control: self.control.or(file.control),
            run_dir: self.run_dir.or(file.run_dir),
            queues: self.queues.or(file.queues),
            queue_size: self.queue_size.or(file.queue_size),
            mac: self.mac.or(file.mac),
            mtu: self.mtu.or(file.mtu),
            max_connections: self.max_connections.or(file.max_connections),
            state_key: self.state_key.or(file.state_key),
            state_dir: self.state_dir.or(file.state_dir),
            restore: self.restore.or(file.restore),
            keeper: self.keeper || file.keeper,
            kept: self.kept,
            poll: self.poll || file.poll,
            pin: self.pin.or(file.pin),
            decision_log: self.decision_log.or(file.decision_log),
            log_level: self.log_level.or(file.log_level),
            allow_missing_sandbox: self.allow_missing_sandbox || file.allow_missing_sandbox,
            config: self.config,
            check: self.check,
        }
    }

    fn checked(self) -> Result<DeviceConfig, String> {
        let uplink = self.uplink_choice()?;
        if self.rules.is_none() && self.nic.is_none() {
            return Err(
                "name the NIC: --rules FILE (which says who it is) or --nic ID (rules follow)".to_owned()
            );
        }
        if let Some(queues) = self.queues.filter(|queues| *queues != 1) {
            return Err(format!("--queues {queues}: one queue pair is all that is built yet; leave it out"));
        }
        let queue_size = self.queue_size.unwrap_or(QUEUE_SIZE_MAX);
        if !queue_size.is_power_of_two() || !(QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX).contains(&queue_size) {
            return Err(format!(
                "--queue-size {queue_size}: expected a power of two from {QUEUE_SIZE_MIN} to {QUEUE_SIZE_MAX}"
            ));
        }
        let max_connections = self.max_connections.unwrap_or(fw_engine::Config::CONNS);
        if !(1..=CONNS_MAX).contains(&max_connections) {
            return Err(format!("--max-connections {max_connections}: expected 1 to {CONNS_MAX}"));
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < MTU_MIN) {
            return Err(format!("--mtu {mtu}: expected {MTU_MIN} to 65535"));
        }
        if let Some(mac) = self.mac.filter(|mac| mac.is_group() || *mac == MacAddr([0; 6])) {
            return Err(format!("--mac {mac}: expected one interface's MAC address"));
        }
        if self.keeper && self.client {
            return Err("--client: a keeper listens for its VMM; leave --keeper or --client out".to_owned());
        }
        if self.keeper && self.decision_log.is_some() {
            return Err(
                "--decision-log: under a keeper decisions go to stderr; leave one of them out".to_owned()
            );
        }
        if self.restore.is_some() && self.state_key.is_none() {
            return Err("--restore: without --state-key FILE no table arrives; name the key too".to_owned());
        }
        Ok(DeviceConfig {
            socket: self.socket.ok_or("name the vhost-user socket: --socket PATH")?,
            client: self.client,
            uplink,
            nic: self.nic,
            rules: self.rules,
            control: self.control,
            run_dir: self.run_dir.unwrap_or_else(|| RUN_DIR.into()),
            queue_size,
            mac: self.mac,
            mtu: self.mtu,
            max_connections,
            state_key: self.state_key,
            state_dir: self.state_dir,
            restore: self.restore.unwrap_or(Restore::Revalidate),
            keeper: self.keeper,
            kept: self.kept,
            poll: self.poll,
            pin: self.pin,
            decision_log: self.decision_log,
            log_level: self.log_level.unwrap_or(log::LevelFilter::Info),
            allow_missing_sandbox: self.allow_missing_sandbox,
            check: self.check,
        })
    }

    fn uplink_choice(&self) -> Result<UplinkChoice, String> {
        let choice = match (&self.tap, &self.bridge, self.tap_fd, &self.uplink) {
            (Some(tap), None, None, None) => UplinkChoice::Tap(interface("--tap", tap)?),
            (None, Some(bridge), None, None) => UplinkChoice::Bridge(interface("--bridge", bridge)?),
            (None, None, Some(fd), None) if fd > 2 => UplinkChoice::TapFd(fd),
            (None, None, Some(fd), None) => {
                return Err(format!("--tap-fd {fd}: expected an inherited descriptor, 3 or more"));
            }
            (None, None, None, Some(choice)) => choice.clone(),
            _ => {
                return Err(
                    "name one uplink: --tap, --bridge, --tap-fd or --uplink null|unix:PATH".to_owned()
                );
            }
        };
        Ok(choice)
    }
}

pub(crate) fn interface(flag: &str, name: &str) -> Result<String, String> {
    let fits = (1..=NAME_LEN_MAX).contains(&name.len())
        && !matches!(name, "." | "..")
        && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte));
    if fits { Ok(name.to_owned()) } else { Err(format!("{flag} `{name}`: no name of a network interface")) }
}

/// The control socket of a NIC.
#[must_use]
pub fn default_control(nic: &NicId) -> PathBuf {
    control_in(Path::new(RUN_DIR), nic)
}

#[cfg(test)]
mod tests;
