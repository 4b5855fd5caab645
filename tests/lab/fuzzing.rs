//! What the fuzzers run, as plain functions: bytes in, a panic if a promise is broken.
//!
//! `tests/fuzz` feeds them from libFuzzer; `tests/corpora.rs` replays the committed corpora through them.

use std::cell::RefCell;
use std::sync::{Arc, LazyLock};

use fw_engine::{
    Answers, Config, Engine, Frame, GuestOffloads, HEAD_LEN, Permit, PreparedRules, Tick, Verdict, VnetHeader,
};
use fw_model::{Direction, VerdictName};

use crate::landing::Landing;
use crate::sealing::{self, Chunk};

const RULES: [&str; 2] =
    [include_str!("../cases/policies/WEB+UDP8080.yaml"), include_str!("../cases/policies/LOCKED.yaml")];

/// Read once: a fuzzer runs a thousand times a second.
static PREPARED: LazyLock<[Arc<PreparedRules>; 2]> = LazyLock::new(|| RULES.map(read));

fn read(text: &str) -> Arc<PreparedRules> {
    let rules = vhost_fw::rules_file::parse(text, "policy", 0).unwrap_or_else(|error| broken(&error));
    Arc::new(PreparedRules::new(rules).unwrap_or_else(|error| broken(&error)))
}

fn prepared(place: usize) -> Arc<PreparedRules> {
    let [web, locked] = &*PREPARED;
    Arc::clone(if place.is_multiple_of(2) { web } else { locked })
}

#[expect(clippy::panic, reason = "a fuzzer reports so")]
fn broken(what: &dyn std::fmt::Display) -> ! {
    panic!("{what}")
}

fn engine() -> Engine {
    let config = Config { conns: 256, fragments: 128 << 10, hash_key: [7; 16], mtu: 1500 };
    let mut engine = Engine::new(config);
    engine.set_guest_offloads(GuestOffloads { csum: true, tso4: true, tso6: true, ecn: true });
    engine.install(prepared(0), Tick(0));
    engine
}

/// One frame, judged from its head and whole: the verdict must be the same, and nothing leaves that did not come.
pub fn frame(bytes: &[u8]) {
    for direction in [Direction::Out, Direction::In] {
        let whole = Frame { direction, bytes, length: bytes.len(), vnet: VnetHeader::NONE };
        let head = Frame { bytes: bytes.get(..HEAD_LEN).unwrap_or(bytes), ..whole };
        let from_whole = verdict(&whole);
        let from_head = verdict(&head);
        assert!(
            from_head == Asked::NeedWhole || from_head == from_whole,
            "head says {from_head:?}, whole says {from_whole:?}"
        );
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    NeedWhole,
    Answered(Option<VerdictName>, fw_model::Reason),
}

fn verdict(frame: &Frame<'_>) -> Asked {
    let (mut engine, mut answers) = (engine(), Answers::with_capacity(1, 1 << 16));
    engine.judge(std::slice::from_ref(frame), Tick(1), &mut answers);
    let answer = answers.drain().next();
    let Some(answer) = answer else { broken(&"a frame without an answer") };
    if answer.verdict == Verdict::NeedWhole {
        assert!(!frame.is_whole(), "a whole frame was asked for whole");
        return Asked::NeedWhole;
    }
    if let Verdict::Pass(permit) = &answer.verdict {
        fits(permit, frame);
    }
    Asked::Answered(answer.name(), answer.reason)
}

fn fits(permit: &Permit, frame: &Frame<'_>) {
    assert!(
        permit.length() <= frame.length && permit.length() >= 14,
        "{permit:?} for {} bytes",
        frame.length
    );
    assert_eq!(permit.direction(), frame.direction);
}

/// A script of frames, time and rules: one byte says what comes, two its length, then its bytes.
pub fn judge(script: &[u8]) {
    let (mut engine, mut answers, mut now) = (engine(), Answers::with_capacity(1, 1 << 16), Tick(0));
    let mut rest = script;
    while let [kind, low, high, tail @ ..] = rest {
        let wanted = usize::from(u16::from_le_bytes([*low, *high]));
        let (bytes, after) = tail.split_at(wanted.min(tail.len()));
        rest = after;
        now = now.after_ms(1);
        match kind % 8 {
            4 => now = now.after_s(u32::try_from(wanted).unwrap_or(0)),
            5 => engine.install(prepared(wanted), now),
            kind => one(&mut engine, &mut answers, kind, bytes, now),
        }
        pass_time(&mut engine, &mut answers, now);
    }
}

fn one(engine: &mut Engine, answers: &mut Answers, kind: u8, bytes: &[u8], now: Tick) {
    let direction = if kind & 1 == 0 { Direction::Out } else { Direction::In };
    let (vnet, bytes) = match bytes.split_first_chunk::<12>() {
        Some((claim, bytes)) if kind & 2 != 0 => (VnetHeader::from_bytes(*claim), bytes),
        _ => (VnetHeader::NONE, bytes),
    };
    let frame = Frame { direction, bytes, length: bytes.len(), vnet };
    engine.judge(&[frame], now, answers);
    for answer in answers.drain() {
        assert_ne!(answer.verdict, Verdict::NeedWhole, "a whole frame was asked for whole");
        if let Verdict::Pass(permit) = &answer.verdict {
            fits(permit, &frame);
        }
    }
    answers.for_each_emission(|permit, bytes, _| assert_eq!(permit.length(), bytes.len()));
    let stats = engine.stats(now);
    assert!(stats.conns <= 256, "{} conns of 256", stats.conns);
}

fn pass_time(engine: &mut Engine, answers: &mut Answers, now: Tick) {
    for _ in 0..64 {
        if engine.next_due().is_none_or(|due| due > now) {
            return;
        }
        engine.expire(now, answers);
        answers.for_each_emission(|_, _, _| {});
    }
    assert!(engine.next_due().is_none_or(|due| due > now), "time never gets through");
}

/// A rules file: any text is refused with a message or accepted whole, and what is accepted can be put in force.
pub fn rules_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match vhost_fw::rules_file::parse(text, "rules.yaml", 0) {
        Ok(rules) => {
            if let Err(error) = PreparedRules::new(rules) {
                broken(&format!("the reader accepted what the engine refuses: {error}"));
            }
        }
        Err(error) => assert!(error.to_string().contains("rules.yaml"), "no place in `{error}`"),
    }
}

/// A snapshot: the bytes as they come, and as the payload of one chunk under a valid seal. Refused whole, or only conns
/// that could live.
pub fn decode(bytes: &[u8]) {
    thread_local! {
        static LANDING: RefCell<Landing> = RefCell::new(Landing::new());
    }
    let [kind, records, gone, payload @ ..] = bytes else { return };
    let chunk = Chunk { records: (*records).into(), gone: (*gone).into(), payload: payload.to_vec() };
    let chunks = [chunk];
    let sealed = sealing::sealed(sealing::header(u16::from(kind % 3), &chunks), &chunks);
    LANDING.with_borrow_mut(|landing| {
        landing.take(bytes);
        landing.take(&sealed);
    });
}
