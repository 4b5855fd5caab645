//! A batch is read before any of it is judged: frame by frame its headers, what leaves, and where its conn is.
//!
//! Orders headers, vnet and a look at the conn table. Changes nothing but its own memory. Never knows the rules.

use std::hint::black_box;

use fw_model::{Direction, Reason};

use crate::conntrack::{Key, Likely, Table};
use crate::frame::Frame;
use crate::headers::{self, Headers, Stop};
use crate::verdict::Patch;
use crate::vnet::{self, Link, Settled, VnetHeader};

/// Frames whose table lines are loaded together before the first of them is judged, so that memory is waited for once
/// (a million conns cost 393 ns a frame before, 153 ns since).
pub(crate) const BATCH: usize = 32;

/// The frames of a batch as they were read. One for each engine, used again for every batch: what is written in place
/// need not be moved.
#[derive(Debug)]
pub(crate) struct Readings {
    list: Vec<Reading>,
    /// How many of them are of this batch.
    count: usize,
}

/// One frame as it was read.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) outcome: Outcome,
    /// Of a frame that could be read, as is the rest.
    pub(super) headers: Headers,
    /// How it leaves.
    pub(super) vnet: VnetHeader,
    pub(super) patch: Option<Patch>,
    /// Its flow, if it has one.
    has_flow: bool,
    flow: Flow,
}

/// What reading a frame gave.
#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    Refused(Reason),
    NeedWhole,
    Read,
}

/// A frame's flow and where in the table its conn may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub(super) key: Key,
    pub(super) hash: u64,
    pub(super) likely: Option<Likely>,
}

impl Flow {
    const BLANK: Self = Self { key: Key::BLANK, hash: 0, likely: None };

    pub(super) fn of(headers: &Headers, direction: Direction, table: &Table) -> Option<Self> {
        let key = Key::of(&headers.flow(direction)?);
        Some(Self { key, hash: table.hash_of(&key), likely: None })
    }
}

impl Readings {
    pub(crate) fn new() -> Self {
        Self { list: (0..BATCH).map(|_| Reading::BLANK).collect(), count: 0 }
    }

    /// Reads [`BATCH`] frames at most.
    pub(super) fn read(&mut self, batch: &[Frame<'_>], link: &Link, table: &Table) {
        self.count = batch.len();
        for (frame, reading) in batch.iter().zip(&mut self.list) {
            reading.read(frame, link, table);
        }
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
        self.list
            .iter_mut()
            .take(self.count)
            .filter(|reading| reading.has_flow)
            .map(|reading| &mut reading.flow)
    }

    /// The frames in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Reading> {
        self.list.iter()
    }
}

impl Reading {
    const BLANK: Self = Self {
        outcome: Outcome::NeedWhole,
        headers: Headers::BLANK,
        vnet: VnetHeader::NONE,
        patch: None,
        has_flow: false,
        flow: Flow::BLANK,
    };

    #[inline]
    pub(super) fn flow(&self) -> Option<&Flow> {
        self.has_flow.then_some(&self.flow)
    }

    #[inline]
    fn read(&mut self, frame: &Frame<'_>, link: &Link, table: &Table) {
        self.has_flow = false;
        self.outcome = match headers::parse_into(frame.bytes, frame.length, &mut self.headers) {
            Ok(()) => self.settle(frame, link, table),
            Err(Stop::NeedWhole) => Outcome::NeedWhole,
            Err(Stop::Malformed(malformed)) => Outcome::Refused(malformed.reason()),
        };
    }

    #[inline]
    fn settle(&mut self, frame: &Frame<'_>, link: &Link, table: &Table) -> Outcome {
        match vnet::settle(frame, &self.headers, link) {
            Ok(Settled::Leaves { vnet, patch }) => {
                self.vnet = vnet;
                self.patch = patch;
                if let Some(key) = self.headers.flow(frame.direction) {
                    self.has_flow = true;
                    self.flow.key = Key::of(&key);
                    self.flow.hash = table.hash_of(&self.flow.key);
                }
                Outcome::Read
            }
            Ok(Settled::NeedWhole) => Outcome::NeedWhole,
            Err(reason) => Outcome::Refused(reason),
        }
    }
}
