//! The end where VMs arrive: does other hosts' errands at this host's NICs and VMM.
//!
//! Whoever comes has shown a certificate that our authority has signed, and may ask the few things a move needs. Knows
//! errands. Never knows how far a move is.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use fw_control::{Reply, Request, message};
use fw_model::NicId;
use rustls::ServerConfig;

use crate::channel::{Channel, ChannelError, Credentials};
use crate::config::ReceiveArgs;
use crate::errand::{Errand, Outcome};
use crate::host::Nic;
use crate::relay;
use crate::vmm::{VmState, Vmm, VmmError, VmmSocket};

/// Other hosts' connections at any time.
const CONNECTIONS_MAX: usize = 64;
/// The longest errand, in bytes.
const ERRAND_MAX: usize = 64 << 10;

/// Why nobody can arrive.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Certificates or keys are of no use.
    #[error("{0}")]
    Channel(#[from] ChannelError),
    /// The VMM does not answer.
    #[error("{0}")]
    Vmm(#[from] VmmError),
    /// The address is not to be had.
    #[error("--listen {0}: {1}")]
    Listen(String, #[source] io::Error),
}

/// A host at which VMs arrive.
#[derive(Debug)]
pub struct Receiver {
    listener: TcpListener,
    config: Arc<ServerConfig>,
    place: Arc<Place>,
}

/// What errands are about.
#[derive(Debug)]
struct Place {
    run_dir: PathBuf,
    vmm: Option<Mutex<Waiting>>,
    connections: AtomicUsize,
}

/// The VMM that waits for a VM.
#[derive(Debug)]
struct Waiting {
    socket: VmmSocket,
    at: String,
    /// Its line, while it waits as it was told.
    vmm: Option<Vmm>,
}

impl Receiver {
    /// Listens.
    ///
    /// # Errors
    /// See [`ReceiveError`].
    pub fn new(args: &ReceiveArgs) -> Result<Self, ReceiveError> {
        let config = Credentials::load(&args.credentials)?.server()?;
        let listener = TcpListener::bind(args.listen)
            .map_err(|error| ReceiveError::Listen(args.listen.to_string(), error))?;
        let vmm = match (&args.vmm, &args.vm_at) {
            (Some(socket), Some(at)) => {
                // Whether it answers is better known now than when a VM comes.
                Vmm::open(socket)?;
                Some(Mutex::new(Waiting { socket: socket.clone(), at: at.clone(), vmm: None }))
            }
            (Some(_), None) | (None, _) => None,
        };
        let place = Place { run_dir: args.run_dir.clone(), vmm, connections: AtomicUsize::new(0) };
        Ok(Self { listener, config, place: Arc::new(place) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system does not say.
    pub fn address(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// Nobody can connect any more.
    pub fn run(self) -> io::Result<()> {
        loop {
            let (socket, from) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let Some(seat) = Seat::take(&self.place) else {
                log::warn!("{from} is turned away: {CONNECTIONS_MAX} connections are open");
                continue;
            };
            let config = Arc::clone(&self.config);
            let work = move || {
                if let Err(error) = serve(&seat.0, socket, config) {
                    log::warn!("{from}: {error}");
                }
            };
            Builder::new().name("errands".to_owned()).spawn(work)?;
        }
    }
}

/// One of the connections there may be.
struct Seat(Arc<Place>);

impl Seat {
    fn take(place: &Arc<Place>) -> Option<Self> {
        let before = place.connections.fetch_add(1, Ordering::Relaxed);
        let seat = Self(Arc::clone(place));
        (before < CONNECTIONS_MAX).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(place: &Place, socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    let mut channel = Channel::accept(socket, config)?;
    // Between two errands a move may take its time.
    channel.be_patient(None)?;
    while let Some(errand) = message::receive::<Errand>(&mut channel, ERRAND_MAX)? {
        let errand = match errand {
            Ok(errand) if errand.is_allowed() => errand,
            Ok(_) => {
                say(&mut channel, &Outcome::Refused("another host may not ask this".to_owned()))?;
                continue;
            }
            Err(why) => {
                say(&mut channel, &Outcome::Refused(why))?;
                continue;
            }
        };
        if let Errand::Nic(nic, request @ Request::ReceiveAhead(_)) = &errand {
            return take_ahead(place, nic, request, channel);
        }
        let outcome = run(place, &errand);
        say(&mut channel, &outcome)?;
    }
    Ok(())
}

fn say(channel: &mut Channel, outcome: &Outcome) -> io::Result<()> {
    use std::io::Write as _;
    channel.write_all(&message::encode(outcome)?)?;
    channel.flush()
}

fn run(place: &Place, errand: &Errand) -> Outcome {
    let done = match errand {
        Errand::Nic(nic, request) => {
            Nic::of(&place.run_dir, nic).ask(request).map(Outcome::Nic).map_err(|error| error.to_string())
        }
        Errand::AwaitVm => await_vm(place).map(Outcome::Awaiting).map_err(|error| error.to_string()),
        Errand::VmState => vm_state(place).map(Outcome::Vm).map_err(|error| error.to_string()),
    };
    done.unwrap_or_else(Outcome::Refused)
}

/// A table that comes ahead: from the other host to the NIC, until the other host has no more.
fn take_ahead(place: &Place, nic: &NicId, request: &Request, mut channel: Channel) -> io::Result<()> {
    let mut taker = match Nic::of(&place.run_dir, nic).hand_over(request) {
        Ok(stream) => stream,
        Err(error) => {
            return say(&mut channel, &Outcome::Nic(Reply::Refused(error.to_string())));
        }
    };
    say(&mut channel, &Outcome::Nic(Reply::Done))?;
    while relay::pass_on(&mut channel, &mut taker)?.is_some() {}
    Ok(())
}

fn await_vm(place: &Place) -> Result<Option<String>, VmmError> {
    let Some(waiting) = &place.vmm else { return Ok(None) };
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let waits = waiting.vmm.as_mut().is_some_and(|vmm| vmm.state().is_ok_and(|is| is == VmState::Arriving));
    if !waits {
        // A monitor may take one line at a time: the old one goes first.
        waiting.vmm = None;
        let mut vmm = Vmm::open(&waiting.socket)?;
        vmm.receive(&waiting.at)?;
        waiting.vmm = Some(vmm);
    }
    Ok(Some(waiting.at.clone()))
}

fn vm_state(place: &Place) -> Result<Option<VmState>, VmmError> {
    let Some(waiting) = &place.vmm else { return Ok(None) };
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(vmm) = &mut waiting.vmm
        && let Ok(state) = vmm.state()
    {
        return Ok(Some(state));
    }
    // It was not told to wait, or its line broke: it may have been started again.
    waiting.vmm = None;
    let mut vmm = Vmm::open(&waiting.socket)?;
    let state = vmm.state()?;
    Ok(Some(state))
}
