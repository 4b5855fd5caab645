//! A table's way out of one engine and into another, without the threads and descriptors it has in between.
//!
//! Knows the steps of SAVE and LOAD, in their order. Never knows a VMM.

use conn_snapshot::{Checked, Decoder, Key, Kind, SnapshotError};
use fw_engine::{Engine, Tick, Trust};
use fw_model::{Adoption, HandoverId};

use crate::handover::arriving::add;
use crate::handover::leaving::{PIECE, Pieces};
use crate::handover::{HandoverOptions, record};
use crate::worker::{Leaving, Places};

/// The table of `engine` as SAVE writes it.
#[must_use]
pub fn save(engine: &Engine, options: &HandoverOptions, now: Tick) -> Vec<u8> {
    let mut pieces = Pieces::default();
    let mut from = 0;
    while from < engine.slots() {
        let to = from.saturating_add(PIECE);
        pieces.add(&Leaving::of(engine, Places::Range(from..to), now));
        from = to;
    }
    pieces.seal(options, Kind::Whole, HandoverId::NONE, engine.generation(), [0; 32]).bytes
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
