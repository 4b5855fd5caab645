//! A guest's command line, and what the guest is told there before anything happens to it.
//!
//! It may know the probe that runs in guests. It must never know what kind of machine the guest is.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::denied::{FORBIDDEN, MARKED, WITNESS};
use super::peer::{Conns, PATIENCE};
use crate::host::HOST_V4;
use crate::vm::{Answer, Vm};

/// The guest.
pub(crate) const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
/// Its echo service, by TCP and UDP.
pub(crate) const ECHO: u16 = 7;
/// Where it opens conns to, by TCP and UDP.
pub(crate) const LISTEN: u16 = 9000;

/// Runs commands in a guest.
pub(crate) trait Shell {
    /// Runs one; what came of it.
    fn run(&mut self, command: &str) -> Result<Answer>;

    /// A folder of the guest's own.
    fn scratch(&self) -> String;

    /// Runs one that must go well; what it printed.
    fn must(&mut self, command: &str) -> Result<String> {
        let answer = self.run(command)?;
        if answer.status != 0 {
            bail!("{command}: status {}: {}", answer.status, answer.text.trim());
        }
        Ok(answer.text)
    }
}

impl Shell for Vm {
    fn run(&mut self, command: &str) -> Result<Answer> {
        Self::run(self, command)
    }

    fn scratch(&self) -> String {
        "/tmp".to_owned()
    }
}

/// Lets the guest count what must never come, and makes sure that it does count.
pub(crate) fn watch(guest: &mut impl Shell) -> Result<()> {
    let (first, last, scratch) = (MARKED.start(), WITNESS, guest.scratch());
    guest.must(&format!("guest-probe watch {first} {last} >{scratch}/watch 2>&1 </dev/null &"))?;
    let witness = UdpSocket::bind((HOST_V4, WITNESS))?;
    let seen = format!("grep -q 'udp {WITNESS} {ECHO}' {scratch}/watch");
    let end = Instant::now() + PATIENCE;
    while guest.run(&seen)?.status != 0 {
        ensure!(Instant::now() < end, "the guest counts no frames: its silence would prove nothing");
        witness.send_to(b"count this", (GUEST, ECHO))?;
        thread::sleep(Duration::from_millis(100));
    }
    let forbidden = format!("while true; do guest-probe tcp {HOST_V4} {FORBIDDEN}; sleep 1; done");
    guest.must(&format!("({forbidden}) >/dev/null 2>&1 </dev/null &")).map(drop)
}

/// Marked frames that the guest's kernel got so far.
pub(crate) fn marked_frames(guest: &mut impl Shell) -> Result<u64> {
    let watch = format!("{}/watch", guest.scratch());
    let count = guest.must(&format!("grep -vc -e watching -e ' {WITNESS} ' {watch} || true"))?;
    count.trim().parse().with_context(|| format!("the guest counted `{}`", count.trim()))
}

/// A conn of datagrams that the guest opens once and never again: without its table nothing comes in on it.
pub(crate) fn open_flow(guest: &mut impl Shell) -> Result<UdpSocket> {
    let flow = UdpSocket::bind((HOST_V4, LISTEN))?;
    flow.set_read_timeout(Some(PATIENCE))?;
    let scratch = guest.scratch();
    guest.must(&format!("guest-probe answer {HOST_V4} {LISTEN} >{scratch}/answer 2>&1 </dev/null &"))?;
    let (_, from) = flow.recv_from(&mut [0; 64]).context("the guest's datagram")?;
    flow.connect(from)?;
    Ok(flow)
}

/// So many conns, most of them opened to the guest and the rest by it.
pub(crate) fn open_conns(guest: &mut impl Shell, conns: &mut Conns, count: usize) -> Result<usize> {
    let by_guest = count / 4;
    let listener = TcpListener::bind((HOST_V4, LISTEN))?;
    let scratch = guest.scratch();
    guest
        .must(&format!("guest-probe keep {HOST_V4} {LISTEN} {by_guest} >{scratch}/keep 2>&1 </dev/null &"))?;
    conns.accept(&listener, by_guest)?;
    conns.open(SocketAddr::new(GUEST.into(), ECHO), count - by_guest)?;
    let lost = conns.exchange();
    ensure!(lost == 0, "{lost} of {count} conns do not answer before anything happened");
    Ok(by_guest)
}
