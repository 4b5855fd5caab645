//! The I/O shell around [`fw_engine`]: queues, uplink, worker, control socket.

mod backend;
mod features;
mod fingerprint;
mod hex;
mod queue;
mod ready;
mod vring;

pub mod config;
pub mod control;
pub mod crash_copy;
pub mod ctl;
pub mod decision;
pub mod device;
pub mod handover;
pub mod keeper;
#[cfg(feature = "measure")]
pub mod measure;
pub mod nic;
pub mod observe;
pub mod reasons;
pub mod rules_file;
pub mod run;
pub mod sandbox;
pub mod serve;
pub mod simulate;
pub mod uplink;
pub mod worker;
