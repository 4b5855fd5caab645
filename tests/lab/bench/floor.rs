//! The floors under every tap uplink: what one core can write to a tap and read from it at all.
//!
//! The same frames, headers and tap as ours, the same core, and beside it a neighbour as busy as ours has. It may know a
//! tap of the laboratory's. It must never judge or look at a frame.

use std::io::IoSlice;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::{backlog, generator, super_segment};
use crate::host::ip;
use crate::process::Process;
use crate::tap::{LONG_HEADER, Tap};

const NAME: &str = "floor0";
/// Where ours runs too.
const CPU: usize = 1;
/// Where ours has its generator.
pub(super) const NEIGHBOUR: usize = 0;
const MEASURED: Duration = Duration::from_secs(3);
/// Super-segments the pool is written from, in turn: 64 MiB, which no cache holds.
const POOL: usize = 1024;

/// Frames of `size` bytes in `flows` flows, as the generator's, that one thread writes to a tap per second.
pub(super) fn written_per_second(size: usize, flows: u32) -> Result<f64> {
    let records: Vec<Vec<u8>> =
        (0..flows).map(|flow| [&[0; LONG_HEADER][..], &generator::frame(flow, size)].concat()).collect();
    beside_a_neighbour(|| {
        let mut tap = open()?;
        per_second(&mut records.iter().cycle(), 256, |record| Ok(tap.write(record)?))
    })
}

/// Super-segments that one thread writes to a tap per second, each in the parts a guest has it in.
pub(super) fn super_segments_written_per_second() -> Result<f64> {
    let header = super_segment::record();
    let mut pool = vec![1_u8; POOL * super_segment::STRIDE];
    pool.iter_mut().step_by(7).for_each(|byte| *byte = 2);
    let parts = super_segment::PARTS;
    beside_a_neighbour(|| {
        let mut tap = open()?;
        per_second(&mut pool.chunks_exact(super_segment::STRIDE).cycle(), 32, |payload| {
            let payload = payload.get(..super_segment::PAYLOAD).unwrap_or_default();
            let mut slices = [IoSlice::new(&header); 1 + super_segment::PARTS];
            let (_, behind) = slices.split_at_mut(1);
            for (slice, part) in behind.iter_mut().zip(payload.chunks(super_segment::PART)) {
                *slice = IoSlice::new(part);
            }
            ensure!(payload.chunks(super_segment::PART).count() == parts, "parts without a slice");
            Ok(tap.write_parts(&slices)?)
        })
    })
}

/// Frames that one thread reads per second from a tap in which many wait.
pub(super) fn read_per_second() -> Result<f64> {
    let mut backlog = backlog::Backlog::open(NAME)?;
    let mut tap = Tap::open_with_long_header(NAME).context("cannot make a tap")?;
    backlog.connect()?;
    let mut record = [0; LONG_HEADER + 2048];
    while tap.read(&mut record)?.is_some() {}
    backlog.queue(backlog::FRAMES)?;
    let (mut frames, mut seconds) = (0_u64, 0.0);
    beside_a_neighbour(|| {
        let start = Instant::now();
        while tap.read(&mut record)?.is_some() {
            frames += 1;
        }
        seconds = start.elapsed().as_secs_f64();
        Ok(())
    })?;
    ensure!(frames >= backlog::FRAMES.into(), "{frames} frames of {} waited", backlog::FRAMES);
    Ok(super::datapath::count(frames) / seconds)
}

fn open() -> Result<Tap> {
    let tap = Tap::open_with_long_header(NAME).context("cannot make a tap")?;
    ip(&format!("link set {NAME} addrgenmode none up"))?;
    Ok(tap)
}

/// Does `one` after the other of `what` for a while, looking at the clock after every `stretch`.
fn per_second<T>(
    what: &mut impl Iterator<Item = T>,
    stretch: u32,
    mut one: impl FnMut(T) -> Result<()>,
) -> Result<f64> {
    let start = Instant::now();
    let mut done = 0_u32;
    while start.elapsed() < MEASURED {
        for item in what.by_ref().take(stretch as usize) {
            one(item)?;
        }
        done += stretch;
    }
    Ok(f64::from(done) / start.elapsed().as_secs_f64())
}

/// Runs `work` where ours runs, while the other core is as busy as ours has it.
fn beside_a_neighbour<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let folder = tempfile::Builder::new().prefix("portcullis-").tempdir()?;
    let mut endless = Command::new("sh");
    endless.args(["-c", "while :; do :; done"]);
    let neighbour = Process::start("neighbour", &mut endless, folder.path())?;
    let id = i32::try_from(neighbour.id()).ok().and_then(Pid::from_raw);
    sched_setaffinity(id, &only(NEIGHBOUR))?;
    on(CPU, work)
}

/// Runs `work` on one processor.
pub(super) fn on<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    sched_setaffinity(None, &only(cpu))?;
    let done = work();
    sched_setaffinity(None, &before)?;
    done
}

fn only(cpu: usize) -> CpuSet {
    let mut place = CpuSet::new();
    place.set(cpu);
    place
}
