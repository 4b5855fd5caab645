//! The shell of policy-sync: files, clock and terminal around the compiler.
//!
//! Knows where policies are kept and how results are shown. Never decides what a rule means.
#![forbid(unsafe_code)]

mod agent;
mod api;
mod authority;
mod client;
mod clock;
mod compiled;
pub mod config;
pub mod files;
mod link;
mod plane;
mod roles;
pub mod rules_file;
mod serve;
mod store;
pub mod verbs;
