//! What is said on a NIC's control socket, and how.
//!
//! Requests and replies, the bytes they become, and the end that asks. The programs that steer a NIC and the NIC itself
//! speak through this crate, so that there is one framing. Never knows what a NIC does about a request.

mod advance;
mod line;
pub mod message;
mod place;
mod request;

pub use advance::{Advance, Misfit, SetChange, SetsChange, age};
pub use line::Line;
pub use place::{SOCKET, control_in};
pub use request::{PROTOCOL_VERSION, Reply, Request, Terms};
