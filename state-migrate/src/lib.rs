//! Moves a VM's conn table with it: ahead of the VM, along with it, and back if the move fails.
//!
//! The firewalls at both ends do the judging and the believing; here are the ways between them and the order of a move. It
//! may know control sockets, snapshots' headers, TLS and VMMs. It must never know a rule or a frame.
#![forbid(unsafe_code)]

mod ahead;
pub mod channel;
pub mod config;
pub mod diff;
pub mod errand;
pub mod files;
pub mod host;
pub mod inspect;
pub mod orchestrator;
mod progress;
pub mod receiver;
mod relay;
pub mod report;
mod target;
pub mod vmm;
