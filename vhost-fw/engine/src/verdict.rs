//! What a judged frame gets: a verdict with its reason, and the permit without which no door opens.
//!
//! Knows verdicts and how a permitted frame leaves. Never knows how a verdict is found.

use fw_model::{By, Direction, Reason, VerdictName};

use crate::vnet::VnetHeader;

/// A rule as the engine counts it: a number that stays with the rule's id over generations.
/// [`crate::Engine::rule_id`] gives the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleSlot(pub(crate) u32);

impl RuleSlot {
    /// The number, for lists by slot: no larger than the rules there have ever been at once, and those that conns remember.
    #[must_use]
    pub fn index(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

/// Two bytes of the head that are ours to write: a checksum, or the pseudo-header sum the uplink completes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patch {
    pub(crate) offset: u16,
    pub(crate) value: u16,
}

/// Leave for one frame to pass one door. Only the pipeline makes one, it cannot be copied, and the doors
/// (uplink and guest delivery) take it by value.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    pub(crate) direction: Direction,
    pub(crate) length: usize,
    pub(crate) vnet: VnetHeader,
    pub(crate) patch: Option<Patch>,
}

impl Permit {
    /// The way the frame goes: [`Direction::Out`] to the uplink, [`Direction::In`] to the guest.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        self.direction
    }

    /// How many bytes of the frame leave: those that were judged, without what trailed the datagram.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.length
    }

    /// The virtio-net header that leaves with it, built from the parse.
    #[must_use]
    pub const fn vnet(&self) -> VnetHeader {
        self.vnet
    }

    /// Makes the private head what leaves: writes the checksum field the permit settles, if any.
    pub fn finish(&self, head: &mut [u8]) {
        let Some(Patch { offset, value }) = self.patch else { return };
        let offset = usize::from(offset);
        if let Some(field) = head.get_mut(offset..offset + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }
}

/// What happens to a frame.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it with this permit.
    Pass(Permit),
    /// It made a datagram whole: the fragments stand in the outbox, this one included.
    Release,
    /// It is kept until its datagram is whole.
    Hold,
    /// Refuse it silently.
    Drop,
    /// Refuse it; the answer to its sender stands in the outbox, unless answers come too fast.
    Reject,
    /// Copy the rest of it, once, and ask again with that copy.
    NeedWhole,
}

/// A frame's verdict and who decided it.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// What happens to it.
    pub verdict: Verdict,
    /// Why. Of no meaning with [`Verdict::NeedWhole`].
    pub reason: Reason,
    /// Who decided.
    pub by: By,
    /// The rule that admitted or refused it.
    pub rule: Option<RuleSlot>,
    /// Whether that rule wants its verdicts logged.
    pub log: bool,
}

impl Answer {
    /// The verdict's name; `None` for [`Verdict::NeedWhole`], which is a question.
    #[must_use]
    pub const fn name(&self) -> Option<VerdictName> {
        match self.verdict {
            Verdict::Pass(_) | Verdict::Release => Some(VerdictName::Pass),
            Verdict::Hold => Some(VerdictName::Hold),
            Verdict::Drop => Some(VerdictName::Drop),
            Verdict::Reject => Some(VerdictName::Reject),
            Verdict::NeedWhole => None,
        }
    }
}

/// A frame of the engine's own making, or one it held: bytes in the outbox.
#[derive(Debug)]
struct Emission {
    permit: Permit,
    /// The frame of the batch that caused it.
    cause: Option<usize>,
    start: usize,
    end: usize,
}

/// What a batch was answered, and the frames that leave because of it beside its own. Made once, used for every
/// batch, so that judging allocates nothing.
#[derive(Debug)]
pub struct Answers {
    list: Vec<Answer>,
    emissions: Vec<Emission>,
    bytes: Vec<u8>,
}

impl Answers {
    /// Room for `frames` answers and `bytes` of outbox. The outbox grows beyond that only when a batch releases
    /// more held fragments than ever before, which the cap on fragments bounds.
    #[must_use]
    pub fn with_capacity(frames: usize, bytes: usize) -> Self {
        Self { list: Vec::with_capacity(frames), emissions: Vec::new(), bytes: Vec::with_capacity(bytes) }
    }

    /// Takes the answers out, in the order of the frames.
    pub fn drain(&mut self) -> impl Iterator<Item = Answer> + '_ {
        self.list.drain(..)
    }

    /// The answers, in the order of the frames.
    pub fn as_slice(&self) -> &[Answer] {
        &self.list
    }

    /// Hands every frame of the outbox, in order, to `send` with the index of the frame that caused it (`None`:
    /// time, a revoked rule or the operator did), and empties the outbox.
    pub fn for_each_emission(&mut self, mut send: impl FnMut(Permit, &mut [u8], Option<usize>)) {
        for Emission { permit, cause, start, end } in self.emissions.drain(..) {
            if let Some(bytes) = self.bytes.get_mut(start..end) {
                permit.finish(bytes);
                send(permit, bytes, cause);
            }
        }
        self.bytes.clear();
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
    }

    pub(crate) fn push(&mut self, answer: Answer) {
        self.list.push(answer);
    }

    /// Puts a whole frame into the outbox.
    pub(crate) fn emit(&mut self, direction: Direction, frame: &[u8], cause: Option<usize>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        let end = self.bytes.len();
        let permit = Permit { direction, length: frame.len(), vnet: VnetHeader::NONE, patch: None };
        self.emissions.push(Emission { permit, cause, start, end });
    }
}
