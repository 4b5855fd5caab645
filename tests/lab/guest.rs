//! A guest with a virtio-net driver, and the VMM that speaks vhost-user for it, both played by hand.
//!
//! Memory is two regions that touch, a hole, and a third that can be plugged in. Knows what a driver may write into
//! its rings, and lets a test write anything else. Never knows the device from inside.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

pub use driver::{Layout, Received};
pub use migration::DirtyPages;
pub use ring::{Descriptor, INDIRECT, NEXT, Ring, SIZE, WRITE};

mod driver;
mod migration;
mod ring;

/// The queue that the guest receives on.
pub const RX: usize = 0;
/// The queue that the guest transmits on.
pub const TX: usize = 1;

/// Where the first two regions touch.
pub const BORDER: u64 = 0x10_0000;
/// Where a hole starts.
pub const HOLE: u64 = 0x20_0000;
/// Where memory can be plugged in.
pub const PLUGGED: u64 = 0x40_0000;
const REGION: usize = 0x10_0000;

/// Free for indirect tables.
pub const TABLES: u64 = 0x1_0000;
/// Free for frames to send; it reaches over [`BORDER`].
pub const FRAMES: u64 = 0x2_0000;
/// Buffers to receive into.
pub const BUFFERS: u64 = 0x12_0000;
/// From one of them to the next.
pub const BUFFER_STRIDE: u64 = 0x800;

/// `VHOST_F_LOG_ALL`.
const LOG_ALL: u64 = 1 << 26;

/// How long anything may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long we look for what must not happen.
pub const GRACE: Duration = Duration::from_millis(60);

/// Whose order of messages is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vmm {
    /// ADDR before BASE, all rings enabled at the end.
    CloudHypervisor,
    /// BASE before ADDR, features again after the rings.
    Qemu,
}

/// A guest and its VMM.
pub struct Guest {
    /// Its memory.
    pub memory: GuestMemoryMmap<()>,
    /// The VMM's end of the socket.
    pub frontend: Frontend,
    /// Both rings, [`RX`] and [`TX`].
    pub rings: [Ring; 2],
    /// What was acknowledged.
    pub features: u64,
    vmm: Vmm,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

impl Guest {
    /// Boots a guest that acknowledges what is offered except `without`.
    ///
    /// # Errors
    /// The device refused a message, or the machine has no memory.
    pub fn boot(socket: &Path, vmm: Vmm, without: &[u32]) -> Outcome<Self> {
        Self::boot_with(Frontend::connect(socket, 2)?, vmm, without)
    }

    /// As [`Guest::boot`], on a connection that the device made.
    ///
    /// # Errors
    /// As [`Guest::boot`].
    pub fn boot_on(stream: UnixStream, vmm: Vmm, without: &[u32]) -> Outcome<Self> {
        Self::boot_with(Frontend::from_stream(stream, 2), vmm, without)
    }

    /// Boots a guest with one region of `bytes` of memory.
    ///
    /// # Errors
    /// As [`Guest::boot`].
    pub fn boot_large(socket: &Path, vmm: Vmm, bytes: usize) -> Outcome<Self> {
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile())?;
        file.set_len(u64::try_from(bytes)?)?;
        let region = (GuestAddress(0), bytes, Some(FileOffset::new(file, 0)));
        let memory = GuestMemoryMmap::from_ranges_with_files([region])?;
        let mut guest = Self::connect(Frontend::connect(socket, 2)?, vmm, memory, rings()?)?;
        guest.activate()?;
        Ok(guest)
    }

    fn boot_with(frontend: Frontend, vmm: Vmm, without: &[u32]) -> Outcome<Self> {
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile())?;
        file.set_len(3 << 20)?;
        let mut guest = Self::connect(frontend, vmm, memory(&file)?, rings()?)?;
        for number in without {
            guest.features &= !(1 << number);
        }
        guest.activate()?;
        Ok(guest)
    }

    /// Connects anew, as a VMM does whose backend went away, and sets the same rings up.
    ///
    /// # Errors
    /// As [`Guest::boot`].
    pub fn reconnect(mut self, socket: &Path) -> Outcome<Self> {
        self.try_reconnect(socket)?;
        Ok(self)
    }

    /// As [`Guest::reconnect`]; where nobody listens it stays as it was and can try again.
    ///
    /// # Errors
    /// As [`Guest::boot`].
    pub fn try_reconnect(&mut self, socket: &Path) -> Outcome<()> {
        self.frontend = Frontend::connect(socket, 2)?;
        self.negotiate()?;
        self.activate()
    }

    fn connect(frontend: Frontend, vmm: Vmm, memory: GuestMemoryMmap<()>, rings: [Ring; 2]) -> Outcome<Self> {
        let mut guest = Self { memory, frontend, rings, features: 0, vmm };
        // What a guest's driver sees: logging is the VMM's own.
        guest.features = guest.negotiate()? & !LOG_ALL;
        Ok(guest)
    }

    /// The beginning of a connection; the features offered.
    fn negotiate(&mut self) -> Outcome<u64> {
        let frontend = &mut self.frontend;
        frontend.set_owner()?;
        let features = frontend.get_features()?;
        let offered = frontend.get_protocol_features()?;
        let wanted = VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::LOG_SHMFD
            | VhostUserProtocolFeatures::DEVICE_STATE
            | VhostUserProtocolFeatures::REPLY_ACK;
        frontend.set_protocol_features(offered & wanted)?;
        frontend.get_queue_num()?;
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        Ok(features)
    }

    /// The first bytes of the configuration space.
    ///
    /// # Errors
    /// The device refused.
    pub fn config(&mut self) -> Outcome<Vec<u8>> {
        Ok(self.frontend.get_config(0, 17, VhostUserConfigFlags::WRITABLE, &[0; 17])?.1)
    }

    /// Sets everything up in the VMM's order, from the rings' present indices on.
    ///
    /// # Errors
    /// The device refused a message.
    pub fn activate(&mut self) -> Outcome<()> {
        self.frontend.set_features(self.features)?;
        self.set_memory_again()?;
        if self.vmm == Vmm::CloudHypervisor {
            for index in [RX, TX] {
                self.frontend.set_vring_num(index, ring::SIZE)?;
            }
        }
        for index in [RX, TX] {
            self.start_ring(index)?;
        }
        for index in [RX, TX] {
            self.frontend.set_vring_enable(index, true)?;
        }
        if self.vmm == Vmm::Qemu {
            self.frontend.set_features(self.features)?;
        }
        Ok(())
    }

    /// Tells the memory table.
    ///
    /// # Errors
    /// The device refused it.
    pub fn set_memory_again(&self) -> Outcome<()> {
        let regions: Result<Vec<_>, _> =
            self.memory.iter().map(VhostUserMemoryRegionInfo::from_guest_region).collect();
        self.frontend.set_mem_table(&regions?)?;
        Ok(())
    }

    fn start_ring(&mut self, index: usize) -> Outcome<()> {
        let ring = self.ring(index);
        let addresses = self.addresses(index, None)?;
        // Cloud Hypervisor names the available index after a reconnect: the device must know better.
        let base = ring.avail_index(&self.memory);
        let (kick, call) = (ring.kick.try_clone()?, ring.call.try_clone()?);
        match self.vmm {
            Vmm::CloudHypervisor => {
                self.frontend.set_vring_addr(index, &addresses)?;
                self.frontend.set_vring_base(index, base)?;
                self.frontend.set_vring_call(index, &call)?;
                self.frontend.set_vring_kick(index, &kick)?;
            }
            Vmm::Qemu => {
                self.frontend.set_vring_num(index, ring::SIZE)?;
                self.frontend.set_vring_base(index, base)?;
                self.frontend.set_vring_addr(index, &addresses)?;
                self.frontend.set_vring_kick(index, &kick)?;
                self.frontend.set_vring_call(index, &call)?;
            }
        }
        Ok(())
    }

    /// Where a ring stands, and its log if it is logged.
    fn addresses(&self, index: usize, log_addr: Option<u64>) -> Outcome<VringConfigData> {
        let ring = self.ring(index);
        let host = |address| -> Outcome<u64> {
            Ok(u64::try_from(self.memory.get_host_address(GuestAddress(address))?.addr())?)
        };
        Ok(VringConfigData {
            queue_max_size: ring::SIZE,
            queue_size: ring::SIZE,
            flags: u32::from(log_addr.is_some()),
            desc_table_addr: host(ring.descriptors)?,
            used_ring_addr: host(ring.used)?,
            avail_ring_addr: host(ring.avail)?,
            log_addr,
        })
    }

    /// Stops both rings, as before a reboot, and gives the bases the device names.
    ///
    /// # Errors
    /// The device refused a message.
    pub fn stop(&mut self) -> Outcome<[u32; 2]> {
        for index in [RX, TX] {
            self.frontend.set_vring_enable(index, false)?;
        }
        Ok([self.frontend.get_vring_base(RX)?, self.frontend.get_vring_base(TX)?])
    }

    /// Reboots: the rings are stopped, zeroed by the new kernel, and set up again.
    ///
    /// # Errors
    /// The device refused a message.
    pub fn reboot(&mut self) -> Outcome<()> {
        self.stop()?;
        for ring in &mut self.rings {
            ring.zero(&self.memory)?;
        }
        self.activate()
    }

    /// Plugs the third region in.
    ///
    /// # Errors
    /// The device refused.
    pub fn plug_memory(&mut self) -> Outcome<()> {
        let file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile())?;
        file.set_len(1 << 20)?;
        let range = Some(FileOffset::new(file, 0));
        let region = GuestRegionMmap::from_range(GuestAddress(PLUGGED), REGION, range)?;
        let info = VhostUserMemoryRegionInfo::from_guest_region(&region)?;
        self.memory = self.memory.insert_region(std::sync::Arc::new(region))?;
        self.frontend.add_mem_region(&info)?;
        Ok(())
    }

    /// Takes the third region out again, and keeps it to itself.
    ///
    /// # Errors
    /// The device refused.
    pub fn unplug_memory(&mut self) -> Outcome<()> {
        let region = self.memory.find_region(GuestAddress(PLUGGED)).ok_or("not plugged in")?;
        let info = VhostUserMemoryRegionInfo::from_guest_region(region)?;
        Ok(self.frontend.remove_mem_region(&info)?)
    }

    /// A ring.
    #[must_use]
    pub fn ring(&self, index: usize) -> &Ring {
        let [rx, tx] = &self.rings;
        if index == RX { rx } else { tx }
    }

    fn ring_mut(&mut self, index: usize) -> &mut Ring {
        let [rx, tx] = &mut self.rings;
        if index == RX { rx } else { tx }
    }

    fn has(&self, feature: u32) -> bool {
        self.features & (1 << feature) != 0
    }
}

fn memory(file: &File) -> Outcome<GuestMemoryMmap<()>> {
    let offset = |start| io::Result::Ok(Some(FileOffset::new(file.try_clone()?, start)));
    Ok(GuestMemoryMmap::from_ranges_with_files([
        (GuestAddress(0), REGION, offset(0)?),
        (GuestAddress(BORDER), REGION, offset(2 << 20)?),
    ])?)
}

fn rings() -> Outcome<[Ring; 2]> {
    Ok([Ring::at(0x1000)?, Ring::at(0x8000)?])
}

fn event() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK)
}
