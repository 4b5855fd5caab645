//! The I/O shell around [`fw_engine`]: queues, uplink, worker, control socket.

mod document;
mod hex;

pub mod config;
pub mod control;
pub mod ctl;
pub mod decision;
pub mod observe;
pub mod reasons;
pub mod rules_file;
pub mod simulate;
mod fingerprint;
pub mod sandbox;
pub mod uplink;
