//! Which rung of reality this machine carries: which VMM, whether KVM works, and what the VMs are wired with.
//!
//! It may know programs, versions and devices. It must never know what will run on the rung.

use std::fmt;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::image::Image;
use crate::outer;
use crate::process::{Process, run};
use crate::program;

/// The program that runs a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Vmm {
    /// Cloud Hypervisor.
    CloudHypervisor(PathBuf),
    /// QEMU with its version.
    Qemu(PathBuf, (u32, u32)),
}

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processor {
    /// The processor itself.
    Kvm,
    /// QEMU's emulation of one.
    Emulated,
}

/// What carries frames between the firewalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wiring {
    /// Taps on a bridge, in namespaces of our own.
    Bridge,
    /// `unix:` uplinks and a switch in user space: no privilege at all.
    Switch,
}

/// A rung.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rung {
    /// The program that runs the VMs.
    pub vmm: Vmm,
    /// What executes the guest's instructions.
    pub processor: Processor,
    /// What carries frames.
    pub wiring: Wiring,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.vmm {
            Vmm::CloudHypervisor(_) => f.write_str("Cloud Hypervisor")?,
            Vmm::Qemu(_, (major, minor)) => write!(f, "QEMU {major}.{minor}")?,
        }
        f.write_str(match self.processor {
            Processor::Kvm => " with KVM",
            Processor::Emulated => " in emulation",
        })?;
        f.write_str(match self.wiring {
            Wiring::Bridge => ", taps on a bridge in a namespace of its own",
            Wiring::Switch => ", unix: uplinks and a switch in user space",
        })
    }
}

impl Rung {
    /// The highest rung this machine carries with this wiring: Cloud Hypervisor where it is installed and KVM works,
    /// else QEMU with KVM, else QEMU in emulation.
    ///
    /// # Errors
    /// There is no QEMU, or it is older than 7.2.
    pub fn pick(image: &Image, wiring: Wiring) -> Result<Self> {
        let kvm = kvm_boots(image);
        if let Some(vmm) = program::on_path("cloud-hypervisor").filter(|_| kvm) {
            return Ok(Self { vmm: Vmm::CloudHypervisor(vmm), processor: Processor::Kvm, wiring });
        }
        let processor = if kvm { Processor::Kvm } else { Processor::Emulated };
        Ok(Self { vmm: qemu()?, processor, wiring })
    }

    /// Whether the guest runs at the machine's own pace: not in emulation, nor nested in an emulated machine.
    #[must_use]
    pub fn is_fast(&self) -> bool {
        self.processor == Processor::Kvm && !outer::is_inside()
    }
}

/// QEMU, new enough for a vhost-user NIC that reconnects.
///
/// # Errors
/// There is none, or it is too old.
pub fn qemu() -> Result<Vmm> {
    let program = program::need("qemu-system-x86_64")?;
    let said = run(&program.display().to_string(), &["--version"])?;
    let version = said.split_whitespace().skip_while(|word| *word != "version").nth(1).unwrap_or_default();
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    let version =
        numbers.next().zip(numbers.next()).with_context(|| format!("QEMU says `{}`", said.trim()))?;
    if version < (7, 2) {
        bail!("QEMU is {}.{}; 7.2 or newer is needed", version.0, version.1);
    }
    Ok(Vmm::Qemu(program, version))
}

/// Whether KVM runs a guest: it opens, makes a VM, and the VM says that it is up within ten seconds. Some machines
/// have a KVM that opens and then cannot boot a stock kernel. The answer is remembered until the next boot.
#[must_use]
pub fn kvm_boots(image: &Image) -> bool {
    if std::env::var_os("PORTCULLIS_KVM").is_some_and(|said| said == "works") {
        return true;
    }
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let memory = Image::folder().join("kvm");
    let told = fs::read_to_string(&memory).unwrap_or_default();
    if let Some(answer) = told.strip_prefix(boot.as_str()) {
        return answer == "boots";
    }
    let boots = probe_guest_prints(image).unwrap_or(false);
    let _ = fs::write(memory, format!("{boot}{}", if boots { "boots" } else { "does not boot" }));
    boots
}

fn probe_guest_prints(image: &Image) -> Result<bool> {
    let Vmm::Qemu(qemu, _) = qemu()? else { return Ok(false) };
    let folder = tempfile::tempdir()?;
    let serial = folder.path().join("serial");
    let mut command = Command::new(qemu);
    command.args([
        "-M",
        "q35",
        "-accel",
        "kvm",
        "-cpu",
        "host",
        "-m",
        "256",
        "-nodefaults",
        "-display",
        "none",
    ]);
    command.arg("-no-reboot").arg("-serial").arg(format!("file:{}", serial.display()));
    command.arg("-kernel").arg(&image.vmlinuz).arg("-initrd").arg(&image.initramfs);
    command.args(["-append", "console=ttyS0 quiet panic=-1 pc.halt=1"]);
    let mut guest = Process::start("probe", &mut command, folder.path())?;
    let printed =
        || fs::read(&serial).is_ok_and(|said| said.windows(13).any(|part| part == b"PORTCULLIS-UP"));
    let _ = guest.wait_until(Duration::from_secs(10), printed);
    Ok(printed())
}
