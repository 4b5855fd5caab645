//! What benches time, opened to them alone.
//!
//! Built only with the feature `measure`, never into the program. Knows the parts it opens. Never knows the time.

mod copy;
mod handover;
mod transmit;

pub use copy::follow;
pub use handover::{load, save};
pub use transmit::Transmit;
