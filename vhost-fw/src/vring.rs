//! A virtqueue as the VMM sets it up: our own type where vhost-user-backend has one of its own.
//!
//! Every message about a ring passes here under the ring's lock, and the data thread works on a ring only under the
//! same lock, a batch at a time: when a message is answered, what it stopped has stopped. Knows messages, file
//! descriptors and the lock. Never knows chains or frames.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard};

use vhost_user_backend::{VringMutex, VringState, VringStateGuard, VringStateMutGuard, VringT};
use virtio_queue::{Error as QueueError, QueueState, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryLoadGuard};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::features::Acked;
use crate::queue::memory::{CurrentMemory, Memory};

/// What an epoll event of the data thread is about; everything else about it is looked up.
pub(crate) const TOKEN_WAKE: u64 = 0;
/// The uplink has frames.
pub(crate) const TOKEN_UPLINK: u64 = 1;
/// A ring was kicked.
pub(crate) const TOKEN_KICK: u64 = 2;

/// What the control side and the data thread share.
///
/// All of the data thread's events are edge-triggered: a kick or a wake need not be read to fall silent, so a file
/// that the VMM passed as a kick can neither block the thread nor keep it busy.
pub(crate) struct Plug {
    epoll: Epoll,
    wake: EventFd,
    acked: AtomicU64,
    memory_epoch: AtomicU64,
}

impl Plug {
    pub(crate) fn new() -> io::Result<Self> {
        let plug = Self {
            epoll: Epoll::new()?,
            wake: EventFd::new(EFD_NONBLOCK)?,
            acked: AtomicU64::new(0),
            memory_epoch: AtomicU64::new(0),
        };
        plug.watch(plug.wake.as_raw_fd(), TOKEN_WAKE)?;
        Ok(plug)
    }

    /// Makes the data thread look around.
    pub(crate) fn wake(&self) {
        // Full means that it was woken already.
        let _ = self.wake.write(1);
    }

    pub(crate) fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    pub(crate) fn watch(&self, fd: i32, token: u64) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, token);
        self.epoll.ctl(ControlOperation::Add, fd, event)
    }

    pub(crate) fn unwatch(&self, fd: i32) {
        // Not watched is what was wanted.
        let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
    }

    pub(crate) fn acked(&self) -> Acked {
        Acked(self.acked.load(Ordering::Acquire))
    }

    pub(crate) fn set_acked(&self, bits: u64) {
        self.acked.store(bits, Ordering::Release);
        self.wake();
    }

    /// The memory table is another one: rings that were not in it may be now.
    pub(crate) fn memory_changed(&self) {
        self.memory_epoch.fetch_add(1, Ordering::Release);
        self.wake();
    }
}

thread_local! {
    /// Where rings made on this thread belong: the library makes them without saying for whom.
    static WORKSHOP: RefCell<Option<Workshop>> = const { RefCell::new(None) };
}

struct Workshop {
    plug: Arc<Plug>,
    made: Vec<Ring>,
}

/// Runs `make`, in which the library makes rings, and gives those rings too, in their order.
pub(crate) fn with_rings<T>(plug: &Arc<Plug>, make: impl FnOnce() -> T) -> (T, Vec<Ring>) {
    WORKSHOP.replace(Some(Workshop { plug: Arc::clone(plug), made: Vec::new() }));
    let made = make();
    (made, WORKSHOP.take().map(|workshop| workshop.made).unwrap_or_default())
}

/// One virtqueue of one connection. Clones are the same ring.
#[derive(Clone)]
pub(crate) struct Ring {
    inner: VringMutex<CurrentMemory>,
    memory: CurrentMemory,
    shared: Arc<Shared>,
}

struct Shared {
    plug: Option<Arc<Plug>>,
    /// Rises with everything that makes the ring another one.
    epoch: AtomicU64,
    /// Messages that wait for the lock: the data thread lets them go first.
    callers: AtomicU32,
}

/// What became of looking at a ring.
pub(crate) enum Look<'r> {
    /// It runs, and is ours until this is dropped.
    Live(Live<'r>),
    /// It is not set up or not enabled.
    Idle,
    /// A message is about to change it: look again.
    Wanted,
}

/// A running ring, locked.
pub(crate) struct Live<'r> {
    state: MutexGuard<'r, VringState<CurrentMemory>>,
    memory: GuestMemoryLoadGuard<Memory>,
    epoch: u64,
}

impl Live<'_> {
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(crate) fn geometry(&self) -> QueueState {
        self.state.get_queue().state()
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Ends a batch: notes how far the ring is and calls the driver if it wants to be.
    pub(crate) fn settle(mut self, next: u16, call: bool) {
        let queue = self.state.get_queue_mut();
        queue.set_next_avail(next);
        queue.set_next_used(next);
        if call && let Some(notifier) = self.state.get_call() {
            // A call that cannot be taken is one that was not read yet.
            let _ = notifier.notify();
        }
    }
}

impl Ring {
    /// The ring for one batch of the data thread.
    pub(crate) fn look(&self) -> Look<'_> {
        if self.shared.callers.load(Ordering::Relaxed) > 0 {
            return Look::Wanted;
        }
        let state = self.inner.get_mut();
        if !(state.is_enabled() && state.get_queue().ready()) {
            return Look::Idle;
        }
        let memory_epoch =
            self.shared.plug.as_ref().map_or(0, |plug| plug.memory_epoch.load(Ordering::Acquire));
        let epoch = self.shared.epoch.load(Ordering::Relaxed).wrapping_add(memory_epoch);
        Look::Live(Live { state, memory: self.memory.memory(), epoch })
    }

    /// Takes the ring out of service for good.
    pub(crate) fn retire(&self) {
        self.set_enabled(false);
        self.set_queue_ready(false);
        self.set_kick(None);
        self.set_call(None);
    }

    fn locked(&self) -> MutexGuard<'_, VringState<CurrentMemory>> {
        self.shared.callers.fetch_add(1, Ordering::Relaxed);
        let guard = self.inner.get_mut();
        self.shared.callers.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    /// Makes a change and lets the data thread see it.
    fn change<T>(&self, change: impl FnOnce(&VringMutex<CurrentMemory>) -> T) -> T {
        self.shared.callers.fetch_add(1, Ordering::Relaxed);
        let changed = change(&self.inner);
        self.shared.epoch.fetch_add(1, Ordering::Relaxed);
        self.shared.callers.fetch_sub(1, Ordering::Relaxed);
        if let Some(plug) = &self.shared.plug {
            plug.wake();
        }
        changed
    }

    fn kick_fd(&self) -> Option<i32> {
        self.locked().get_kick().as_ref().map(AsRawFd::as_raw_fd)
    }
}

impl<'a> VringStateGuard<'a, CurrentMemory> for Ring {
    type G = MutexGuard<'a, VringState<CurrentMemory>>;
}

impl<'a> VringStateMutGuard<'a, CurrentMemory> for Ring {
    type G = MutexGuard<'a, VringState<CurrentMemory>>;
}

impl VringT<CurrentMemory> for Ring {
    fn new(memory: CurrentMemory, max_queue_size: u16) -> Result<Self, QueueError> {
        let inner = VringMutex::new(memory.clone(), max_queue_size)?;
        Ok(WORKSHOP.with_borrow_mut(|workshop| {
            let plug = workshop.as_ref().map(|workshop| Arc::clone(&workshop.plug));
            let shared = Shared { plug, epoch: AtomicU64::new(0), callers: AtomicU32::new(0) };
            let ring = Self { inner, memory, shared: Arc::new(shared) };
            if let Some(workshop) = workshop {
                workshop.made.push(ring.clone());
            }
            ring
        }))
    }

    fn get_ref(&self) -> MutexGuard<'_, VringState<CurrentMemory>> {
        self.locked()
    }

    fn get_mut(&self) -> MutexGuard<'_, VringState<CurrentMemory>> {
        self.locked()
    }

    fn add_used(&self, desc_index: u16, len: u32) -> Result<(), QueueError> {
        self.inner.add_used(desc_index, len)
    }

    fn signal_used_queue(&self) -> io::Result<()> {
        self.inner.signal_used_queue()
    }

    fn enable_notification(&self) -> Result<bool, QueueError> {
        self.inner.enable_notification()
    }

    fn disable_notification(&self) -> Result<(), QueueError> {
        self.inner.disable_notification()
    }

    fn needs_notification(&self) -> Result<bool, QueueError> {
        self.inner.needs_notification()
    }

    fn set_enabled(&self, enabled: bool) {
        self.change(|ring| ring.set_enabled(enabled));
    }

    fn set_queue_info(&self, desc_table: u64, avail_ring: u64, used_ring: u64) -> Result<(), QueueError> {
        self.change(|ring| ring.set_queue_info(desc_table, avail_ring, used_ring))
    }

    fn queue_next_avail(&self) -> u16 {
        self.locked().get_queue().next_avail()
    }

    fn set_queue_next_avail(&self, base: u16) {
        self.inner.set_queue_next_avail(base);
    }

    /// Ignored while the ring runs: the index was read from guest memory a moment ago, and we may have gone on since.
    fn set_queue_next_used(&self, index: u16) {
        let mut state = self.locked();
        if !state.get_queue().ready() {
            state.get_queue_mut().set_next_used(index);
        }
    }

    fn queue_used_idx(&self) -> Result<u16, QueueError> {
        self.inner.queue_used_idx()
    }

    fn set_queue_size(&self, num: u16) {
        self.change(|ring| ring.set_queue_size(num));
    }

    fn set_queue_event_idx(&self, enabled: bool) {
        self.inner.set_queue_event_idx(enabled);
    }

    /// A ring that stops stands at its used index, whatever base it was given: chains complete in order, so what
    /// was taken was given back.
    fn set_queue_ready(&self, ready: bool) {
        self.change(|ring| {
            let was_ready = ring.get_ref().get_queue().ready();
            ring.set_queue_ready(ready);
            if was_ready
                && !ready
                && let Ok(index) = ring.queue_used_idx()
            {
                ring.set_queue_next_avail(index);
                ring.set_queue_next_used(index);
            }
        });
    }

    fn set_kick(&self, file: Option<File>) {
        let plug = self.shared.plug.as_ref();
        // Before it is closed: epoll knows files, and the VMM holds this one open too.
        if let (Some(plug), Some(old)) = (plug, self.kick_fd()) {
            plug.unwatch(old);
        }
        self.change(|ring| ring.set_kick(file));
        if let (Some(plug), Some(new)) = (plug, self.kick_fd())
            && let Err(error) = plug.watch(new, TOKEN_KICK)
        {
            log::warn!("the VMM's kick file cannot be waited for: {error}; the ring will not hear its guest");
        }
    }

    fn read_kick(&self) -> io::Result<bool> {
        self.inner.read_kick()
    }

    fn set_call(&self, file: Option<File>) {
        self.change(|ring| ring.set_call(file.and_then(without_blocking)));
    }

    fn set_err(&self, file: Option<File>) {
        self.inner.set_err(file);
    }
}

/// Makes a file from the VMM one that never blocks the data thread. One that cannot be made so is not used.
fn without_blocking(file: File) -> Option<File> {
    // The type only lends its safe wrapper of FIONBIO, which works on files of every kind.
    let file = UnixStream::from(OwnedFd::from(file));
    match file.set_nonblocking(true) {
        Ok(()) => Some(File::from(OwnedFd::from(file))),
        Err(error) => {
            log::warn!("the VMM's call file is refused: {error}");
            None
        }
    }
}
