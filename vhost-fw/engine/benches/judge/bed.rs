//! An engine with rules, and the floor beside it, both fed the same frames in the same batches.

use std::hint::black_box;
use std::sync::Arc;

use fw_engine::{
    Answers, Config, Engine, Frame, GuestOffloads, HEAD_LEN, PreparedRules, Tick, Verdict, VnetHeader,
};
use fw_model::{Direction, RuleSet};

use crate::floor::Floor;

/// Frames a batch holds, as the data thread's do.
pub(crate) const BATCH: usize = 32;

/// A frame as it lies in guest memory or a socket buffer: [`HEAD_LEN`] bytes can always be copied.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) direction: Direction,
    pub(crate) bytes: [u8; HEAD_LEN],
    pub(crate) length: usize,
    pub(crate) vnet: VnetHeader,
}

/// What every frame of a bench must get; another verdict makes its times worthless.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    Pass,
    Drop,
}

pub(crate) struct Bed {
    engine: Engine,
    answers: Answers,
    now: Tick,
    heads: Vec<[u8; HEAD_LEN]>,
    floor: Floor,
}

impl Bed {
    pub(crate) fn new(rules: RuleSet, conns: u32) -> Result<Self, String> {
        let mut engine = Engine::new(Config {
            conns,
            fragments: Config::FRAGMENTS,
            hash_key: *b"a key of a bench",
            mtu: 1500,
        });
        engine.set_guest_offloads(GuestOffloads { csum: true, tso4: true, tso6: true, ecn: true });
        let prepared = PreparedRules::new(rules).map_err(|error| error.to_string())?;
        engine.install(Arc::new(prepared), Tick(0));
        Ok(Self {
            engine,
            answers: Answers::with_capacity(BATCH, 1 << 16),
            now: Tick(0),
            heads: vec![[0; HEAD_LEN]; BATCH],
            floor: Floor::new(conns),
        })
    }

    /// Copies each head once and judges in batches. Says what went wrong, if a verdict is not the expected one.
    pub(crate) fn judge(&mut self, wires: &[Wire], expected: Expected) -> Result<(), String> {
        let mut wrong = None;
        for batch in wires.chunks(BATCH) {
            copy_heads(&mut self.heads, batch);
            self.now = self.now.after_ms(1);
            judge_batch(&mut self.engine, batch, &self.heads, self.now, &mut self.answers);
            for answer in self.answers.drain() {
                let is_expected = match expected {
                    Expected::Pass => matches!(answer.verdict, Verdict::Pass(_)),
                    Expected::Drop => matches!(answer.verdict, Verdict::Drop),
                };
                if !is_expected {
                    wrong = Some(answer);
                }
            }
        }
        wrong.map_or(Ok(()), |answer| Err(format!("expected {expected:?}, got {answer:?}")))
    }

    /// The same batches, copied, hashed and looked at.
    pub(crate) fn touch(&mut self, wires: &[Wire]) {
        for batch in wires.chunks(BATCH) {
            copy_heads(&mut self.heads, batch);
            black_box(self.floor.touch(self.heads.iter().take(batch.len())));
        }
    }

    /// Lets the engine do what is due, outside of all times.
    pub(crate) fn rest(&mut self) {
        while self.engine.next_due().is_some_and(|due| due <= self.now) {
            self.engine.expire(self.now, &mut self.answers);
            self.answers.for_each_emission(|permit, _, _| drop(permit));
        }
    }
}

fn copy_heads(heads: &mut [[u8; HEAD_LEN]], batch: &[Wire]) {
    for (head, wire) in heads.iter_mut().zip(batch) {
        *head = wire.bytes;
    }
    black_box(heads);
}

fn judge_batch(
    engine: &mut Engine,
    batch: &[Wire],
    heads: &[[u8; HEAD_LEN]],
    now: Tick,
    answers: &mut Answers,
) {
    const NONE: Frame<'static> =
        Frame { direction: Direction::Out, bytes: &[], length: 0, vnet: VnetHeader::NONE };
    let mut frames = [NONE; BATCH];
    for ((frame, wire), head) in frames.iter_mut().zip(batch).zip(heads) {
        let bytes = head.get(..wire.length).unwrap_or(head);
        *frame = Frame { direction: wire.direction, bytes, length: wire.length, vnet: wire.vnet };
    }
    engine.judge(frames.get(..batch.len()).unwrap_or(&[]), now, answers);
}
