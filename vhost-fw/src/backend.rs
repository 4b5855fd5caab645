//! The device as the VMM sees it: features, configuration space, memory.
//!
//! Notes what the VMM says and wakes the data thread, which does the work; the library's own worker threads are not
//! used. Knows the vhost-user vocabulary. Never knows a ring's contents or a frame.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fw_model::MacAddr;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserProtocolFeatures,
};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::bindings::virtio_net::VIRTIO_NET_S_LINK_UP;
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::EventSet;

use crate::features::{LOG_ALL, offered, offered_protocol};
use crate::handover::Transfers;
use crate::queue::dirty::{self, DirtyLog};
use crate::queue::memory::{CurrentMemory, Memory};
use crate::vring::{Plug, Ring};

/// Rings of one queue pair: the guest receives on 0 and transmits on 1.
pub(crate) const RINGS: usize = 2;

/// The device.
pub(crate) struct Backend {
    plug: Arc<Plug>,
    mac: Option<MacAddr>,
    mtu: u16,
    queue_size: u16,
    /// Only with it can the VM migrate.
    transfers: Option<Transfers>,
    /// The connection's memory table: its regions hold the VMM's log.
    memory: Mutex<Option<Arc<Memory>>>,
}

impl Backend {
    pub(crate) const fn new(
        plug: Arc<Plug>,
        mac: Option<MacAddr>,
        mtu: u16,
        queue_size: u16,
        transfers: Option<Transfers>,
    ) -> Self {
        Self { plug, mac, mtu, queue_size, transfers, memory: Mutex::new(None) }
    }

    /// Lets go of what a connection that has ended leaves behind: its memory, and a transfer nobody asked about.
    pub(crate) fn forget_connection(&self) {
        *self.memory() = None;
        if let Some(transfers) = &self.transfers {
            transfers.forget();
        }
    }

    fn memory(&self) -> MutexGuard<'_, Option<Arc<Memory>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transfers(&self) -> io::Result<&Transfers> {
        let without = || io::Error::other("started without --state-key: no table leaves or arrives");
        self.transfers.as_ref().ok_or_else(without)
    }

    pub(crate) const fn plug(&self) -> &Arc<Plug> {
        &self.plug
    }

    /// `struct virtio_net_config` (virtio 1.2 section 5.1.4), as far as it is offered.
    fn config(&self) -> [u8; 12] {
        let [a, b, c, d, e, f] = self.mac.map_or([0; 6], |mac| mac.0);
        let [status_low, status_high] = u16::try_from(VIRTIO_NET_S_LINK_UP).unwrap_or(0).to_le_bytes();
        let [mtu_low, mtu_high] = self.mtu.to_le_bytes();
        let [pairs_low, pairs_high] = 1_u16.to_le_bytes();
        [a, b, c, d, e, f, status_low, status_high, pairs_low, pairs_high, mtu_low, mtu_high]
    }
}

impl VhostUserBackend for Backend {
    type Bitmap = DirtyLog;
    type Vring = Ring;

    fn num_queues(&self) -> usize {
        RINGS
    }

    fn max_queue_size(&self) -> usize {
        usize::from(self.queue_size)
    }

    fn features(&self) -> u64 {
        offered(self.mac.is_some(), self.transfers.is_some())
    }

    /// Logging of writes is switched here, and is no feature of the driver's.
    fn acked_features(&self, features: u64) {
        if features & LOG_ALL == 0
            && let Some(memory) = &*self.memory()
        {
            dirty::stop(memory);
        }
        self.plug.set_acked(features & !LOG_ALL);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        offered_protocol(self.transfers.is_some())
    }

    fn set_event_idx(&self, _enabled: bool) {}

    /// Exactly `size` bytes: any other length is a failure to the VMM.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let (Ok(offset), Ok(size)) = (usize::try_from(offset), usize::try_from(size)) else {
            return Vec::new();
        };
        let config = self.config();
        let known = config.get(offset..).unwrap_or_default();
        known.iter().copied().chain(std::iter::repeat(0)).take(size.min(256)).collect()
    }

    /// A log that was set before goes on in the new table: QEMU does not set it again.
    fn update_memory(&self, memory: CurrentMemory) -> io::Result<()> {
        let now = memory.memory().into_inner();
        let before = self.memory().replace(Arc::clone(&now));
        if let Some(before) = before {
            dirty::carry_on(&before, &now)?;
        }
        self.plug.memory_changed();
        Ok(())
    }

    fn set_device_state_fd(
        &self,
        direction: VhostTransferStateDirection,
        phase: VhostTransferStatePhase,
        file: File,
    ) -> io::Result<Option<File>> {
        let VhostTransferStatePhase::STOPPED = phase;
        let transfers = self.transfers()?;
        let begun = match direction {
            VhostTransferStateDirection::SAVE => transfers.begin_save(file),
            VhostTransferStateDirection::LOAD => transfers.begin_load(file),
        };
        begun.inspect_err(|error| log::warn!("the VMM's transfer is refused: {error}"))?;
        Ok(None)
    }

    /// The VMM is told yes or no and never why, so the log says it.
    fn check_device_state(&self) -> io::Result<()> {
        self.transfers()?.check().inspect_err(|error| log::error!("the conn table did not move: {error}"))
    }

    /// None: the data thread is ours.
    fn queues_per_thread(&self) -> Vec<u64> {
        Vec::new()
    }

    fn handle_event(&self, _: u16, _: EventSet, _: &[Ring], _: usize) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_space_is_as_long_as_asked_and_zero_beyond() {
        let plug = Arc::new(Plug::new().unwrap());
        let backend = Backend::new(plug, Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])), 1500, 256, None);
        assert_eq!(
            backend.get_config(0, 17),
            [0x52, 0x54, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 0x05, 0, 0, 0, 0, 0]
        );
        assert_eq!(backend.get_config(10, 2), [0xdc, 0x05]);
        assert_eq!(backend.get_config(200, 4), [0; 4]);
        assert_eq!(backend.get_config(u32::MAX, 1), [0]);
    }
}
