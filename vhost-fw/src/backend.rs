//! The device as the VMM sees it: features, configuration space, memory.
//!
//! Notes what the VMM says and wakes the data thread, which does the work; the library's own worker threads are not
//! used. Knows the vhost-user vocabulary. Never knows a ring's contents or a frame.

use std::io;
use std::sync::Arc;

use fw_model::MacAddr;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::bindings::virtio_net::VIRTIO_NET_S_LINK_UP;
use vmm_sys_util::epoll::EventSet;

use crate::features::{offered, offered_protocol};
use crate::queue::dirty::DirtyLog;
use crate::queue::memory::CurrentMemory;
use crate::vring::{Plug, Ring};

/// Rings of one queue pair: the guest receives on 0 and transmits on 1.
pub(crate) const RINGS: usize = 2;

/// The device.
pub(crate) struct Backend {
    plug: Arc<Plug>,
    mac: Option<MacAddr>,
    mtu: u16,
    queue_size: u16,
}

impl Backend {
    pub(crate) const fn new(plug: Arc<Plug>, mac: Option<MacAddr>, mtu: u16, queue_size: u16) -> Self {
        Self { plug, mac, mtu, queue_size }
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
        offered(self.mac.is_some())
    }

    fn acked_features(&self, features: u64) {
        self.plug.set_acked(features);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        offered_protocol()
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

    fn update_memory(&self, _memory: CurrentMemory) -> io::Result<()> {
        self.plug.memory_changed();
        Ok(())
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
        let backend = Backend::new(plug, Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])), 1500, 256);
        assert_eq!(
            backend.get_config(0, 17),
            [0x52, 0x54, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 0x05, 0, 0, 0, 0, 0]
        );
        assert_eq!(backend.get_config(10, 2), [0xdc, 0x05]);
        assert_eq!(backend.get_config(200, 4), [0; 4]);
        assert_eq!(backend.get_config(u32::MAX, 1), [0]);
    }
}
