//! What a VMM says when its VM moves: log what you write, stop, give me your state; and at the other end, take it.
//!
//! Message orders are Cloud Hypervisor's and QEMU's. Never knows what the state is.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use vhost::vhost_user::message::{VhostTransferStateDirection, VhostTransferStatePhase};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserDirtyLogRegion};
use vm_memory::GuestMemoryBackend;

use super::{Guest, LOG_ALL, Outcome, RX, TX};

const PAGE: u64 = 4096;

/// The log of a VMM: a bit per page of the guest.
pub struct DirtyPages {
    file: File,
    bytes: u64,
}

impl DirtyPages {
    fn new(bytes: u64) -> Outcome<Self> {
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile())?;
        file.set_len(bytes)?;
        Ok(Self { file, bytes })
    }

    /// Whether the page of `address` is marked.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn has(&self, address: u64) -> Outcome<bool> {
        use std::os::unix::fs::FileExt;
        let page = address / PAGE;
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, page / 8)?;
        let [byte] = byte;
        Ok(byte >> (page % 8) & 1 == 1)
    }

    /// How many pages are marked.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn count(&self) -> Outcome<u32> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; usize::try_from(self.bytes)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes.iter().map(|byte| byte.count_ones()).sum())
    }
}

impl Guest {
    /// Begins to log, on rings that run.
    ///
    /// # Errors
    /// The device refused a message.
    pub fn start_log(&mut self) -> Outcome<DirtyPages> {
        let log = self.next_log()?;
        self.frontend.set_features(self.features | LOG_ALL)?;
        for index in [RX, TX] {
            let addresses = self.addresses(index, Some(self.ring(index).used))?;
            self.frontend.set_vring_addr(index, &addresses)?;
        }
        Ok(log)
    }

    /// Gives the device a fresh log.
    ///
    /// # Errors
    /// The device refused it.
    pub fn next_log(&mut self) -> Outcome<DirtyPages> {
        let bytes = (self.memory.last_addr().0 / PAGE / 8 + 1).next_multiple_of(8);
        let log = DirtyPages::new(bytes)?;
        let region =
            VhostUserDirtyLogRegion { mmap_size: bytes, mmap_offset: 0, mmap_handle: log.file.as_raw_fd() };
        self.frontend.set_log_base(0, Some(region))?;
        Ok(log)
    }

    /// A log of a size of one's choice.
    ///
    /// # Errors
    /// The device refused it.
    pub fn odd_log(&mut self, mmap_size: u64, mmap_offset: u64) -> Outcome<()> {
        let log = DirtyPages::new(PAGE)?;
        let region = VhostUserDirtyLogRegion { mmap_size, mmap_offset, mmap_handle: log.file.as_raw_fd() };
        Ok(self.frontend.set_log_base(0, Some(region))?)
    }

    /// Ends logging: the migration came to nothing.
    ///
    /// # Errors
    /// The device refused a message.
    pub fn stop_log(&mut self) -> Outcome<()> {
        for index in [RX, TX] {
            self.frontend.set_vring_addr(index, &self.addresses(index, None)?)?;
        }
        Ok(self.frontend.set_features(self.features)?)
    }

    /// Asks for the state: rings are stopped by [`Guest::stop`] before.
    ///
    /// # Errors
    /// The device refused, or its state did not come.
    pub fn save(&self) -> Outcome<Vec<u8>> {
        let (mut ours, theirs) = UnixStream::pair()?;
        self.begin(VhostTransferStateDirection::SAVE, theirs.into())?;
        let mut state = Vec::new();
        ours.read_to_end(&mut state)?;
        self.frontend.check_device_state()?;
        Ok(state)
    }

    /// Gives a state.
    ///
    /// # Errors
    /// The device refused it.
    pub fn load(&self, state: &[u8]) -> Outcome<()> {
        load(&self.frontend, state)
    }

    /// Begins a transfer over a descriptor of one's choice.
    ///
    /// # Errors
    /// The device refused.
    pub fn begin(&self, direction: VhostTransferStateDirection, fd: OwnedFd) -> Outcome<()> {
        self.frontend.set_device_state_fd(direction, VhostTransferStatePhase::STOPPED, fd)?;
        Ok(())
    }

    /// Goes on at another device: the state first, then everything else, as after the memory has been sent.
    ///
    /// # Errors
    /// The device refused the state or a message.
    pub fn land(self, socket: &Path, state: &[u8]) -> Outcome<Self> {
        let Self { memory, frontend, rings, features, vmm } = self;
        drop(frontend);
        let mut guest = Self::connect(Frontend::connect(socket, 2)?, vmm, memory, rings)?;
        guest.features = features;
        guest.load(state)?;
        guest.activate()?;
        Ok(guest)
    }
}

fn load(frontend: &Frontend, state: &[u8]) -> Outcome<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    frontend.set_device_state_fd(
        VhostTransferStateDirection::LOAD,
        VhostTransferStatePhase::STOPPED,
        theirs.into(),
    )?;
    // A device that has read enough reads no more, and says so when it is asked.
    let _ = ours.write_all(state);
    drop(ours);
    Ok(frontend.check_device_state()?)
}
