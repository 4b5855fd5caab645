//! The driver's virtqueues: split rings and descriptor chains in guest memory.
//!
//! Everything here treats what it reads as a claim by an enemy, reads each descriptor and each byte once, and turns
//! every violation into a retired chain or, for the ring itself, a stop. It knows rings, descriptors and guest
//! memory. It must never know rules, conns or what a frame means.

pub(crate) mod chain;
pub(crate) mod dirty;
pub(crate) mod memory;
pub(crate) mod ring;
pub(crate) mod rx;
pub(crate) mod tx;

/// Chains taken off a ring, judged and given back together.
pub(crate) const BATCH: usize = 32;

#[cfg(test)]
pub(crate) mod fixture;
