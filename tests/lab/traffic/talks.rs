//! Everybody's conns with a guest, from one happening to the next: idle ones, chatty ones, and one of datagrams.
//!
//! It may know who lives and who has died. It must never know what happens to the guest.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::peer::Conns;
use super::shell::{self, ECHO, GUEST, Shell};
use super::{Busy, Ends, Met};
use crate::host::HOST_V4;

/// From one question on the conn of datagrams to the next, until one is answered.
const REPEAT: Duration = Duration::from_millis(50);

/// The conns that are left.
#[derive(Debug)]
pub(crate) struct Talks {
    idle: Conns,
    chatty: Conns,
    flow: UdpSocket,
    flow_lives: bool,
    /// Questions asked of the flow alone.
    asked: u32,
    patience: Duration,
}

/// What became of them while something happened.
#[derive(Debug)]
pub(crate) struct Asked {
    /// How many died, the transfer and the datagrams' conn among them.
    pub(crate) lost: usize,
    /// What the traffic met meanwhile; its chatty conns are taken back.
    pub(crate) met: Met,
}

impl Talks {
    /// Opens `count` conns, of which every `stride`-th is chatty, and the one of datagrams. `told` gets how many the guest
    /// opened and how many are chatty.
    ///
    /// # Errors
    /// One cannot be opened, or does not answer.
    pub(crate) fn open(
        guest: &mut impl Shell,
        count: usize,
        stride: usize,
        patience: Duration,
        told: impl FnOnce(usize, usize),
    ) -> Result<Self> {
        let flow = shell::open_flow(guest)?;
        let mut idle = Conns::new(patience);
        let by_guest = shell::open_conns(guest, &mut idle, count)?;
        let chatty = idle.part(stride);
        told(by_guest, chatty.len());
        let mut talks = Self { idle, chatty, flow, flow_lives: true, asked: 0, patience };
        if talks.ask_flow() > 0 {
            bail!("the guest does not answer datagrams");
        }
        Ok(talks)
    }

    /// Lets everybody talk; `number` marks this round's echo requests.
    ///
    /// # Errors
    /// Something does not start.
    pub(crate) fn begin(&mut self, number: u16) -> Result<Busy> {
        let ends = Ends {
            us: HOST_V4.parse()?,
            guest: GUEST,
            echo: ECHO,
            flow: &self.flow,
            patience: self.patience,
            number,
        };
        Busy::start(&ends, self.chatty.take())
    }

    /// Ends the talk and asks every conn.
    ///
    /// # Errors
    /// The guest is not reached any more, or something was not tried at all.
    pub(crate) fn end(&mut self, busy: Busy) -> Result<Asked> {
        let mut met = busy.end()?;
        if !met.ping.is_alive() {
            bail!("the guest is not reached any more: {:?}", met.ping);
        }
        self.chatty = met.chatty.take();
        let mut lost = met.lost + self.chatty.exchange() + self.idle.exchange();
        if self.flow_lives && !met.flow.is_alive() {
            self.flow_lives = false;
            lost += 1;
        }
        Ok(Asked { lost, met })
    }

    /// Whether the conn of datagrams lives.
    pub(crate) const fn flow_lives(&self) -> bool {
        self.flow_lives
    }

    /// Asks the idle conns and the one of datagrams, which forgets sooner than they do; how many have died.
    pub(crate) fn ask_idle(&mut self) -> usize {
        self.idle.exchange() + self.ask_flow()
    }

    fn ask_flow(&mut self) -> usize {
        if !self.flow_lives {
            return 0;
        }
        self.asked += 1;
        let question = [b"alive".as_slice(), &self.asked.to_be_bytes()].concat();
        self.flow_lives = is_answered(&self.flow, &question, self.patience);
        usize::from(!self.flow_lives)
    }
}

/// Whether the guest sends a question back. Datagrams may be lost, so it is asked more than once.
fn is_answered(flow: &UdpSocket, question: &[u8], patience: Duration) -> bool {
    let end = Instant::now() + patience;
    if flow.set_read_timeout(Some(REPEAT)).is_err() {
        return false;
    }
    while Instant::now() < end {
        // An unreachable guest is a silence, not an error.
        let _ = flow.send(question);
        let mut answer = [0; 64];
        while let Ok(length) = flow.recv(&mut answer) {
            if answer.get(..length) == Some(question) {
                return true;
            }
        }
    }
    false
}
