//! The laboratory: what tests are made of.
//!
//! Cases from files, the program under test, a second stupid firewall. Knows the product from outside. Never is part
//! of it.

pub mod cases;
pub mod fuzzing;
<<<<<<< HEAD
pub mod guest;
=======
pub mod model;
>>>>>>> main
pub mod program;
pub mod random;
pub mod simulator;
pub mod wire;
