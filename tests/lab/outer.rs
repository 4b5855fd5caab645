//! A machine around a nested Cloud Hypervisor, where the host's own KVM cannot boot a guest: QEMU emulates a processor
//! with SVM, Debian's kernel with KVM runs on it, and our programs in that.
//!
//! It may know what the machine is made of. It must never know what is run in it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::host;
use crate::image::Image;
use crate::process::Process;
use crate::program;
use crate::rung::{self, Vmm};
use crate::suite::{SIZE, Size};

/// Tells a program that it is in the outer machine.
const INSIDE: &str = "PORTCULLIS_NESTED";

/// Whether this is the outer machine.
#[must_use]
pub fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// What the machine says at last when its errand ended with this exit code.
#[must_use]
pub fn ended(code: u8) -> String {
    format!("PORTCULLIS-OUTER-EXIT {code}\n")
}

/// What runs in the outer machine.
#[derive(Debug)]
pub struct Errand<'a> {
    /// The program: this one's like, with its words.
    pub program: PathBuf,
    /// Its words.
    pub words: &'a [&'a str],
    /// The VMM that is nested.
    pub vmm: &'a Path,
    /// How long it may take.
    pub patience: Duration,
}

impl Errand<'_> {
    /// Runs it to its end, with everything of ours beside it; all that the console showed. `hear` gets each line as it
    /// comes. Files are left in `folder`.
    ///
    /// # Errors
    /// The machine does not run, or is not done in time.
    pub fn run(&self, image: &Image, folder: &Path, mut hear: impl FnMut(&str)) -> Result<String> {
        let outer = folder.join("outer");
        image.outer(&self.parts()?, &self.orders()?, &outer)?;
        let console = folder.join("console");
        let mut machine = Process::start("outer", &mut emulated(image, &outer, &console)?, folder)?;
        let end = Instant::now() + self.patience;
        let mut heard = 0;
        loop {
            let alive = machine.is_alive();
            let said = fs::read(&console).unwrap_or_default();
            let said = String::from_utf8_lossy(&said).replace('\r', "");
            let whole = said.rfind('\n').map_or(0, |end| end + 1);
            said.get(heard..whole).unwrap_or_default().lines().for_each(&mut hear);
            heard = whole.max(heard);
            if !alive && said.contains("PORTCULLIS-OUTER-EXIT") {
                return Ok(said);
            }
            if !alive {
                bail!("the machine around Cloud Hypervisor ended with:\n{}", tail(&said));
            }
            if Instant::now() > end {
                bail!("it was not done after {:?}; it said last:\n{}", self.patience, tail(&said));
            }
            thread::sleep(Duration::from_millis(500));
        }
    }

    fn parts(&self) -> Result<Vec<PathBuf>> {
        let mut parts = vec![self.program.clone(), self.vmm.to_owned()];
        for name in ["vhost-fw", "guest-probe", "lab"] {
            let ours = program::ours(name)?;
            if !parts.contains(&ours) {
                parts.push(ours);
            }
        }
        parts.push(program::need("ip")?);
        parts.extend(program::on_path("dnsmasq"));
        Ok(parts)
    }

    fn orders(&self) -> Result<String> {
        let name = self.program.file_name().and_then(|name| name.to_str()).context("a program's name")?;
        Ok(format!(
            "export {INSIDE}=1 {}=1 PORTCULLIS_KVM=works PORTCULLIS_BIN=/usr/bin PORTCULLIS_IMAGES=/lab/images {SIZE}={}\n\
             exec /usr/bin/{name} {}\n",
            host::INSIDE,
            Size::asked().word(),
            self.words.join(" ")
        ))
    }
}

fn emulated(image: &Image, initramfs: &Path, console: &Path) -> Result<Command> {
    let Vmm::Qemu(qemu, _) = rung::qemu()? else { bail!("no QEMU") };
    let mut command = Command::new(qemu);
    command.args(["-machine", "q35", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "4G"]);
    command.args(["-nodefaults", "-display", "none", "-no-reboot"]);
    command.arg("-serial").arg(format!("file:{}", console.display()));
    command.arg("-kernel").arg(&image.vmlinuz).arg("-initrd").arg(initramfs);
    command.args(["-append", "console=ttyS0 panic=-1 loglevel=3"]);
    Ok(command)
}

fn tail(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
}
