//! A table's way out of one NIC and into another: what SAVE and LOAD do, data threads included, without a VMM in between.
//!
//! Knows the two ends. Never knows how bytes travel.

use conn_snapshot::Sealed;
use fw_model::Arrived;

use crate::device::Device;
use crate::handover::HandoverError;

/// The NIC's table, as SAVE writes it.
///
/// # Errors
/// It cannot leave.
pub fn save(device: &Device) -> Result<Vec<u8>, HandoverError> {
    device.handover().ok_or(HandoverError::Unannounced)?.save().map(|table| table.bytes)
}

/// A table taken in, as LOAD takes it.
///
/// # Errors
/// It is refused.
pub fn load(device: &Device, bytes: &[u8]) -> Result<Arrived, HandoverError> {
    let handover = device.handover().ok_or(HandoverError::Unannounced)?;
    handover.make_ready(&Sealed::read(bytes)?.header);
    handover.load(bytes)
}
