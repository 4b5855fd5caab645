//! Saved conns: records, and the bytes they become.
//!
//! A snapshot is a header that can be read alone and chunks of records, each authenticated before it is decoded. Knows
//! versions, keys and lengths. Never knows a file, a socket, a clock, nor what an engine does with a record.
#![forbid(unsafe_code)]

mod answer;
mod checked;
mod chunk;
mod decoder;
mod encoder;
mod error;
mod header;
mod key;
mod negotiate;
mod payload;
mod record;
mod slot;
mod text;
mod v1;

pub use answer::{ANSWER_HEAD_LEN, Answer};
pub use checked::Checked;
pub use chunk::{CHUNK_HEAD_LEN, CHUNK_LEN_MAX, Chunk, ChunkHead};
pub use decoder::Decoder;
pub use encoder::{Encoder, Snapshot};
pub use error::SnapshotError;
pub use header::{HEADER_LEN, Header, Kind, Sealed};
pub use key::{KEY_LEN, Key};
pub use negotiate::{Versions, common_version};
pub use record::{Record, SavedEnd, SavedState, SavedTcp};
pub use slot::{RuleTag, SLOT_LEN, SavedSlot, SlotKey};
