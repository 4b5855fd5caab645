//! The verbs, a file each.
//!
//! Each knows its arguments and what it prints. None knows another.

pub mod apply;
pub mod asking;
pub mod audit;
pub mod compile;
pub mod coverage;
pub mod daemon;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod explain_enforced;
pub mod facts;
pub mod get;
pub mod history;
pub mod host;
pub mod paper;
pub mod rollback;
pub mod token;
pub mod watch;
pub mod who;
