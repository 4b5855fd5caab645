//! The header: a fixed layout that can be read, and believed, without the body.
//!
//! Whoever is asked to take a snapshot learns from it whose conns these are, under which rules they lived and how much
//! there is to come, before anything else is read. Knows its layout (docs/snapshot-format.md). Never knows a record.

use fw_model::{HandoverId, NicId};

use crate::SnapshotError;
use crate::chunk::{CHUNK_HEAD_LEN, CHUNK_LEN_MAX, CODE_LEN as CHUNK_CODE_LEN};
use crate::key::Key;
use crate::negotiate::Versions;
use crate::text::Input;
use crate::v1;

/// Bytes of a header, its code included.
pub const HEADER_LEN: usize = 200;

const MAGIC: [u8; 8] = *b"PCconns\n";
/// The version written here; the same is the oldest that can read it.
const VERSION: u16 = 1;
const LENGTH: u16 = 200;
const _: () = assert!(LENGTH as usize == HEADER_LEN);
const CODE_LEN: usize = 32;
const NIC_MAX: usize = 64;
const WHAT: &str = "header";

/// What a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// Every conn.
    Whole = 0,
    /// Every conn as it was a while ago, sent ahead while the VM ran.
    Bulk = 1,
    /// What changed since the bulk it names.
    Delta = 2,
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the body holds.
    pub kind: Kind,
    /// The NIC whose conns these are.
    pub nic: NicId,
    /// The generation of the rules they lived under.
    pub generation: u64,
    /// When it was written, in milliseconds since 1970 by the writer's clock. It is shown and never decides.
    pub created_ms: u64,
    /// The handover it belongs to.
    pub handover: HandoverId,
    /// Of a delta: the code of the bulk it builds on; else zeros.
    pub base: [u8; 32],
    /// Records in the body.
    pub records: u64,
    /// Chunks of the body.
    pub chunks: u32,
    /// Bytes of the body.
    pub body_len: u64,
}

/// A header as it stands in a snapshot, with its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// What it says.
    pub header: Header,
    /// The code: of no worth until [`Sealed::check`] has said yes.
    pub code: [u8; CODE_LEN],
    said: [u8; HEADER_LEN - CODE_LEN],
}

impl Header {
    /// The header's bytes, sealed.
    pub(crate) fn seal(&self, key: &Key) -> ([u8; HEADER_LEN], [u8; CODE_LEN]) {
        let said = self.bytes();
        let code = *key.seal_header(&said).as_bytes();
        let mut bytes = [0; HEADER_LEN];
        for (to, from) in bytes.iter_mut().zip(said.into_iter().chain(code)) {
            *to = from;
        }
        (bytes, code)
    }

    /// Whether a body as long as this, in as many chunks, can hold as many records.
    pub(crate) fn require_room(&self) -> Result<(), SnapshotError> {
        let around = (CHUNK_HEAD_LEN + CHUNK_CODE_LEN) as u64;
        let chunks = u64::from(self.chunks);
        let least = v1::length_min(self.records, 0).saturating_add(chunks * around);
        let most = chunks * (around + CHUNK_LEN_MAX as u64);
        if (least..=most).contains(&self.body_len) {
            Ok(())
        } else {
            Err(SnapshotError::Malformed("the header counts what its body has no room for"))
        }
    }

    fn bytes(&self) -> [u8; HEADER_LEN - CODE_LEN] {
        let nic = self.nic.as_str().as_bytes();
        let mut padded = [0; NIC_MAX];
        for (to, from) in padded.iter_mut().zip(nic) {
            *to = *from;
        }
        let short = [VERSION, VERSION, LENGTH, self.kind as u16];
        let long = [self.records, self.body_len, self.generation, self.created_ms];
        let mut out = [0; HEADER_LEN - CODE_LEN];
        let fields = MAGIC
            .into_iter()
            .chain(short.into_iter().flat_map(u16::to_le_bytes))
            .chain(self.chunks.to_le_bytes())
            .chain(u32::try_from(nic.len()).unwrap_or(0).to_le_bytes())
            .chain(long.into_iter().flat_map(u64::to_le_bytes))
            .chain(self.handover.0)
            .chain(self.base)
            .chain(padded);
        for (to, from) in out.iter_mut().zip(fields) {
            *to = from;
        }
        out
    }
}

impl Sealed {
    /// Reads a header. It says what somebody claims, until [`Sealed::check`].
    ///
    /// # Errors
    /// It is cut short, no header, of a version that cannot be read here, or a field holds what it cannot.
    pub fn read(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let whole: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(SnapshotError::CutShort(WHAT))?;
        let mut input = Input::new(whole, WHAT);
        let said = *Input::new(whole, WHAT)
            .slice(HEADER_LEN - CODE_LEN)?
            .first_chunk()
            .ok_or(SnapshotError::CutShort(WHAT))?;
        if input.take()? != MAGIC {
            return Err(SnapshotError::Magic);
        }
        let (written, readable_from, length) = (input.u16()?, input.u16()?, input.u16()?);
        let ours = Versions::OURS;
        if !ours.read(written, readable_from) {
            return Err(SnapshotError::Version { written, readable_from, ours });
        }
        if usize::from(length) != HEADER_LEN {
            return Err(SnapshotError::Malformed("the header has another length than its version's"));
        }
        let kind = match input.u16()? {
            0 => Kind::Whole,
            1 => Kind::Bulk,
            2 => Kind::Delta,
            _ => return Err(SnapshotError::Malformed("the header names no kind of snapshot")),
        };
        let chunks = input.u32()?;
        let nic_len = usize::try_from(input.u32()?).unwrap_or(usize::MAX);
        let (records, body_len) = (input.u64()?, input.u64()?);
        let (generation, created_ms) = (input.u64()?, input.u64()?);
        let (handover, base) = (HandoverId(input.take()?), input.take()?);
        let nic: [u8; NIC_MAX] = input.take()?;
        let (nic, padding) = nic.split_at_checked(nic_len).unwrap_or_default();
        let nic = std::str::from_utf8(nic).ok().and_then(|nic| nic.parse().ok());
        let nic = nic.filter(|_| padding.iter().all(|byte| *byte == 0));
        let nic = nic.ok_or(SnapshotError::Malformed("the header names no NIC"))?;
        if kind != Kind::Delta && base != [0; 32] {
            return Err(SnapshotError::Malformed("only a delta builds on another snapshot"));
        }
        let header = Header { kind, nic, generation, created_ms, handover, base, records, chunks, body_len };
        Ok(Self { header, code: input.take()?, said })
    }

    /// Whether somebody with the key wrote it.
    ///
    /// # Errors
    /// Nobody did.
    pub fn check(&self, key: &Key) -> Result<(), SnapshotError> {
        // The comparison takes as long whatever differs: it is blake3's.
        if key.seal_header(&self.said) == blake3::Hash::from_bytes(self.code) {
            Ok(())
        } else {
            Err(SnapshotError::NotAuthentic(WHAT))
        }
    }
}
