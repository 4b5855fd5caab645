//! A NIC with its data thread and no VM: an uplink that leads nowhere, and an onlooker who does not look.

use fw_engine::Engine;
use fw_model::Reason;
use vhost_fw::decision::{Decision, Observer};
use vhost_fw::device::{Device, DeviceOptions};
use vhost_fw::handover::HandoverOptions;
use vhost_fw::uplink::Null;

use crate::NOW;

struct Blind;

impl Observer for Blind {
    fn wants(&mut self, _: Reason) -> bool {
        false
    }

    fn decided(&mut self, _: &Decision) {}

    fn lost(&self) -> u64 {
        0
    }
}

/// Starts its data thread.
pub(crate) fn start(engine: Engine, handover: HandoverOptions) -> Result<Device, String> {
    Device::start(DeviceOptions {
        engine,
        uplink: Box::new(Null::new(None)),
        mac: None,
        mtu: 1500,
        queue_size: 256,
        poll: false,
        observer: Box::new(Blind),
        clock: Box::new(|| NOW),
        handover: Some(handover),
        crash_copy: None,
        thread_setup: Box::new(|| Ok(())),
    })
    .map_err(|error| error.to_string())
}
