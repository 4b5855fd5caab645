//! What the device offers, and what follows from what the driver acknowledged.
//!
//! Knows feature bits (virtio 1.2 sections 5.1.3 and 6). Never knows a ring or a frame. Everything that depends on
//! a feature asks here, so that it follows the acknowledged bits and never the offered ones.

use fw_engine::{GuestOffloads, VnetHeader};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use virtio_bindings::bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_VERSION_1};
use virtio_bindings::bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4,
    VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU,
};
use virtio_bindings::bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

/// `VHOST_USER_F_PROTOCOL_FEATURES`.
const PROTOCOL_FEATURES: u32 = 30;

/// `VHOST_F_LOG_ALL`: the VMM wants to know what we write.
pub(crate) const LOG_ALL: u64 = bit(26);

/// Header without `num_buffers`, for drivers from before virtio 1.0 (virtio 1.2 section 5.1.6.1).
const LEGACY_HEADER_LEN: usize = VnetHeader::LEN - 2;

const fn bit(number: u32) -> u64 {
    1 << number
}

/// The feature bits offered; the MAC address only where one is known, logging only where the conn table can move along:
/// without, a VMM refuses to migrate the VM rather than losing its conns silently.
pub(crate) const fn offered(with_mac: bool, moves: bool) -> u64 {
    let always = bit(PROTOCOL_FEATURES)
        | bit(VIRTIO_F_VERSION_1)
        | bit(VIRTIO_F_IN_ORDER)
        | bit(VIRTIO_RING_F_EVENT_IDX)
        | bit(VIRTIO_RING_F_INDIRECT_DESC)
        | bit(VIRTIO_NET_F_MRG_RXBUF)
        | bit(VIRTIO_NET_F_CTRL_VQ)
        | bit(VIRTIO_NET_F_MQ)
        | bit(VIRTIO_NET_F_MTU)
        | bit(VIRTIO_NET_F_CSUM)
        | bit(VIRTIO_NET_F_GUEST_CSUM)
        | bit(VIRTIO_NET_F_HOST_TSO4)
        | bit(VIRTIO_NET_F_HOST_TSO6)
        | bit(VIRTIO_NET_F_HOST_ECN)
        | bit(VIRTIO_NET_F_GUEST_TSO4)
        | bit(VIRTIO_NET_F_GUEST_TSO6)
        | bit(VIRTIO_NET_F_GUEST_ECN);
    let mac = if with_mac { bit(VIRTIO_NET_F_MAC) } else { 0 };
    let log = if moves { LOG_ALL } else { 0 };
    always | mac | log
}

/// The vhost-user protocol bits offered; `REPLY_ACK` is added by the library.
pub(crate) fn offered_protocol(moves: bool) -> VhostUserProtocolFeatures {
    let always = VhostUserProtocolFeatures::MQ
        | VhostUserProtocolFeatures::CONFIG
        | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS;
    let migration = VhostUserProtocolFeatures::LOG_SHMFD | VhostUserProtocolFeatures::DEVICE_STATE;
    if moves { always | migration } else { always }
}

/// The feature bits the driver acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Acked(pub(crate) u64);

impl Acked {
    const fn has(self, number: u32) -> bool {
        self.0 & bit(number) != 0
    }

    /// Bytes of the virtio-net header before each frame.
    pub(crate) const fn header_len(self) -> usize {
        if self.has(VIRTIO_F_VERSION_1) || self.mergeable() { VnetHeader::LEN } else { LEGACY_HEADER_LEN }
    }

    /// One frame may fill several buffers of the guest.
    pub(crate) const fn mergeable(self) -> bool {
        self.has(VIRTIO_NET_F_MRG_RXBUF)
    }

    pub(crate) const fn indirect(self) -> bool {
        self.has(VIRTIO_RING_F_INDIRECT_DESC)
    }

    pub(crate) const fn event_idx(self) -> bool {
        self.has(VIRTIO_RING_F_EVENT_IDX)
    }

    /// What the driver can receive.
    pub(crate) const fn offloads(self) -> GuestOffloads {
        GuestOffloads {
            csum: self.has(VIRTIO_NET_F_GUEST_CSUM),
            tso4: self.has(VIRTIO_NET_F_GUEST_TSO4),
            tso6: self.has(VIRTIO_NET_F_GUEST_TSO6),
            ecn: self.has(VIRTIO_NET_F_GUEST_ECN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_length_follows_what_was_acknowledged() {
        assert_eq!(Acked(0).header_len(), 10);
        assert_eq!(Acked(bit(VIRTIO_F_VERSION_1)).header_len(), 12);
        assert_eq!(Acked(bit(VIRTIO_NET_F_MRG_RXBUF)).header_len(), 12);
        assert_eq!(Acked(offered(true, true)).header_len(), 12);
    }

    #[test]
    fn what_cannot_be_kept_is_not_promised() {
        let forbidden = [10, 14, 18, 20, 34, 38, 40, 54, 55, 56, 57, 60];
        for number in forbidden {
            assert_eq!(offered(true, true) & bit(number), 0, "bit {number}");
        }
        let never = VhostUserProtocolFeatures::INFLIGHT_SHMFD
            | VhostUserProtocolFeatures::RARP
            | VhostUserProtocolFeatures::STATUS
            | VhostUserProtocolFeatures::INBAND_NOTIFICATIONS;
        assert!((offered_protocol(true) & never).is_empty());
    }

    #[test]
    fn a_vm_migrates_only_with_its_conns() {
        let migration = VhostUserProtocolFeatures::LOG_SHMFD | VhostUserProtocolFeatures::DEVICE_STATE;
        assert_eq!(
            (offered(true, false) & LOG_ALL, offered_protocol(false) & migration),
            (0, VhostUserProtocolFeatures::empty())
        );
        assert_eq!((offered(true, true) & LOG_ALL, offered_protocol(true) & migration), (LOG_ALL, migration));
    }

    #[test]
    fn the_mac_address_is_offered_only_where_it_is_known() {
        assert_eq!(offered(true, true) ^ offered(false, true), bit(VIRTIO_NET_F_MAC));
    }
}
