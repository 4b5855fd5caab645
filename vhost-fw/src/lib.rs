//! The I/O shell around [`fw_engine`]: queues, uplink, worker, control socket.

mod backend;
pub mod decision;
pub mod device;
mod features;
mod queue;
pub mod serve;
pub mod uplink;
mod vring;
pub mod worker;
