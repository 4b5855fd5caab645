//! The evasion catalogue: attack, benign and fault cases with frames and expected verdicts.
//!
//! Knows the file and its words. Never knows how a firewall is driven.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

use crate::program::repository;

/// One case: frames in order, on a fresh table.
#[derive(Debug, Clone)]
pub struct Case {
    /// Its name in the catalogue.
    pub id: String,
    /// What it tries.
    pub name: String,
    /// The rules it is tried against.
    pub policy: String,
    /// Its steps, in order.
    pub steps: Vec<Step>,
}

/// One step of a case.
#[derive(Debug, Clone)]
pub enum Step {
    /// A frame and what must become of it.
    Frame(Frame),
    /// Time passes, in seconds.
    Wait(u64),
}

/// A frame to be judged.
#[derive(Debug, Clone)]
pub struct Frame {
    /// `guest` or `net`.
    pub from: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The virtio-net header that comes with it; what a correct driver would send if absent.
    pub vnet: Option<Vec<u8>>,
    /// What may become of it: any of these.
    pub expect: Vec<Expect>,
}

/// What may become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Forwarded as it came.
    Pass,
    /// Forwarded, possibly cut or with its virtio-net header rebuilt.
    PassNormalised,
    /// Not forwarded by this step.
    Drop,
    /// Forwarded at once or with the rest of its datagram.
    Reassembled,
    /// Kept.
    Held,
    /// Anything that harms nobody.
    Contain,
}

impl Expect {
    /// Whether this became of `frame`: its verdict by name, and what left on the other side.
    #[must_use]
    pub fn is_met(self, frame: &Frame, verdict: &str, left: &[Vec<u8>]) -> bool {
        match self {
            // With a header of its own the checksum field is ours to write.
            Self::Pass if frame.vnet.is_some() || frame.bytes.len() > 1514 => verdict == "pass",
            Self::Pass => verdict == "pass" && left == [frame.bytes.clone()],
            Self::PassNormalised => verdict == "pass",
            Self::Drop => left.is_empty() && verdict != "pass",
            Self::Reassembled => verdict == "pass" || verdict == "hold",
            Self::Held => verdict == "hold",
            Self::Contain => true,
        }
    }
}

#[derive(Deserialize)]
struct Catalogue {
    cases: Vec<RawCase>,
}

#[derive(Deserialize)]
struct RawCase {
    id: String,
    name: String,
    policy_context: String,
    packets: Vec<Value>,
}

/// Where the rules of a policy stand.
#[must_use]
pub fn rules_of(policy: &str) -> PathBuf {
    repository().join("tests/cases/policies").join(format!("{policy}.yaml"))
}

/// Every case whose steps are frames and time alone.
///
/// # Panics
/// If the catalogue cannot be read.
#[must_use]
#[expect(clippy::expect_used, reason = "the catalogue is part of the repository")]
pub fn frame_level() -> Vec<Case> {
    let text = std::fs::read_to_string(repository().join("tests/cases/evasion.json")).expect("the catalogue");
    let catalogue: Catalogue = serde_json::from_str(&text).expect("a well-formed catalogue");
    let handshake = handshake(&catalogue);
    catalogue.cases.iter().filter_map(|raw| case(raw, &handshake)).collect()
}

fn case(raw: &RawCase, handshake: &[Step]) -> Option<Case> {
    if !rules_of(&raw.policy_context).exists() {
        return None;
    }
    let steps: Vec<Step> = raw.packets.iter().filter_map(step).collect();
    if !steps.iter().any(|step| matches!(step, Step::Frame(_))) {
        return None;
    }
    let data_only = raw.packets.iter().any(|packet| packet.pointer("/virtio/frame").is_some_and(is_data));
    let opened = if data_only { handshake.to_vec() } else { Vec::new() };
    Some(Case {
        id: raw.id.clone(),
        name: raw.name.clone(),
        policy: raw.policy_context.clone(),
        steps: opened.into_iter().chain(steps).collect(),
    })
}

// Data frames that stand alone would be dropped for want of a conn and prove nothing.
fn is_data(expression: &Value) -> bool {
    expression.as_str().is_some_and(|text| text.contains("d=b'x'*3000"))
}

/// The three frames that open the conn the data-only cases send on: as in TCP-013.
fn handshake(catalogue: &Catalogue) -> Vec<Step> {
    let steps = catalogue.cases.iter().find(|case| case.id == "TCP-013");
    steps.map_or_else(Vec::new, |case| case.packets.iter().take(3).filter_map(step).collect())
}

fn step(packet: &Value) -> Option<Step> {
    let text = |place: &str| packet.pointer(place).and_then(Value::as_str);
    if let Some(seconds) = packet.get("wait_s").and_then(Value::as_u64) {
        return Some(Step::Wait(seconds));
    }
    let expect = text("/expect")?.split('|').map(expectation).collect();
    if let (Some(from), Some(frame)) = (text("/from"), text("/hex")) {
        return Some(Step::Frame(Frame { from: from.to_owned(), bytes: bytes(frame), vnet: None, expect }));
    }
    let (vnet, frame) = (text("/virtio/hdr_hex")?, text("/virtio/frame_hex")?);
    Some(Step::Frame(Frame {
        from: "guest".to_owned(),
        bytes: bytes(frame),
        vnet: Some(bytes(vnet)),
        expect,
    }))
}

#[expect(clippy::panic, reason = "a word nobody knows would let a case pass unread")]
fn expectation(word: &str) -> Expect {
    match word {
        "pass" | "pass_keep" => Expect::Pass,
        "pass_norm" => Expect::PassNormalised,
        "drop" | "drop_keep" => Expect::Drop,
        "frag:pass" => Expect::Reassembled,
        "frag:hold" => Expect::Held,
        "contain" => Expect::Contain,
        other => panic!("the catalogue says `{other}`"),
    }
}

/// Bytes from hexadecimal digits.
///
/// # Panics
/// If they are none.
#[must_use]
#[expect(clippy::expect_used, reason = "the catalogue is part of the repository")]
pub fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|pair| {
            let digits = std::str::from_utf8(pair).expect("ASCII");
            u8::from_str_radix(digits, 16).expect("hexadecimal digits")
        })
        .collect()
}

/// Hexadecimal digits of bytes.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
