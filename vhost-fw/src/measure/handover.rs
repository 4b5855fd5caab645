//! A table's way out of one engine and into another, without the threads and descriptors it has in between.
//!
//! Knows the steps of SAVE and LOAD, in their order. Never knows a VMM.

use conn_snapshot::{Checked, Decoder, Encoder, Header, Key, Kind, SnapshotError};
use fw_engine::{Engine, Tick, Trust};
use fw_model::{Adoption, HandoverId, NicId};

use crate::handover::{PIECE, add, encode, record};
use crate::worker::Leaving;

/// The table of `engine` as SAVE writes it.
#[must_use]
pub fn save(engine: &Engine, nic: &NicId, key: &Key, now: Tick) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let mut names = record::Names::default();
    let mut from = 0;
    while from < engine.slots() {
        let piece = Leaving::of(engine, from..from.saturating_add(PIECE), now);
        encode(&piece, &mut names, &mut encoder);
        from = from.saturating_add(PIECE);
    }
    let header = Header {
        kind: Kind::Whole,
        nic: nic.clone(),
        generation: engine.generation().unwrap_or(0),
        created_ms: 0,
        handover: HandoverId::NONE,
        base: [0; 32],
        records: 0,
        chunks: 0,
        body_len: 0,
    };
    encoder.finish(header, names.list(), key).bytes
}

/// A table's bytes, checked as LOAD checks them.
///
/// # Errors
/// They are no snapshot of at most `conns` conns by this key.
pub fn check<'b>(bytes: &'b [u8], key: &Key, conns: u32) -> Result<Checked<'b>, SnapshotError> {
    Decoder::check(bytes, key, u64::from(conns))
}

/// What was checked, taken in as LOAD takes it.
pub fn adopt(checked: &Checked<'_>, engine: &mut Engine, now: Tick) -> Adoption {
    let mut adoption = Adoption::default();
    checked.visit(|chunk| {
        let arrivals: Vec<_> = chunk.records.iter().map(record::arrival).collect();
        add(&mut adoption, &engine.adopt(&arrivals, &chunk.rules, Trust::Exact, now));
    });
    adoption
}
