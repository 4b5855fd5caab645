//! The shell of policy-sync: files, clock and terminal around the compiler.
//!
//! Knows where policies are kept and how results are shown. Never decides what a rule means.
#![forbid(unsafe_code)]

pub mod config;
pub mod files;
pub mod rules_file;
pub mod verbs;
