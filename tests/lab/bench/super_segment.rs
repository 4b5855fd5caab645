//! TCP super-segments of 64 KiB from a guest played by hand, and how they lie in memory.
//!
//! It may know a guest's rings and one conn's numbers. It must never know a rule.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use vm_memory::{Bytes, GuestAddress};

use super::generator;
use crate::guest::{Descriptor, Guest, INDIRECT, Layout, NEXT, SIZE, TX, Vmm};
use crate::tap::{LONG_HEADER, Tap};
use crate::wire::{self, End, Segment};

/// Bytes of a part: a page, as a guest's page cache has them.
pub(super) const PART: usize = 4096;
/// Parts of a payload.
pub(super) const PARTS: usize = 16;
/// 45 segments of the usual MTU: what Linux makes at most.
pub(super) const PAYLOAD: usize = 45 * 1448;
/// From one payload of the pool to the next.
pub(super) const STRIDE: usize = PART * PARTS;
const HEADERS: usize = 14 + 20 + 20;

/// Super-segments of the pool: 64 MiB.
const POOL: u64 = 1024;
/// Where headers, indirect tables and payloads start in guest memory, and from one to the next.
const RECORDS: (u64, u64) = (0x20_0000, 256);
const TABLES: (u64, u64) = (0x30_0000, 512);
const PAYLOADS: u64 = 0x100_0000;
const MEMORY: usize = 96 << 20;

const GUEST_START: u32 = 1_000;
const PEER_START: u32 = 5_000;
const PEER_PORT: u16 = 80;

/// `NEEDS_CSUM`, TCP over IPv4 in segments of 1448 bytes, behind 54 bytes of headers.
const CLAIM: [u8; 12] = [1, 1, 54, 0, 0xa8, 0x05, 34, 0, 16, 0, 0, 0];

fn peer() -> End {
    generator::sink(0).at(PEER_PORT)
}

/// Virtio-net header and headers of every super-segment: the same bytes again and again, which a window allows.
pub(super) fn record() -> Vec<u8> {
    let data = Segment { payload: PAYLOAD, ..Segment::ack(GUEST_START + 1, PEER_START + 1) };
    let frame = wire::tcp(&generator::source(), &peer(), &data);
    let mut record = [&CLAIM[..], frame.get(..HEADERS).unwrap_or_default()].concat();
    // A pseudo-header sum is whoever completes the checksum's to know; ours is overwritten, the kernel's is never looked at.
    record.truncate(CLAIM.len() + HEADERS);
    record
}

/// A guest with a pool of super-segments and one living conn to send them on.
pub(super) struct Sender {
    guest: Guest,
    posted: u64,
}

impl Sender {
    /// Boots a guest on `socket` and opens its conn with `far`, the other end of its wire.
    pub(super) fn boot(socket: &std::path::Path, far: &mut Tap) -> Result<Self> {
        let guest = Guest::boot_large(socket, Vmm::CloudHypervisor, MEMORY).map_err(said)?;
        let mut sender = Self { guest, posted: 0 };
        sender.open(far).map_err(said).context("the conn does not open")?;
        sender.lay_out().map_err(said)?;
        Ok(sender)
    }

    fn open(&mut self, far: &mut Tap) -> Result<(), Box<dyn std::error::Error>> {
        let (here, there) = (generator::source(), peer());
        let guest = &mut self.guest;
        guest.post_buffers(16, 2048)?;
        guest.send([0; 12], &wire::tcp(&here, &there, &Segment::syn(GUEST_START)), Layout::Linear)?;
        let answer = Segment { acknowledgement: Some(GUEST_START + 1), ..Segment::syn(PEER_START) };
        let answer = wire::tcp(&there, &here, &Segment { window: u16::MAX, ..answer });
        far.write(&[&[0; LONG_HEADER][..], &answer].concat())?;
        guest.receive()?;
        let ack = Segment::ack(GUEST_START + 1, PEER_START + 1);
        guest.send([0; 12], &wire::tcp(&here, &there, &ack), Layout::Linear)?;
        Ok(())
    }

    /// Writes headers, payloads and indirect tables of the whole pool.
    fn lay_out(&self) -> Result<(), Box<dyn std::error::Error>> {
        let record = record();
        let payload: Vec<u8> = (0..PAYLOAD).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
        let memory = &self.guest.memory;
        for number in 0..POOL {
            let at = |(start, stride)| start + stride * number;
            memory.write_slice(&record, GuestAddress(at(RECORDS)))?;
            memory.write_slice(&payload, GuestAddress(at((PAYLOADS, STRIDE as u64))))?;
            let mut parts = vec![(at(RECORDS), record.len())];
            let payloads = payload.chunks(PART).scan(at((PAYLOADS, STRIDE as u64)), |address, part| {
                let here = *address;
                *address += part.len() as u64;
                Some((here, part.len()))
            });
            parts.extend(payloads);
            for (index, (address, length)) in (0_u16..).zip(&parts) {
                let last = usize::from(index) + 1 == parts.len();
                let flags = if last { 0 } else { NEXT };
                let descriptor =
                    Descriptor { address: *address, length: u32::try_from(*length)?, flags, next: index + 1 };
                descriptor.write(memory, at(TABLES) + 16 * u64::from(index))?;
            }
        }
        Ok(())
    }

    /// Keeps the ring full for `time`; super-segments the device gave back, per second.
    pub(super) fn send_for(&mut self, time: Duration) -> Result<f64> {
        let start = Instant::now();
        let first = self.given_back();
        let mut done = 0_u32;
        let mut last = first;
        while start.elapsed() < time {
            let back = self.given_back();
            done += u32::from(back.wrapping_sub(last));
            last = back;
            self.fill(back).map_err(said)?;
        }
        ensure!(done > 0, "the device gave nothing back");
        Ok(f64::from(done) / start.elapsed().as_secs_f64())
    }

    /// The used index: the device completes in order.
    fn given_back(&self) -> u16 {
        self.guest.ring(TX).used_index(&self.guest.memory)
    }

    fn fill(&mut self, back: u16) -> Result<(), Box<dyn std::error::Error>> {
        loop {
            let ahead = self.guest.ring(TX).avail_index(&self.guest.memory);
            if ahead.wrapping_sub(back) >= SIZE {
                return Ok(());
            }
            let head = ahead % SIZE;
            let address = TABLES.0 + TABLES.1 * (self.posted % POOL);
            let length = u32::try_from(16 * (1 + PARTS))?;
            self.guest.describe(head, Descriptor { address, length, flags: INDIRECT, next: 0 })?;
            self.guest.post(TX, head)?;
            self.posted += 1;
        }
    }
}

fn said(error: Box<dyn std::error::Error>) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}
