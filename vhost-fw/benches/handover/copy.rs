//! What a crash copy costs: opening one after a crash, and following frames.
//!
//! The copy lies where temporary files do; best that is a tmpfs, as in the field. Knows engines and their copies. It must
//! never know a device.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use fw_engine::{Answers, Engine, Frame, PreparedRules, Tick, VnetHeader};
use fw_model::{Direction, NicId, VerdictName};
use vhost_fw::crash_copy::CrashCopy;
use vhost_fw::measure;

use crate::rules::{GUEST, GUEST_MAC, SETS, port_of_rule, remote};
use crate::timing::{self, Plan, nanoseconds};
use crate::{MILLISECOND, NOW, conns};

const BATCH: usize = 32;
/// Flows, and frames of a round: a millisecond of eight million frames a second.
const FLOWS: u32 = 1_000;
const FRAMES: u32 = 8_192;

/// Opens the copy that a killed process left of `count` conns, against copying its file.
pub(crate) fn open(name: &str, count: u32) -> Result<String, String> {
    let set = conns::rules()?;
    let names: Vec<_> = set.rules.iter().map(|rule| rule.id.clone()).collect();
    let nic = set.nic.id.clone();
    let rules = Arc::new(PreparedRules::new(set).map_err(|error| error.to_string())?);
    let folder = folder()?;
    let room = count + count / 10 + 1_000;
    let mut engine = conns::empty(&rules, room, *b"the first's key.");
    conns::fill(&mut engine, &names, count, NOW)?;
    drop(copy(folder.path(), &nic, room, &mut engine)?);
    let file = folder.path().join(format!("{nic}.conns"));
    let beside = folder.path().join("beside");
    let times = timing::rounds(&Plan { counted: 15, at_most: 120, control: 500_000 }, |_| {
        let mut next = conns::empty(&rules, room, *b"the next one's k");
        let mut opened = Err(String::new());
        let ours = nanoseconds(|| opened = copy(folder.path(), &nic, room, &mut next));
        drop(opened?);
        if next.living() != count {
            return Err(format!("{count} conns were left, {} were found", next.living()));
        }
        let mut copied = Ok(0);
        let floor = nanoseconds(|| copied = std::fs::copy(&file, &beside));
        copied.map_err(|error| error.to_string())?;
        Ok((ours, floor))
    })?;
    Ok(times.as_json(name, "the same file, copied", "ms", MILLISECOND))
}

/// Frames of living conns with a copy that follows, against the same without.
pub(crate) fn follow(name: &str) -> Result<String, String> {
    let set = conns::rules()?;
    let nic = set.nic.id.clone();
    let rules = Arc::new(PreparedRules::new(set).map_err(|error| error.to_string())?);
    let folder = folder()?;
    let room = 65_536;
    let mut with = conns::empty(&rules, room, *b"the copied one's");
    let mut without = conns::empty(&rules, room, *b"the other one's.");
    let mut copy = copy(folder.path(), &nic, room, &mut with)?;
    let flows: Vec<Vec<u8>> = (0..FLOWS).map(frame).collect();
    let mut answers = Answers::with_capacity(BATCH, 1 << 16);
    let mut now = NOW;
    let mut judge = |engine: &mut Engine, copy: Option<&mut CrashCopy>, now: Tick| {
        let (mut refused, mut copy) = (0_usize, copy);
        let mut frames = flows.iter().cycle().take(FRAMES as usize).map(|bytes| of(bytes));
        loop {
            let batch: Vec<Frame<'_>> = frames.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return refused;
            }
            engine.judge(&batch, now, &mut answers);
            refused += answers.drain().filter(|answer| answer.name() != Some(VerdictName::Pass)).count();
            if let Some(copy) = &mut copy {
                measure::follow(copy, engine, now);
            }
        }
    };
    let times = timing::rounds(&Plan { counted: 401, at_most: 10_000, control: 50_000 }, |_| {
        now = now.after_ms(1);
        let mut refused = 0;
        let ours = nanoseconds(|| refused += judge(&mut with, Some(&mut copy), now));
        let floor = nanoseconds(|| refused += black_box(judge(&mut without, None, now)));
        if refused > 0 { Err(format!("{refused} frames were refused")) } else { Ok((ours, floor)) }
    })?;
    Ok(times.as_json(name, "the same without --state-dir", "ns/frame", f64::from(FRAMES)))
}

fn folder() -> Result<tempfile::TempDir, String> {
    // A tempdir is its owner's alone only if it is told so.
    use std::os::unix::fs::PermissionsExt;
    let private = std::fs::Permissions::from_mode(0o700);
    let shm = Path::new("/dev/shm");
    let place = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().permissions(private).tempdir_in(place).map_err(|error| error.to_string())
}

fn copy(folder: &Path, nic: &NicId, room: u32, engine: &mut Engine) -> Result<CrashCopy, String> {
    let opened = CrashCopy::open(folder, nic, None, room, engine, NOW);
    opened.map(|(copy, _)| copy).map_err(|error| error.to_string())
}

fn of(bytes: &[u8]) -> Frame<'_> {
    let vnet = VnetHeader { flags: 1, csum_start: 34, csum_offset: 6, ..VnetHeader::NONE };
    Frame { direction: Direction::Out, bytes, length: bytes.len(), vnet }
}

/// A datagram of the guest's whose checksum is left to be completed.
fn frame(flow: u32) -> Vec<u8> {
    let mut frame = vec![0x52, 0x54, 0, 0, 0, 2];
    frame.extend(GUEST_MAC);
    frame.extend([8, 0]);
    let mut header = vec![0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0];
    header.extend(GUEST);
    header.extend(remote(flow));
    let sum: u32 = header.as_chunks::<2>().0.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0);
    header.splice(10..12, checksum.to_be_bytes());
    frame.extend(header);
    frame.extend(u16::try_from(10_000 + flow).unwrap_or(0).to_be_bytes());
    frame.extend(port_of_rule(flow % SETS).to_be_bytes());
    frame.extend([0, 26, 0, 0]);
    frame.resize(60, 0x5a);
    frame
}
