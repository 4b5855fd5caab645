//! The floor under every tap uplink: how many frames per second one core can write to a tap at all.
//!
//! It may know the tun driver's ioctl. It must never judge or look at a frame.
#![expect(unsafe_code, reason = "an ioctl has no safe form")]

use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::ioctl_iow_nr;

use crate::host::ip;

const TUN: c_uint = 0x54;
ioctl_iow_nr!(TUNSETIFF, TUN, 202, c_int);

/// `struct ifreq` as the tun driver uses it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

// IFF_TAP, IFF_NO_PI and IFF_VNET_HDR of <linux/if_tun.h>.
const FLAGS: u16 = 0x0002 | 0x1000 | 0x4000;
/// The driver's own header length.
const HEADER: usize = 10;
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
    let mut tap = open().context("cannot make a tap")?;
    ip(&format!("link set {NAME} addrgenmode none up"))?;
    let record = [&[0; HEADER][..], &frame(size)].concat();
    let start = Instant::now();
    let mut frames = 0_u32;
    while start.elapsed() < MEASURED {
        for _ in 0..256 {
            if tap.write(&record)? != record.len() {
                bail!("the tap took a part of a frame");
            }
        }
        frames += 256;
    }
    Ok(f64::from(frames) / start.elapsed().as_secs_f64())
}

fn open() -> io::Result<File> {
    let tap = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = Request { name: [0; 16], flags: FLAGS, rest: [0; 22] };
    for (to, from) in request.name.iter_mut().zip(NAME.bytes()) {
        *to = from;
    }
    // SAFETY: the kernel reads and writes one `struct ifreq`, whose size and layout `Request` has.
    let answer = unsafe { ioctl_with_mut_ref(&tap, TUNSETIFF(), &mut request) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(tap) }
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
