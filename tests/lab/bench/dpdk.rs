//! DPDK's test program as a guest that sends as fast as it can, and as the peer that only receives.
//!
//! It may know testpmd's flags and reports. It must never need a privilege: without huge pages it goes without.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::process::Process;
use crate::program;

/// What the generator's frames say they are: the rules of a bench must own this MAC and address. They go to ports
/// 1001 of addresses from 10.253.0.0 up.
pub const GENERATOR_MAC: &str = "00:01:02:03:04:00";
/// See [`GENERATOR_MAC`].
pub const GENERATOR_ADDRESS: &str = "10.254.0.0";

/// Seconds between testpmd's reports.
const PERIOD: u64 = 1;
/// Huge pages of 2 MiB that two of them need; none need be mounted.
const HUGE_PAGES: u32 = 300;

/// Starts a virtio-user frontend on core 0 that sends frames of `size` bytes in `flows` flows to the backend at
/// `socket`.
///
/// # Errors
/// There is no testpmd on this machine.
pub fn generator(socket: &Path, size: u32, flows: u32, folder: &Path) -> Result<Process> {
    let mut command = frontend(socket, folder)?;
    command.arg(format!("--flowgen-flows={flows}")).arg(format!("--txpkts={size}"));
    command.arg("--forward-mode=flowgen");
    Process::start("generator", &mut command, folder)
}

/// Starts a virtio-user frontend that receives from the backend at `socket`, counts and discards.
///
/// # Errors
/// There is no testpmd on this machine.
pub fn sink(socket: &Path, folder: &Path) -> Result<Process> {
    let mut command = frontend(socket, folder)?;
    command.arg("--forward-mode=rxonly");
    Process::start("sink", &mut command, folder)
}

fn frontend(socket: &Path, folder: &Path) -> Result<Command> {
    let device = format!("net_virtio_user0,path={},queues=1,queue_size=1024", socket.display());
    testpmd("fe", "0@1,1@0", &device, folder)
}

/// Starts a `net_vhost` backend on core 1 that receives and discards.
pub(super) fn receiver(socket: &Path, folder: &Path) -> Result<Process> {
    let device = format!("net_vhost0,iface={},queues=1", socket.display());
    let mut command = testpmd("be", "0@0,1@1", &device, folder)?;
    command.arg("--forward-mode=rxonly");
    let mut receiver = Process::start("receiver", &mut command, folder)?;
    receiver.wait_until(Duration::from_secs(10), || socket.exists())?;
    Ok(receiver)
}

fn testpmd(prefix: &str, cores: &str, device: &str, folder: &Path) -> Result<Command> {
    let mut command = Command::new(program::need("dpdk-testpmd")?);
    command.env("XDG_RUNTIME_DIR", folder).arg(format!("--lcores={cores}")).arg("--no-pci");
    if has_huge_pages() {
        command.args(["--in-memory", "--single-file-segments", "-m", "256"]);
    } else {
        command.args(["--no-huge", "-m", "256"]);
    }
    command.arg(format!("--file-prefix={prefix}{}", std::process::id())).args(["--vdev", device, "--"]);
    command.args(["--auto-start", "--total-num-mbufs=16384"]).arg(format!("--stats-period={PERIOD}"));
    Ok(command)
}

fn has_huge_pages() -> bool {
    let free = fs::read_to_string("/proc/meminfo").ok().and_then(|memory| {
        memory.lines().find_map(|line| line.strip_prefix("HugePages_Free:")?.trim().parse::<u32>().ok())
    });
    free.is_some_and(|free| free >= HUGE_PAGES)
}

/// Frames the sink says it received.
///
/// # Errors
/// It kept no log.
pub fn received(folder: &Path) -> Result<u64> {
    let log = fs::read_to_string(folder.join("sink.log")).context("the sink kept no log")?;
    let count = |line: &str| line.trim().strip_prefix("RX-packets:")?.split_whitespace().next()?.parse().ok();
    Ok(log.lines().filter_map(count).next_back().unwrap_or(0))
}

/// The receive rates that the receiver in `folder` reported so far, in frames per second: from the first frame on,
/// one for each [`PERIOD`].
pub(super) fn receive_rates(folder: &Path) -> Vec<f64> {
    let log = fs::read_to_string(folder.join("receiver.log")).unwrap_or_default();
    log.lines()
        .filter_map(|line| line.trim().strip_prefix("Rx-pps:")?.split_whitespace().next()?.parse().ok())
        .skip_while(|rate: &f64| *rate == 0.0)
        .collect()
}
