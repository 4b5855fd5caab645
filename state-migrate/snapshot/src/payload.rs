//! A chunk's payload: its dictionaries, its records, the flows that are gone.
//!
//! Read once to be checked and once more to be taken, by the same code, so that what was checked is what is taken. Knows
//! the order of things in a payload. Never knows a code, a header or what becomes of a record.

use fw_model::{Addr, FlowKey, MacAddr, RuleId};

use crate::SnapshotError;
use crate::chunk::{Chunk, ChunkHead};
use crate::record::Record;
use crate::text::Input;
use crate::v1::{self, Dictionaries};

/// Dictionaries this short are searched entry by entry.
const SHORT: usize = 16;

/// Who is told what a payload holds, in its order.
pub(crate) trait Taker {
    fn rule(&mut self, rule: RuleId);
    fn record(&mut self, record: &Record);
    fn gone(&mut self, flow: FlowKey);
}

impl Taker for Chunk {
    fn rule(&mut self, rule: RuleId) {
        self.rules.push(rule);
    }

    fn record(&mut self, record: &Record) {
        self.records.push(*record);
    }

    fn gone(&mut self, flow: FlowKey) {
        self.gone.push(flow);
    }
}

/// Wants to know only whether a payload can be read.
pub(crate) struct Nobody;

impl Taker for Nobody {
    fn rule(&mut self, _: RuleId) {}

    fn record(&mut self, _: &Record) {}

    fn gone(&mut self, _: FlowKey) {}
}

/// Reads payloads, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    locals: Vec<Addr>,
    macs: Vec<MacAddr>,
}

impl Reader {
    /// Reads a payload and tells `taker` what is in it, up to what is wrong with it.
    pub(crate) fn read(
        &mut self,
        head: ChunkHead,
        payload: &[u8],
        taker: &mut impl Taker,
    ) -> Result<(), SnapshotError> {
        let mut input = Input::new(payload, "chunk");
        entries(&mut input, &mut self.locals, |input| match input.u8()? {
            0 => v1::addr(input, true),
            1 => v1::addr(input, false),
            _ => Err(SnapshotError::Malformed("an address is of no family")),
        })?;
        entries(&mut input, &mut self.macs, |input| input.take().map(MacAddr))?;
        let mut names: Vec<&str> = Vec::new();
        entries(&mut input, &mut names, |input| {
            let length = input.u8()?;
            std::str::from_utf8(input.slice(length.into())?).map_err(|_| NO_NAME)
        })?;
        for name in &names {
            taker.rule(name.parse().map_err(|_| NO_NAME)?);
        }
        let known = Dictionaries { locals: &self.locals, macs: &self.macs, rules: names.len() };
        for _ in 0..head.records {
            taker.record(&v1::record(&mut input, &known)?);
        }
        for _ in 0..head.gone {
            taker.gone(v1::gone(&mut input, &known)?);
        }
        if input.is_empty() { Ok(()) } else { Err(SnapshotError::Malformed("a chunk has bytes left over")) }
    }
}

const NO_NAME: SnapshotError = SnapshotError::Malformed("a rule's name is none");

/// Reads a dictionary into `list`: no entry twice.
fn entries<'p, T: Copy + Ord>(
    input: &mut Input<'p>,
    list: &mut Vec<T>,
    mut read: impl FnMut(&mut Input<'p>) -> Result<T, SnapshotError>,
) -> Result<(), SnapshotError> {
    list.clear();
    // An entry has more bytes than none: no count makes room for what is not there.
    for _ in 0..input.number()? {
        list.push(read(input)?);
    }
    if has_twins(list) {
        return Err(SnapshotError::Malformed("a dictionary has an entry twice"));
    }
    Ok(())
}

fn has_twins<T: Copy + Ord>(list: &[T]) -> bool {
    if list.len() <= SHORT {
        return (1..).zip(list).any(|(next, entry)| list.iter().skip(next).any(|other| other == entry));
    }
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).any(|pair| matches!(pair, [a, b] if a == b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_found_in_dictionaries_of_every_length() {
        for length in 0..40_u32 {
            let list: Vec<u32> = (0..length).rev().collect();
            assert!(!has_twins(&list), "{length}");
            for (first, second) in
                (0..length).flat_map(|second| (0..second).map(move |first| (first, second)))
            {
                let mut list = list.clone();
                list[second as usize] = list[first as usize];
                assert!(has_twins(&list), "{first} and {second} of {length}");
            }
        }
    }
}
