//! Policies of the laboratory: random ones, and a second, stupid reader of what they mean.
//!
//! It may know intent as documents write it. It must never know how the compiler works.

pub mod model;
pub mod random;
