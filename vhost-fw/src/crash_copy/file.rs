//! The file of a crash copy: a header, and for every place of the table two halves of a slot.
//!
//! It is believed only if it is this NIC's, of this boot (its moments are the boot's clock) and as large as it says. Knows
//! files and mappings. Never knows what a slot holds beyond its sequence.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use conn_snapshot::{Key, Record, RuleTag, SLOT_LEN, SavedSlot, SlotKey};
use fw_engine::Tick;
use fw_model::{HandoverId, NicId};
use rustix::fs::{FallocateFlags, FlockOperation, OFlags, fallocate, flock};
use rustix::io::Errno;
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

use super::taken;

const MAGIC: &[u8; 16] = b"PCcrashcopy v1\n\0";
/// The header has a page of its own.
const HEADER: usize = 4096;
const HALVES: usize = 2;
/// How often a file that another process has is tried, and how long after each time.
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// Why there is no crash copy.
#[derive(Debug, thiserror::Error)]
pub enum CrashCopyError {
    /// Others than the owner may read or write it.
    #[error("{0}: others than its owner may read or write it; chmod go= it, and see to whose it is")]
    Exposed(PathBuf),
    /// Another process has it.
    #[error("{0}: another vhost-fw of this NIC runs and writes its conns here; stop that one first")]
    InUse(PathBuf),
    /// The system refused.
    #[error("{path}: {source}; --state-dir needs {need} bytes here, best on a tmpfs")]
    Io {
        /// The file.
        path: PathBuf,
        /// Bytes of the whole file.
        need: u64,
        /// Why.
        source: io::Error,
    },
}

/// What a file of before holds.
pub(super) struct Found {
    pub(super) key: SlotKey,
    pub(super) conns: Vec<(Record, RuleTag)>,
    /// Handovers that were taken, oldest first.
    pub(super) taken: Vec<HandoverId>,
    pub(super) origin: Origin,
}

/// What was found.
pub(super) enum Origin {
    /// No file.
    None,
    /// One that is believed.
    Believed,
    /// One that is not, for this cause.
    Refused(String),
}

impl Found {
    /// Reads the file of before, if there is one that can be believed. What cannot is told and forgotten.
    ///
    /// # Errors
    /// Others may read or write it or its folder, or another process still writes it.
    pub(super) fn read(
        folder: &Path,
        nic: &NicId,
        key: Option<&Key>,
        room: u32,
        now: Tick,
    ) -> Result<Self, CrashCopyError> {
        let path = path_of(folder, nic);
        let nothing =
            |origin| Self { key: SlotKey::new(None, &[0; 32]), conns: Vec::new(), taken: Vec::new(), origin };
        let refused = |why: String| {
            log::error!("{}: {why}: it is not believed, and the conn table begins empty", path.display());
            Ok(nothing(Origin::Refused(why)))
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(nothing(Origin::None)),
            Err(error) => return refused(error.to_string()),
        };
        require_private(&file, &path)?;
        lock(&file, &path)?;
        // No more is read than a file of this table has.
        let need = need(room);
        match file.metadata().map(|metadata| metadata.len()) {
            Ok(length) if length == need => {}
            Ok(length) => {
                return refused(format!("it has {length} bytes, and one of {room} conns has {need}"));
            }
            Err(error) => return refused(error.to_string()),
        }
        let mut bytes = Vec::new();
        if let Err(error) = (&file).take(need).read_to_end(&mut bytes) {
            return refused(error.to_string());
        }
        Self::parse(&bytes, nic, key, room, now).or_else(refused)
    }

    /// The handovers that the process now serving has taken, as its file has them.
    pub(super) fn taken_by_another(
        folder: &Path,
        nic: &NicId,
        key: Option<&Key>,
        room: u32,
    ) -> Vec<HandoverId> {
        let mut page = Vec::new();
        let read =
            File::open(path_of(folder, nic)).and_then(|file| file.take(HEADER as u64).read_to_end(&mut page));
        // Its conns come another way: without any, the page is a whole file.
        let found =
            read.map_err(|error| error.to_string()).and_then(|_| Self::parse(&page, nic, key, room, Tick(0)));
        found.map(|found| found.taken).unwrap_or_default()
    }

    fn parse(bytes: &[u8], nic: &NicId, key: Option<&Key>, room: u32, now: Tick) -> Result<Self, String> {
        let (header, slots) = bytes.split_at_checked(HEADER).ok_or("it is cut short")?;
        let (nonce, expected) = header
            .get(..32)
            .and_then(|nonce| <[u8; 32]>::try_from(nonce).ok())
            .zip(header.get(32..))
            .ok_or("it is cut short")?;
        let slot_key = SlotKey::new(key, &nonce);
        let ours = said(nic, room, &slot_key).map_err(|error| error.to_string())?;
        if expected.get(..ours.len()) != Some(&ours) {
            return Err("another NIC's, of another boot, another size or another key".to_owned());
        }
        let taken = taken::read(header, &slot_key);
        let mut found = Self { key: slot_key, conns: Vec::new(), taken, origin: Origin::Believed };
        let mut torn = 0_u32;
        for (place, slot) in (0_u32..).zip(slots.chunks_exact(HALVES * SLOT_LEN)) {
            let mut newest: Option<SavedSlot> = None;
            for half in slot.chunks_exact(SLOT_LEN).filter_map(|half| half.first_chunk::<SLOT_LEN>()) {
                if half.iter().all(|byte| *byte == 0) {
                    continue;
                }
                match SavedSlot::decode(half, &slot_key, place, now.0) {
                    Some(whole) => {
                        let newer = newest.is_none_or(|newest| whole.sequence > newest.sequence);
                        newest = if newer { Some(whole) } else { newest };
                    }
                    None => torn += 1,
                }
            }
            found.conns.extend(newest.and_then(|slot| slot.conn).filter(|(conn, _)| conn.remaining_ms > 0));
        }
        if torn > 0 {
            log::warn!("{torn} halves of the crash copy were torn; the halves beside them count");
        }
        Ok(found)
    }
}

/// The file being written.
pub(super) struct SlotFile {
    mapping: MmapRegion<()>,
}

/// A new file that waits beside its place.
pub(crate) struct NewFile {
    new: PathBuf,
    path: PathBuf,
    need: u64,
}

impl NewFile {
    /// Puts it in the place of the one of before.
    pub(crate) fn put_in_place(self) -> Result<(), CrashCopyError> {
        let Self { new, path, need } = self;
        fs::rename(new, &path).map_err(|source| CrashCopyError::Io { path, need, source })
    }
}

impl SlotFile {
    /// Makes an empty file beside the one of before, all of its room taken now: no later write can fail.
    pub(super) fn make(
        folder: &Path,
        nic: &NicId,
        key: Option<&Key>,
        room: u32,
    ) -> Result<(Self, SlotKey, NewFile), CrashCopyError> {
        let need = need(room);
        let path = new_path_of(folder, nic);
        let failed = |source| CrashCopyError::Io { path: path.clone(), need, source };
        if let Some(parent) = folder.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            Ok(()) | Err(_) => {}
        }
        let flags = OFlags::DIRECTORY.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(folder).map_err(failed)?;
        require_private(&opened, folder)?;
        // One that was left half made; a living process's is in use.
        if let Ok(half_made) = File::open(&path) {
            lock(&half_made, &path)?;
            let _ = fs::remove_file(&path);
        }
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        lock(&file, &path)?;
        let mut nonce = [0; 32];
        File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut nonce)).map_err(failed)?;
        let slot_key = SlotKey::new(key, &nonce);
        let mut header = nonce.to_vec();
        header.extend(said(nic, room, &slot_key).map_err(failed)?);
        file.write_all(&header).map_err(failed)?;
        fallocate(&file, FallocateFlags::empty(), 0, need).map_err(|error| failed(error.into()))?;
        let length = usize::try_from(need).map_err(|_| failed(io::ErrorKind::FileTooLarge.into()))?;
        let mapping = MmapRegion::from_file(FileOffset::new(file, 0), length);
        let mapping = mapping.map_err(|error| failed(io::Error::other(error.to_string())))?;
        let new_file = NewFile { new: path, path: path_of(folder, nic), need };
        Ok((Self { mapping }, slot_key, new_file))
    }

    /// Writes down that a handover was taken, as number `number`.
    pub(super) fn remember(&self, number: u64, id: HandoverId, key: &SlotKey) {
        let place = usize::try_from(number % taken::TAKEN_MAX as u64).unwrap_or(0);
        if let Ok(to) = self.mapping.get_slice(taken::RING + place * taken::ENTRY, taken::ENTRY) {
            let _ = to.write_slice(&taken::bytes(number, id, key), 0);
        }
    }

    /// Writes the older half of a slot.
    pub(super) fn write(&self, slot: u32, sequence: u64, half: &[u8; SLOT_LEN]) {
        let place = usize::try_from(slot).unwrap_or(usize::MAX);
        let which = usize::from(sequence % 2 == 1);
        let offset = place.saturating_mul(HALVES * SLOT_LEN).saturating_add(HEADER + which * SLOT_LEN);
        // Within the file by construction: the table has no more places than the file was made for.
        if let Ok(to) = self.mapping.get_slice(offset, SLOT_LEN) {
            let _ = to.write_slice(half, 0);
        }
    }
}

/// Bytes of the file of a table with this much room.
fn need(room: u32) -> u64 {
    HEADER as u64 + u64::from(room) * (HALVES * SLOT_LEN) as u64
}

/// Refuses what others than its owner may read or write, or what is neither ours nor the administrator's.
fn require_private(file: &File, path: &Path) -> Result<(), CrashCopyError> {
    let own = rustix::process::geteuid().as_raw();
    let private = file.metadata().is_ok_and(|metadata| {
        metadata.mode() & 0o066 == 0 && (own == 0 || [0, own].contains(&metadata.uid()))
    });
    if private { Ok(()) } else { Err(CrashCopyError::Exposed(path.to_owned())) }
}

/// Makes the file this process's alone. A process that was killed a moment ago may have it for a moment more.
fn lock(file: &File, path: &Path) -> Result<(), CrashCopyError> {
    for _ in 0..LOCK_TRIES {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) => thread::sleep(LOCK_PAUSE),
            Err(error) => {
                return Err(CrashCopyError::Io { path: path.to_owned(), need: 0, source: error.into() });
            }
        }
    }
    Err(CrashCopyError::InUse(path.to_owned()))
}

/// What a file says of itself behind its nonce, sealed so that it cannot be another's.
fn said(nic: &NicId, room: u32, key: &SlotKey) -> io::Result<Vec<u8>> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let text = format!("{room} {nic} {}", boot.trim());
    let RuleTag(seal) = key.tag(&text);
    let mut said = MAGIC.to_vec();
    said.extend_from_slice(&seal.to_le_bytes());
    said.extend_from_slice(text.as_bytes());
    Ok(said)
}

fn path_of(folder: &Path, nic: &NicId) -> PathBuf {
    folder.join(format!("{nic}.conns"))
}

fn new_path_of(folder: &Path, nic: &NicId) -> PathBuf {
    folder.join(format!("{nic}.conns.new"))
}
