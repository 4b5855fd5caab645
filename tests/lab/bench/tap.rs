//! The floor under every tap uplink: how many frames per second one core can write to a tap at all.
//!
//! It may know a tap of the laboratory's. It must never judge or look at a frame.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::host::ip;
use crate::tap::{HEADER, Tap};

const NAME: &str = "floor0";
/// Where ours runs too.
const CPU: usize = 1;
const MEASURED: Duration = Duration::from_secs(3);

/// Frames of `size` bytes that one thread writes to a tap per second.
pub(super) fn written_per_second(size: usize) -> Result<f64> {
    let mut place = CpuSet::new();
    place.set(CPU);
    let before = sched_getaffinity(None)?;
    sched_setaffinity(None, &place)?;
    let rate = write_for_a_while(size);
    sched_setaffinity(None, &before)?;
    rate
}

fn write_for_a_while(size: usize) -> Result<f64> {
    let mut tap = Tap::open(NAME).context("cannot make a tap")?;
    ip(&format!("link set {NAME} addrgenmode none up"))?;
    let record = [&[0; HEADER][..], &frame(size)].concat();
    let start = Instant::now();
    let mut frames = 0_u32;
    while start.elapsed() < MEASURED {
        for _ in 0..256 {
            tap.write(&record)?;
        }
        frames += 256;
    }
    Ok(f64::from(frames) / start.elapsed().as_secs_f64())
}

/// A UDP frame that nobody on the host wants.
fn frame(size: usize) -> Vec<u8> {
    let ethernet = [2, 0, 0, 0, 0, 0x99, 4, 0, 0, 0, 0, 0, 8, 0, 0x45];
    let mut frame = ethernet.to_vec();
    frame.resize(size.max(64), 0);
    if let Some(protocol) = frame.get_mut(23) {
        *protocol = 17;
    }
    frame
}
