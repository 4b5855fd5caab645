//! The laboratory: what tests are made of.
//!
//! Cases from files, the program under test, a second stupid firewall. Knows the product from outside. Never is part
//! of it.

pub mod cases;
pub mod fuzzing;
pub mod guest;
pub mod model;
pub mod program;
pub mod random;
pub mod simulator;
pub mod wire;
