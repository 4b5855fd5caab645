//! The laboratory: what tests are made of.
//!
//! Cases from files, the program under test, a second stupid firewall, hosts with bridges and real guests. Knows the
//! product from outside. Never is part of it.

pub mod bench;
pub mod cases;
pub mod claim;
pub mod control_plane;
pub mod counting;
pub mod device;
pub mod far_end;
pub mod firewall;
pub mod fuzzing;
pub mod guest;
pub mod host;
pub mod image;
pub mod landing;
pub mod migrate;
pub mod model;
pub mod outer;
pub mod places;
pub mod policy;
pub mod probe;
pub mod process;
pub mod program;
pub mod quickstart;
pub mod random;
pub mod report;
pub mod rung;
pub mod script;
pub mod sealing;
pub mod simulator;
pub mod site;
pub mod suite;
pub mod switch;
pub mod takeover;
pub mod tap;
mod traffic;
pub mod vm;
pub mod wire;
