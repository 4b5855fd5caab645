//! `vhost-fw simulate`: the engine without a VM, fed with steps or a capture, one JSON line out per frame.
//!
//! It drives the engine as the device does: head first, the whole frame when asked, time before every frame. Knows
//! files and lines. Never knows a ring, a tap or a clock.

mod pcap;
mod step;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use fw_engine::{
    Answer, Answers, Config, Engine, Frame, GuestOffloads, HEAD_LEN, PreparedRules, Tick, Verdict,
    VnetHeader, driver_claim,
};
use fw_model::{By, Direction, Explanation, Reason, RuleId, VerdictName};
use serde::Serialize;

use crate::config::SimulateArgs;
use crate::hex;
use crate::rules_file::{self, RulesFileError};
use pcap::Capture;
use step::Step;

/// The uplink's MTU where the rules name none.
const MTU: u16 = 1500;

/// Everything the driver can acknowledge.
const ALL_OFFLOADS: GuestOffloads = GuestOffloads { csum: true, tso4: true, tso6: true, ecn: true };

/// Why a simulation stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The rules file is refused.
    #[error("{0}")]
    Rules(#[from] RulesFileError),
    /// A step is none; file and line stand first.
    #[error("{file}:{line}: {why}")]
    Step {
        /// Where the steps come from.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong and what would be right.
        why: String,
    },
    /// The capture cannot be read.
    #[error("{file}: {why}")]
    Capture {
        /// The capture.
        file: String,
        /// What is wrong.
        why: String,
    },
    /// Nobody reads the answers, or the steps broke off.
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

/// Runs the simulation the command line asks for.
///
/// # Errors
/// What is wrong with rules, steps or capture; answers up to there are written.
pub fn run(args: &SimulateArgs, stdin: impl BufRead, out: impl Write) -> Result<(), SimulateError> {
    let mut simulation = Simulation::new(rules_file::load_prepared(&args.rules, 0)?, out);
    match (&args.steps, &args.pcap) {
        (Some(path), _) if path.as_os_str() == "-" => simulation.steps(stdin, "stdin"),
        (Some(path), _) => {
            let name = path.display().to_string();
            let file = File::open(path).map_err(|error| SimulateError::Io(name.clone(), error))?;
            simulation.steps(BufReader::new(file), &name)
        }
        (None, Some(path)) => simulation.capture(path),
        (None, None) => Ok(()),
    }
}

struct Simulation<W> {
    rules: Arc<PreparedRules>,
    engine: Engine,
    answers: Answers,
    now: Tick,
    out: W,
}

/// One line of the answer; the order of the fields is part of the contract.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    verdict: VerdictName,
    reason: Reason,
    by: By,
    rule: Option<RuleId>,
    emitted: Vec<String>,
    emitted_vnet: Vec<String>,
    replied: Vec<String>,
}

impl<W: Write> Simulation<W> {
    fn new(rules: Arc<PreparedRules>, out: W) -> Self {
        let engine = fresh_engine(&rules, Tick(0));
        Self { rules, engine, answers: Answers::with_capacity(1, 1 << 16), now: Tick(0), out }
    }

    fn steps(&mut self, mut input: impl BufRead, file: &str) -> Result<(), SimulateError> {
        let mut line = 0;
        let mut text = Vec::new();
        loop {
            line += 1;
            let wrong = |why: String| SimulateError::Step { file: file.to_owned(), line, why };
            let read = step::read_line(&mut input, &mut text);
            if !read.map_err(|error| SimulateError::Io(file.to_owned(), error))? {
                return Ok(());
            }
            let Some(step) = Step::parse(&text).map_err(wrong)? else { continue };
            match step {
                Step::Frame { direction, bytes, vnet } => {
                    self.judge(direction, &bytes, vnet)?;
                    self.now = self.now.after_ms(1);
                }
                Step::Wait { ms } => {
                    self.now = self.now.after_ms(ms);
                    self.pass_time();
                }
                Step::Reset => self.engine = fresh_engine(&self.rules, self.now),
                Step::Rules { file } => self.install(&file).map_err(|error| wrong(error.to_string()))?,
            }
        }
    }

    fn capture(&mut self, path: &Path) -> Result<(), SimulateError> {
        let file = path.display().to_string();
        let wrong = |why| SimulateError::Capture { file: file.clone(), why };
        let opened = File::open(path).map_err(|error| wrong(error.to_string()))?;
        let mut capture = Capture::open(BufReader::new(opened)).map_err(wrong)?;
        let guest = self.rules.rules().nic.mac.0;
        while let Some(captured) = capture.next_frame().map_err(wrong)? {
            self.now = self.now.max(Tick(captured.ms));
            let from_guest = captured.bytes.get(6..12) == Some(&guest[..]);
            let direction = if from_guest { Direction::Out } else { Direction::In };
            self.judge(direction, &captured.bytes, None)?;
        }
        Ok(())
    }

    fn install(&mut self, path: &Path) -> Result<(), RulesFileError> {
        self.rules = rules_file::load_prepared(path, self.rules.rules().generation)?;
        self.pass_time();
        self.engine.install(Arc::clone(&self.rules), self.now);
        Ok(())
    }

    /// Lets the engine catch up with the clock. What it sends because of time alone belongs to no line.
    fn pass_time(&mut self) {
        while self.engine.next_due().is_some_and(|due| due <= self.now) {
            self.engine.expire(self.now, &mut self.answers);
            self.answers.for_each_emission(|_, _, _| {});
        }
    }

    fn judge(
        &mut self,
        direction: Direction,
        bytes: &[u8],
        vnet: Option<VnetHeader>,
    ) -> Result<(), SimulateError> {
        self.pass_time();
        let mtu = self.rules.rules().nic.mtu.unwrap_or(MTU);
        let vnet = vnet.unwrap_or_else(|| driver_claim(bytes, mtu));
        let head = bytes.get(..HEAD_LEN).unwrap_or(bytes);
        let mut answer = self.ask(Frame { direction, bytes: head, length: bytes.len(), vnet });
        if answer.as_ref().is_some_and(|answer| answer.verdict == Verdict::NeedWhole) {
            answer = self.ask(Frame { direction, bytes, length: bytes.len(), vnet });
        }
        let line = answer.and_then(|answer| self.line(direction, bytes, answer));
        // An engine that leaves a question open would be a defect; the line then says that nothing passed.
        let line = line.unwrap_or(UNANSWERED);
        self.write(&line).map_err(|error| SimulateError::Io("stdout".to_owned(), error))
    }

    fn ask(&mut self, frame: Frame<'_>) -> Option<Answer> {
        self.engine.judge(&[frame], self.now, &mut self.answers);
        self.answers.drain().next()
    }

    fn line(&mut self, direction: Direction, bytes: &[u8], answer: Answer) -> Option<Line> {
        let rule = answer.rule.and_then(|slot| self.engine.rule_id(slot)).cloned();
        let mut line =
            Line { verdict: answer.name()?, reason: answer.reason, by: answer.by, rule, ..UNANSWERED };
        if let Verdict::Pass(permit) = answer.verdict {
            let mut frame = bytes.get(..permit.length()).unwrap_or(bytes).to_vec();
            permit.finish(&mut frame);
            line.emit(&frame, permit.vnet());
        }
        self.answers.for_each_emission(|permit, frame, cause| {
            let frame = frame.get(..permit.length()).unwrap_or_default();
            match cause {
                Some(_) if permit.direction() == direction => line.emit(frame, permit.vnet()),
                Some(_) => line.replied.push(hex::encode(frame)),
                None => {}
            }
        });
        Some(line)
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, line)?;
        self.out.write_all(b"\n")?;
        self.out.flush()
    }
}

const UNANSWERED: Line = Line {
    verdict: VerdictName::Drop,
    reason: Reason::NoRules,
    by: By::Guard,
    rule: None,
    emitted: Vec::new(),
    emitted_vnet: Vec::new(),
    replied: Vec::new(),
};

impl From<Explanation> for Line {
    fn from(Explanation { verdict, reason, by, rule }: Explanation) -> Self {
        Self { verdict, reason, by, rule, ..UNANSWERED }
    }
}

impl Line {
    fn emit(&mut self, frame: &[u8], vnet: VnetHeader) {
        self.emitted.push(hex::encode(frame));
        self.emitted_vnet.push(hex::encode(&vnet.to_bytes()));
    }
}

/// An engine with these rules and an empty table. The key is fixed: a simulation must repeat itself.
fn fresh_engine(rules: &Arc<PreparedRules>, now: Tick) -> Engine {
    let mut engine = Engine::new(Config {
        conns: Config::CONNS,
        fragments: Config::FRAGMENTS,
        hash_key: [0; 16],
        mtu: MTU,
    });
    engine.set_guest_offloads(ALL_OFFLOADS);
    engine.install(Arc::clone(rules), now);
    engine
}

#[cfg(test)]
mod tests;
