//! A batch is read before any of it is judged: frame by frame its headers, what leaves, and where its conn is.
//!
//! Orders headers, vnet and a look at the conn table. Changes nothing but its own memory. Never knows the rules.

use std::hint::black_box;

use fw_model::{FlowKey, Reason};

use crate::conntrack::{Likely, Table};
use crate::frame::Frame;
use crate::headers::{self, Headers, Stop};
use crate::verdict::Patch;
use crate::vnet::{self, Link, Settled, VnetHeader};

/// Frames whose table lines are loaded together before the first of them is judged, so that memory is waited for once
/// (a million conns cost 393 ns a frame before, 153 ns since).
pub(crate) const BATCH: usize = 32;

/// The frames of a batch as they were read. One for each engine, used again for every batch.
#[derive(Debug)]
pub(crate) struct Readings {
    /// By place in the batch, of frames that could be read. Written in place.
    headers: Vec<Headers>,
    list: Vec<Reading>,
}

/// What reading a frame gave.
#[derive(Debug)]
pub(super) enum Reading {
    Refused(Reason),
    NeedWhole,
    Read(Read),
}

/// How a frame that could be read leaves, and its flow if it has one.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) vnet: VnetHeader,
    pub(super) patch: Option<Patch>,
    pub(super) flow: Option<Flow>,
}

/// A frame's flow and where in the table its conn may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) key: FlowKey,
    pub(super) hash: u64,
    pub(super) likely: Option<Likely>,
}

impl Flow {
    pub(super) fn new(key: FlowKey, table: &Table) -> Self {
        Self { key, hash: table.hash(&key), likely: None }
    }
}

impl Readings {
    pub(crate) fn new() -> Self {
        Self { headers: vec![Headers::BLANK; BATCH], list: Vec::with_capacity(BATCH) }
    }

    /// Reads [`BATCH`] frames at most.
    pub(super) fn read(&mut self, batch: &[Frame<'_>], link: &Link, table: &Table) {
        self.list.clear();
        let places = batch.iter().zip(&mut self.headers);
        self.list.extend(places.map(|(frame, headers)| read(frame, headers, link, table)));
        self.warm(table);
    }

    /// Loads first the index lines of all flows, then their conns. Each loop is so short that the processor has all
    /// its loads under way at once; beside the reading they would be waited for one by one.
    fn warm(&mut self, table: &Table) {
        for flow in self.flows() {
            black_box(table.warm(flow.hash));
        }
        for flow in self.flows() {
            flow.likely = table.likely(flow.hash);
        }
    }

    fn flows(&mut self) -> impl Iterator<Item = &mut Flow> {
        self.list.iter_mut().filter_map(|reading| match reading {
            Reading::Read(read) => read.flow.as_mut(),
            Reading::Refused(_) | Reading::NeedWhole => None,
        })
    }

    /// The frames in order. The headers mean something only where the frame was read.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Reading, &Headers)> {
        self.list.iter().zip(&self.headers)
    }
}

fn read(frame: &Frame<'_>, headers: &mut Headers, link: &Link, table: &Table) -> Reading {
    match headers::parse_into(frame.bytes, frame.length, headers) {
        Ok(()) => {}
        Err(Stop::NeedWhole) => return Reading::NeedWhole,
        Err(Stop::Malformed(malformed)) => return Reading::Refused(malformed.reason()),
    }
    match vnet::settle(frame, headers, link) {
        Ok(Settled::Leaves { vnet, patch }) => {
            let flow = headers.flow(frame.direction).map(|key| Flow::new(key, table));
            Reading::Read(Read { vnet, patch, flow })
        }
        Ok(Settled::NeedWhole) => Reading::NeedWhole,
        Err(reason) => Reading::Refused(reason),
    }
}
