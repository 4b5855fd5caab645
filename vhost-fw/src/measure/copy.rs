//! A crash copy that follows an engine, as the data thread has it after each round.
//!
//! Knows both. Never knows a frame.

use fw_engine::{Engine, Tick};

use crate::crash_copy::CrashCopy;

/// Writes what changed.
pub fn follow(copy: &mut CrashCopy, engine: &mut Engine, now: Tick) {
    copy.follow(engine, now);
}
