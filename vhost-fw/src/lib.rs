//! The I/O shell around [`fw_engine`]: queues, uplink, worker, control socket.

mod fingerprint;
pub mod sandbox;
pub mod uplink;
