//! One vhost-user network device: its data thread, and the handles to it.
//!
//! Puts engine, uplink and backend together. Knows who runs on which thread. Never knows a message or a frame.

use std::io;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use fw_engine::{Engine, Tick};
use fw_model::MacAddr;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::backend::Backend;
use crate::crash_copy::CrashCopy;
use crate::decision::Observer;
use crate::handover::{Handover, HandoverOptions, Transfers};
use crate::uplink::Uplink;
use crate::vring::Plug;
use crate::worker::{Command, Rest, Worker, WorkerHandle};

/// The sizes a virtqueue of the device may have, in descriptors: a power of two between these.
const QUEUE_SIZE_MIN: u16 = 16;
const QUEUE_SIZE_MAX: u16 = 1024;

/// What a device is made of.
pub struct DeviceOptions {
    /// The firewall; without rules it drops every frame.
    pub engine: Engine,
    /// The network side.
    pub uplink: Box<dyn Uplink>,
    /// The MAC address shown in the configuration space.
    pub mac: Option<MacAddr>,
    /// The MTU shown in the configuration space, in bytes.
    pub mtu: u16,
    /// Most descriptors of a virtqueue: a power of two from 16 to 1024.
    pub queue_size: u16,
    /// Whether the data thread looks for frames without ever sleeping.
    pub poll: bool,
    /// Sees refusals and what rules want logged.
    pub observer: Box<dyn Observer>,
    /// What the data thread takes for the time: [`boot_time`](crate::worker::boot_time), but for tests. It must not
    /// go back.
    pub clock: Box<dyn FnMut() -> Tick + Send>,
    /// Hands the conn table over as the VM moves; without, the VM cannot migrate.
    pub handover: Option<HandoverOptions>,
    /// Follows the conn table, for the process after this one.
    pub crash_copy: Option<Box<CrashCopy>>,
    /// Called first in the data thread, for its sandbox.
    pub thread_setup: Box<dyn FnOnce() -> io::Result<()> + Send>,
}

/// One vhost-user network device with its running data thread.
pub struct Device {
    pub(crate) backend: Arc<Backend>,
    pub(crate) worker: WorkerHandle,
    handover: Option<Arc<Handover>>,
    pub(crate) end: Arc<End>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// How the data thread ended, once it has.
pub(crate) struct End {
    /// Readable from then on.
    pub(crate) event: EventFd,
    error: Mutex<Option<io::Error>>,
}

impl End {
    fn new() -> io::Result<Self> {
        Ok(Self { event: EventFd::new(EFD_NONBLOCK)?, error: Mutex::new(None) })
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Tells the end of the data thread even if it panics.
struct Bell(Arc<End>);

impl Drop for Bell {
    fn drop(&mut self) {
        // Full means that it was told already.
        let _ = self.0.event.write(1);
    }
}

impl Device {
    /// Starts the data thread; returns when its setup is done.
    ///
    /// # Errors
    /// The queue size is not one, a file descriptor or thread could not be made, or `thread_setup` failed.
    pub fn start(options: DeviceOptions) -> io::Result<Self> {
        let DeviceOptions {
            engine,
            uplink,
            mac,
            mtu,
            queue_size,
            poll,
            observer,
            clock,
            handover,
            crash_copy,
            thread_setup,
        } = options;
        if !queue_size.is_power_of_two() || !(QUEUE_SIZE_MIN..=QUEUE_SIZE_MAX).contains(&queue_size) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("queue size {queue_size}: a power of two from {QUEUE_SIZE_MIN} to {QUEUE_SIZE_MAX}"),
            ));
        }
        let plug = Arc::new(Plug::new()?);
        let taken: Vec<_> = crash_copy.iter().flat_map(|copy| copy.taken().to_vec()).collect();
        let end = Arc::new(End::new()?);
        let rest = if poll { Rest::Never } else { Rest::WhenIdle };
        let (worker, handle) =
            Worker::new(Arc::clone(&plug), engine, crash_copy, uplink, observer, clock, rest);
        let (ready, is_ready) = sync_channel(1);
        let bell = Bell(Arc::clone(&end));
        let thread = Builder::new().name("data".to_owned()).spawn(move || {
            let bell = bell;
            let setup = thread_setup();
            let go = setup.is_ok();
            // Whoever started the thread waits for exactly this.
            let _ = ready.send(setup);
            if go && let Err(error) = worker.run() {
                *bell.0.error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        })?;
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("the data thread died in its setup")))?;
        let handover = handover.map(|options| Arc::new(Handover::new(options, handle.clone())));
        if let Some(handover) = &handover {
            handover.know_taken(&taken);
        }
        let transfers = handover.clone().map(Transfers::new);
        let backend = Arc::new(Backend::new(plug, mac, mtu, queue_size, transfers));
        Ok(Self { backend, worker: handle, handover, end, thread: Mutex::new(Some(thread)) })
    }

    /// A handle that asks the data thread.
    #[must_use]
    pub fn worker(&self) -> WorkerHandle {
        self.worker.clone()
    }

    /// What hands this NIC's table over, if anything does.
    #[must_use]
    pub fn handover(&self) -> Option<Arc<Handover>> {
        self.handover.clone()
    }

    /// Ends the data thread and waits for that.
    pub fn stop(&self) {
        // One that has ended already needs no telling.
        let _ = self.worker.ask(Command::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the data thread panicked");
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.stop();
    }
}
