//! Cloud Hypervisor on a machine whose KVM cannot boot a guest: QEMU emulates a processor with SVM, Debian's kernel
//! with KVM runs on it, and Cloud Hypervisor in that.
//!
//! It may know what the outer machine is made of. It must never know the steps: the same test program runs them
//! inside.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fw_tests::host;
use fw_tests::image::Image;
use fw_tests::process::Process;
use fw_tests::program;
use fw_tests::rung::{self, Vmm};
use fw_tests::suite::{SIZE, Size};

use fw_tests::report::Report;

/// Tells the test program that it is in the outer machine.
const INSIDE: &str = "PORTCULLIS_NESTED";

/// Whether this is the outer machine.
pub(crate) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs this test program in the outer machine and takes over what it reports.
pub(crate) fn run(report: &mut Report, image: &Image, vmm: &Path) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let me = env::current_exe()?;
    let mut parts = vec![me.clone(), vmm.to_owned()];
    for name in ["vhost-fw", "guest-probe", "lab"] {
        parts.push(program::ours(name)?);
    }
    parts.push(program::need("ip")?);
    parts.extend(program::on_path("dnsmasq"));
    let outer = folder.path().join("outer");
    let name = me.file_name().and_then(|name| name.to_str()).context("a test program without a name")?;
    let orders = format!(
        "export {INSIDE}=1 {}=1 PORTCULLIS_KVM=works PORTCULLIS_BIN=/usr/bin PORTCULLIS_IMAGES=/lab/images {SIZE}={}\n\
         exec /usr/bin/{name}\n",
        host::INSIDE,
        Size::asked().word()
    );
    image.outer(&parts, &orders, &outer)?;
    let console = folder.path().join("console");
    let mut machine = Process::start("outer", &mut emulated(image, &outer, &console)?, folder.path())?;
    let ran = follow(report, &mut machine, &console);
    if ran.is_err() {
        report.say(&format!("logs are kept in {}", folder.keep().display()));
    }
    ran
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

/// Prints the inner report as it grows, until the machine is off.
fn follow(report: &mut Report, machine: &mut Process, console: &Path) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(900);
    let mut seen = 0;
    loop {
        let alive = machine.is_alive();
        let said = fs::read(console).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).replace('\r', "");
        let whole = said.rfind('\n').map_or(0, |end| end + 1);
        for line in said.get(seen..whole).unwrap_or_default().lines() {
            if line.starts_with("test ") && !line.starts_with("test result") {
                report.adopt("cloud_hypervisor", line);
            } else if line.starts_with("rung of") || line.starts_with("    ") {
                report.say(line);
            }
        }
        seen = whole.max(seen);
        if !alive {
            // A failed step has been reported already; what counts here is that there was a report.
            if said.contains("PORTCULLIS-OUTER-EXIT") && said.contains("test result: ") {
                return Ok(());
            }
            let lines: Vec<&str> = said.lines().collect();
            bail!(
                "it ended with:\n{}",
                lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
            );
        }
        if Instant::now() > end {
            bail!("it was not done after 900 s");
        }
        thread::sleep(Duration::from_millis(500));
    }
}
