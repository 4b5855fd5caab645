//! A real guest behind a vhost-user socket, driven over a serial line.
//!
//! It may know the command lines of QEMU and Cloud Hypervisor and the guest's agent. It must never know rules or
//! what a command's outcome should be.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::host;
use crate::image::Image;
use crate::process::Process;
use crate::rung::{Processor, Rung, Vmm};

/// Where the guest's NIC ends.
#[derive(Debug, Clone)]
pub enum Wire {
    /// At a vhost-user backend that listens there.
    VhostUser(PathBuf),
    /// At a tap of this name, with nothing in between: what a guest gets without a firewall.
    Tap(String),
}

/// What a guest is.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Its name, and its files' name.
    pub name: String,
    /// The MAC address of its NIC.
    pub mac: String,
    /// Where its NIC ends.
    pub wire: Wire,
    /// Orders for its `/init`, as `images/README.md` lists them, without `pc.`.
    pub orders: Vec<String>,
    /// Where it runs and how it moves, if it moves.
    pub moving: Option<Moving>,
}

/// A guest that moves between hosts.
#[derive(Debug, Clone)]
pub struct Moving {
    /// The network namespace it runs in.
    pub place: String,
    /// The host's own folder. Cloud Hypervisor takes its sockets' paths along: they are relative to this one.
    pub home: PathBuf,
    /// Where the VMM takes orders: QMP or Cloud Hypervisor's API.
    pub monitor: PathBuf,
    /// Where the guest arrives from, if it does not boot.
    pub incoming: Option<PathBuf>,
}

impl Moving {
    /// Where QEMU takes another's orders: each of its monitors talks with one at a time.
    #[must_use]
    pub fn orders(&self) -> PathBuf {
        self.monitor.with_extension("orders")
    }

    /// Where Cloud Hypervisor tells what happens.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.monitor.with_extension("events")
    }
}

/// A running guest.
#[derive(Debug)]
pub struct Vm {
    name: String,
    process: Process,
    agent: Agent,
    fast: bool,
}

/// What a command in the guest came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its exit status.
    pub status: i32,
    /// What it printed, both ways.
    pub text: String,
}

impl Vm {
    /// Starts a guest; [`Vm::wait`] waits for it.
    ///
    /// # Errors
    /// The VMM does not start.
    pub fn start(rung: &Rung, image: &Image, spec: &Spec, folder: &Path) -> Result<Self> {
        let home = spec.moving.as_ref().map_or(folder, |moving| moving.home.as_path());
        let agent = home.join(format!("{}.agent", spec.name));
        let mut command = match &rung.vmm {
            Vmm::Qemu(program, _) => qemu(program, rung.processor, image, spec, &agent, folder)?,
            Vmm::CloudHypervisor(program) => cloud_hypervisor(program, image, spec, &agent)?,
        };
        let mut process = Process::start(&spec.name, &mut command, folder)?;
        let mut agent = Agent::at(agent);
        let arrives = spec.moving.as_ref().is_some_and(|moving| moving.incoming.is_some());
        if !arrives || matches!(rung.vmm, Vmm::Qemu(..)) {
            process.wait_until(Duration::from_secs(20), || agent.connect().is_ok())?;
        }
        Ok(Self { name: spec.name.clone(), process, agent, fast: rung.is_fast() })
    }

    /// Waits until the guest answers.
    ///
    /// # Errors
    /// It ends, or does not answer in time (20 s with KVM, 120 s in emulation).
    pub fn wait(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(if self.fast { 20 } else { 120 });
        while Instant::now() < end {
            if !self.process.is_alive() {
                bail!("the VM {} ended:\n{}", self.name, self.process.log_tail());
            }
            match self.agent.run("true", Duration::from_millis(700)) {
                Ok(_) => return Ok(()),
                // Cloud Hypervisor makes the line anew when the guest resets.
                Err(_) if self.agent.stream.is_none() => self.agent.join_again(),
                Err(_) => {}
            }
        }
        bail!("the VM {} does not answer:\n{}", self.name, self.process.log_tail())
    }

    /// Runs a shell command in the guest.
    ///
    /// # Errors
    /// The guest does not answer within `patience`.
    pub fn run_within(&mut self, command: &str, patience: Duration) -> Result<Answer> {
        self.agent.run(command, patience).with_context(|| format!("{}: {command}", self.name))
    }

    /// Runs a shell command in the guest, for 30 s at most.
    ///
    /// # Errors
    /// The guest does not answer.
    pub fn run(&mut self, command: &str) -> Result<Answer> {
        self.run_within(command, Duration::from_secs(30))
    }

    /// Runs a shell command in the guest that must go well, and returns what it printed.
    ///
    /// # Errors
    /// It fails or the guest does not answer.
    pub fn must(&mut self, command: &str) -> Result<String> {
        let answer = self.run(command)?;
        if answer.status != 0 {
            bail!("{}: {command}: status {}: {}", self.name, answer.status, answer.text.trim());
        }
        Ok(answer.text)
    }

    /// Resets the guest and waits until it is up again.
    ///
    /// # Errors
    /// It does not come back, or comes back without having been away.
    pub fn reboot(&mut self) -> Result<()> {
        let before = self.must("cat /proc/sys/kernel/random/boot_id")?;
        self.agent.tell("sync; reboot -f")?;
        thread::sleep(Duration::from_millis(500));
        self.wait()?;
        if self.must("cat /proc/sys/kernel/random/boot_id")? == before {
            bail!("the VM {} did not reboot", self.name);
        }
        Ok(())
    }

    /// The VMM's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The end of the VMM's log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// Lets the VM live on after this program; its process id.
    pub fn let_go(self) -> u32 {
        self.process.let_go()
    }
}

fn orders(spec: &Spec, console: &str, agent: &str) -> String {
    let own: String = spec.orders.iter().map(|order| format!(" pc.{order}")).collect();
    format!("{console} panic=-1 loglevel=3 random.trust_cpu=on pc.name={} pc.agent={agent}{own}", spec.name)
}

fn qemu(
    program: &Path,
    processor: Processor,
    image: &Image,
    spec: &Spec,
    agent: &Path,
    folder: &Path,
) -> Result<Command> {
    let moving = spec.moving.as_ref();
    let mut command = host::command_in(moving.map(|moving| moving.place.as_str()), program)?;
    let (accel, cpu) = match processor {
        Processor::Kvm => ("kvm", "host"),
        Processor::Emulated => ("tcg", "max"),
    };
    command.args([
        "-accel",
        accel,
        "-cpu",
        cpu,
        "-m",
        "256",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
    ]);
    command.args([
        "-object",
        "memory-backend-memfd,id=m,size=256M,share=on",
        "-machine",
        "q35,memory-backend=m",
    ]);
    command.arg("-serial").arg(format!("file:{}", folder.join(format!("{}.console", spec.name)).display()));
    command.arg("-chardev").arg(format!("socket,id=a,path={},server=on,wait=off", agent.display()));
    command.args(["-serial", "chardev:a"]);
    match &spec.wire {
        Wire::VhostUser(socket) => {
            command.arg("-chardev").arg(format!("socket,id=c,path={},reconnect=1", socket.display()));
            command.args(["-netdev", "vhost-user,chardev=c,id=n"]);
        }
        Wire::Tap(name) => {
            command.arg("-netdev").arg(format!("tap,id=n,ifname={name},script=no,downscript=no"));
        }
    }
    // Without KVM, QEMU up to 7.2 dies when a guest unmasks a vhost-user NIC's MSI-X vector: it looks for an irqfd
    // that only KVM makes. A level interrupt has no vectors.
    let vectors = match processor {
        Processor::Kvm => "",
        Processor::Emulated => ",vectors=0",
    };
    command.arg("-device").arg(format!("virtio-net-pci,netdev=n,mac={},romfile={vectors}", spec.mac));
    command.arg("-kernel").arg(&image.vmlinuz).arg("-initrd").arg(&image.initramfs);
    command.arg("-append").arg(orders(spec, "console=ttyS0 no_timer_check", "ttyS1"));
    if let Some(moving) = moving {
        for monitor in [moving.monitor.clone(), moving.orders()] {
            command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
        }
        if let Some(incoming) = &moving.incoming {
            command.arg("-incoming").arg(format!("unix:{}", incoming.display()));
        }
    }
    Ok(command)
}

fn cloud_hypervisor(program: &Path, image: &Image, spec: &Spec, agent: &Path) -> Result<Command> {
    let moving = spec.moving.as_ref();
    let mut command = host::command_in(moving.map(|moving| moving.place.as_str()), program)?;
    command.arg("-v");
    if let Some(moving) = moving {
        command.current_dir(&moving.home).arg("--api-socket").arg(&moving.monitor);
        command.arg("--event-monitor").arg(format!("path={}", moving.events().display()));
        // In a VM, version 53's own filter kills the thread that sends a guest: glibc asks for a file's size by newfstatat.
        command.args(["--seccomp", "log"]);
        if moving.incoming.is_some() {
            // Everything else comes with the guest.
            return Ok(command);
        }
    }
    let seen = |path: &Path| {
        let home = moving.and_then(|moving| path.strip_prefix(&moving.home).ok());
        home.unwrap_or(path).display().to_string()
    };
    command.arg("--kernel").arg(&image.vmlinux).arg("--initramfs").arg(&image.initramfs);
    // One serial line: the kernel keeps quiet on it, and the agent's marks stand out from what init prints.
    command.arg("--cmdline").arg(orders(spec, "console=ttyS0 quiet", "ttyS0"));
    command.args(["--cpus", "boot=1", "--memory", "size=256M,shared=on", "--console", "off"]);
    command.arg("--serial").arg(format!("socket={}", seen(agent)));
    let net = match &spec.wire {
        Wire::VhostUser(socket) => {
            format!("vhost_user=true,socket={},num_queues=2,queue_size=256", seen(socket))
        }
        Wire::Tap(name) => format!("tap={name}"),
    };
    command.arg("--net").arg(format!("{net},mac={}", spec.mac));
    Ok(command)
}

/// The host's end of the guest's command line.
#[derive(Debug)]
struct Agent {
    path: PathBuf,
    /// Nothing while there is no line, or it was cut.
    stream: Option<UnixStream>,
    said: Vec<u8>,
    tag: u32,
}

impl Agent {
    fn at(path: PathBuf) -> Self {
        Self { path, stream: None, said: Vec::new(), tag: 0 }
    }

    fn connect(&mut self) -> Result<()> {
        let stream = UnixStream::connect(&self.path).with_context(|| self.path.display().to_string())?;
        stream.set_read_timeout(Some(Duration::from_millis(50)))?;
        stream.set_write_timeout(Some(Duration::from_secs(5)))?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Tries to join the line again after it was cut.
    fn join_again(&mut self) {
        thread::sleep(Duration::from_millis(200));
        let _ = self.connect();
    }

    /// Gives an order whose answer nobody waits for.
    fn tell(&mut self, command: &str) -> Result<()> {
        self.tag += 1;
        let stream = self.stream.as_mut().context("there is no line to the guest")?;
        // The empty line ends whatever the line holds from before the guest listened.
        let written = stream.write_all(format!("\n@{} {command}\n", self.tag).as_bytes());
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            self.stream = None;
        }
        Ok(written?)
    }

    fn run(&mut self, command: &str, patience: Duration) -> Result<Answer> {
        self.said.clear();
        self.tell(command)?;
        let end = Instant::now() + patience;
        let mut part = [0; 4096];
        while Instant::now() < end {
            let stream = self.stream.as_mut().context("there is no line to the guest")?;
            match stream.read(&mut part) {
                Ok(0) => {
                    self.stream = None;
                    bail!("the VMM closed the agent's line");
                }
                Ok(length) => self.said.extend_from_slice(part.get(..length).unwrap_or_default()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => {
                    self.stream = None;
                    return Err(error.into());
                }
            }
            if let Some(answer) = answer(&String::from_utf8_lossy(&self.said), self.tag) {
                return Ok(answer);
            }
        }
        bail!("no answer within {patience:?}; it said:\n{}", String::from_utf8_lossy(&self.said).trim())
    }
}

/// Finds the answer to `tag` in what the guest said.
fn answer(said: &str, tag: u32) -> Option<Answer> {
    let said = said.replace('\r', "");
    let (_, after) = said.split_once(&format!("\n<{tag}\n"))?;
    let (text, status) = after.rsplit_once(&format!("\n>{tag} "))?;
    let status = status.split_once('\n')?.0.parse().ok()?;
    Some(Answer { status, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_stands_between_its_marks() {
        let said = "[ 1.0] noise\n<6\n\n>6 0\n\n<7\r\nline\r\n\n>7 3\n";
        assert_eq!(answer(said, 7), Some(Answer { status: 3, text: "line\n".into() }));
        assert_eq!(answer(said, 8), None);
        assert_eq!(answer("\n<7\nline\n", 7), None);
        assert_eq!(answer("\n<7\nline\n\n>7 1", 7), None);
    }
}
