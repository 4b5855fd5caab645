//! The file of a crash copy: a header, and for every place of the table two halves of a slot.
//!
//! It is believed only if it is this NIC's, of this boot (its moments are the boot's clock) and as large as it says. Knows
//! files and mappings. Never knows what a slot holds beyond its sequence.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use conn_snapshot::{Key, Record, RuleTag, SLOT_LEN, SavedSlot, SlotKey};
use fw_engine::Tick;
use fw_model::NicId;
use rustix::fs::{FallocateFlags, fallocate};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

const MAGIC: &[u8; 16] = b"PCcrashcopy v1\n\0";
/// The header has a page of its own.
const HEADER: usize = 4096;
const HALVES: usize = 2;

/// Why there is no crash copy.
#[derive(Debug, thiserror::Error)]
pub enum CrashCopyError {
    /// The folder cannot be used.
    #[error("{0}: others than its owner may write here; chmod go-w it")]
    Exposed(PathBuf),
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
}

impl Found {
    /// Reads the file of before, if there is one that can be believed. What cannot is told and forgotten.
    pub(super) fn read(folder: &Path, nic: &NicId, key: Option<&Key>, room: u32, now: Tick) -> Self {
        let path = path_of(folder, nic);
        let nothing = Self { key: SlotKey::new(None, &[0; 32]), conns: Vec::new() };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return nothing,
            Err(error) => {
                log::error!("{}: {error}: the conn table begins empty", path.display());
                return nothing;
            }
        };
        match Self::parse(&bytes, nic, key, room, now) {
            Ok(found) => found,
            Err(why) => {
                log::error!("{}: {why}: it is not believed, and the conn table begins empty", path.display());
                nothing
            }
        }
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
        let mut found = Self { key: slot_key, conns: Vec::new() };
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
        let slots = u64::from(room) * (HALVES * SLOT_LEN) as u64;
        let need = HEADER as u64 + slots;
        let path = new_path_of(folder, nic);
        let failed = |source| CrashCopyError::Io { path: path.clone(), need, source };
        fs::create_dir_all(folder).map_err(failed)?;
        if fs::metadata(folder).map_err(failed)?.mode() & 0o022 != 0 {
            return Err(CrashCopyError::Exposed(folder.to_owned()));
        }
        let _ = fs::remove_file(&path);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
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
