//! The verbs, a file each.
//!
//! Each knows its arguments and what it prints. None knows another.

pub mod compile;
pub mod diff;
pub mod explain;
