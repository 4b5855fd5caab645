//! The laboratory.

pub mod bench;
pub mod firewall;
pub mod host;
pub mod image;
pub mod probe;
pub mod process;
pub mod programs;
pub mod quickstart;
pub mod rung;
pub mod site;
pub mod suite;
pub mod switch;
pub mod vm;
