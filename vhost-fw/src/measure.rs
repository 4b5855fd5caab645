//! What benches time, opened to them alone.
//!
//! Built only with the feature `measure`, never into the program. Knows the parts it opens. Never knows the time.

mod handover;
mod transmit;

pub use handover::{load, save};
pub use transmit::Transmit;
