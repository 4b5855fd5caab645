//! Traffic that never rests while something happens to a guest: a bulk transfer, chatty conns, two pulses, and what
//! must not pass.
//!
//! It may know the guest's services. It must never know what happens, or when.

pub(crate) mod denied;
pub(crate) mod peer;
pub(crate) mod pulse;
pub(crate) mod shell;
pub(crate) mod talks;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use denied::{Denied, Tried};
use peer::{Conns, PATIENCE};
use pulse::{Heard, Pulse};

/// Between two words of a chatty conn.
const BREATH: Duration = Duration::from_millis(5);
/// Between two pieces of the transfer: it is to last, not to fill a small machine.
const GAP: Duration = Duration::from_millis(2);

/// Where everything goes.
#[derive(Debug)]
pub(crate) struct Ends<'a> {
    /// This end.
    pub(crate) us: Ipv4Addr,
    /// The guest.
    pub(crate) guest: Ipv4Addr,
    /// The guest's echo service.
    pub(crate) echo: u16,
    /// The conn of datagrams that the guest opened.
    pub(crate) flow: &'a UdpSocket,
    /// How long an answer may take.
    pub(crate) patience: Duration,
    /// Marks this round's echo requests.
    pub(crate) number: u16,
}

/// Traffic under way.
#[derive(Debug)]
pub(crate) struct Busy {
    stop: Arc<AtomicBool>,
    transfer: JoinHandle<Result<u64>>,
    chat: JoinHandle<(Conns, usize)>,
    ping: Pulse,
    flow: Pulse,
    denied: Denied,
}

/// What it met.
#[derive(Debug)]
pub(crate) struct Met {
    /// The chatty conns that are left.
    pub(crate) chatty: Conns,
    /// How many of those and of the transfer were lost.
    pub(crate) lost: usize,
    /// Bytes the transfer carried there and back.
    pub(crate) carried: u64,
    /// What echo requests heard.
    pub(crate) ping: Heard,
    /// What datagrams heard.
    pub(crate) flow: Heard,
    /// What was tried in vain.
    pub(crate) tried: Tried,
}

impl Busy {
    /// Starts everything.
    ///
    /// # Errors
    /// Something does not start.
    pub(crate) fn start(ends: &Ends<'_>, chatty: Conns) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let service = SocketAddr::new(ends.guest.into(), ends.echo);
        let stream = TcpStream::connect_timeout(&service, PATIENCE).context("the bulk transfer")?;
        stream.set_read_timeout(Some(ends.patience))?;
        let (carry, talk) = (Arc::clone(&stop), Arc::clone(&stop));
        Ok(Self {
            stop,
            transfer: thread::spawn(move || transfer(stream, &carry)),
            chat: thread::spawn(move || chat(chatty, &talk)),
            ping: Pulse::ping(ends.guest, ends.number)?,
            flow: Pulse::datagrams(ends.flow)?,
            denied: Denied::start(ends.us, ends.guest, ends.echo)?,
        })
    }

    /// Ends everything.
    ///
    /// # Errors
    /// A thread died, or something was not tried at all: then its silence would prove nothing.
    pub(crate) fn end(self) -> Result<Met> {
        let (ping, flow) = (self.ping.end()?, self.flow.end()?);
        self.stop.store(true, Ordering::Relaxed);
        let (chatty, mut lost) = self.chat.join().or_else(|_| bail!("the chatty conns' thread died"))?;
        let carried = self.transfer.join().or_else(|_| bail!("the bulk transfer's thread died"))?;
        let tried = self.denied.end()?;
        ensure!(tried.sent > 0, "no frame was sent that must not pass");
        lost += usize::from(carried.is_err());
        Ok(Met { chatty, lost, carried: carried.unwrap_or(0), ping, flow, tried })
    }
}

/// Speaks on all conns in turn; those that are left and how many were lost.
fn chat(mut conns: Conns, stop: &AtomicBool) -> (Conns, usize) {
    let mut lost = 0;
    while !stop.load(Ordering::Relaxed) {
        lost += conns.exchange();
        thread::sleep(BREATH);
    }
    (conns, lost)
}

/// Sends bytes through an echo and compares what comes back; how many.
fn transfer(mut stream: TcpStream, stop: &AtomicBool) -> Result<u64> {
    let sent: Vec<u8> = (0..16 * 1024_u32).map(|at| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let mut back = vec![0; sent.len()];
    let mut carried = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&sent).context("the bulk transfer stands")?;
        stream.read_exact(&mut back).context("the bulk transfer stands")?;
        ensure!(back == sent, "the bulk transfer brought back other bytes");
        carried += u64::try_from(sent.len())?;
        thread::sleep(GAP);
    }
    Ok(carried)
}
