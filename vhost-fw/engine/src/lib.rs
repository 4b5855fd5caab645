//! The pure heart of vhost-fw: frames in, verdicts out.
//!
//! No I/O, no clock, no threads, no allocation per frame; time is an argument. Never knows guest memory,
//! descriptors, groups or labels.
#![forbid(unsafe_code)]

mod adoption;
mod announcement;
mod config;
mod conn_state;
mod conntrack;
mod engine;
mod expectation;
mod explain;
#[cfg(test)]
mod fixture;
mod fragment;
mod frame;
mod guard;
mod headers;
mod in_force;
mod ledger;
mod limits;
mod matcher;
mod meter;
mod pipeline;
mod portable;
mod prepared;
mod reply;
mod revision;
mod state;
mod time;
mod verdict;
mod vnet;

pub use adoption::Home;
pub use config::Config;
pub use conn_state::ConnState;
pub use conntrack::Follower;
pub use engine::Engine;
pub use frame::{FRAME_LEN_MAX, Frame, HEAD_LEN};
pub use matcher::RuleSetError;
pub use portable::{Arrival, PortableConn, PortableEnd, PortableTcp, Trust};
pub use prepared::PreparedRules;
pub use time::Tick;
pub use verdict::{Answer, Answers, Permit, RuleSlot, Verdict};
pub use vnet::{GuestOffloads, VnetHeader, driver_claim};
