//! The decision log under a flood, and with nowhere to write.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::decision::SHOWN_LEN;

/// A file that many threads see.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Full;

impl Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn decision() -> Decision {
    Decision {
        direction: Direction::In,
        verdict: VerdictName::Drop,
        reason: Reason::RuleDrop,
        by: By::Rule,
        rule: Some("no\"web".parse().unwrap()),
        head: [0xab; SHOWN_LEN],
        head_len: 14,
        length: 60,
    }
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}");
}

#[test]
fn a_decision_becomes_one_json_line() {
    let file = Shared::default();
    let mut log = DecisionLog::start("web-1".parse().unwrap(), file.clone()).unwrap();
    log.decided(&decision());
    eventually("no line was written", || file.0.lock().unwrap().ends_with(b"\n"));
    let line: serde_json::Value = serde_json::from_slice(&file.0.lock().unwrap()).unwrap();
    let expected = serde_json::json!({
        "time_ms": line["time_ms"], "nic": "web-1", "dir": "in", "verdict": "drop", "reason": "rule-drop",
        "by": "rule", "rule": "no\"web", "proto": null, "src": null, "dst": null, "len": 60, "head": "ab".repeat(14),
    });
    assert_eq!(line, expected);
}

#[test]
fn a_flood_of_one_reason_is_counted_and_hides_no_other() {
    let mut log = DecisionLog::start("a".parse().unwrap(), Shared::default()).unwrap();
    let taken = (0..1000).filter(|_| log.wants_at(Reason::RuleDrop, 7)).count();
    assert_eq!((taken, log.lost()), (10, 990));
    assert!(log.wants_at(Reason::NoConn, 7));
    assert!(log.wants_at(Reason::RuleDrop, 8));
}

#[test]
fn lines_that_cannot_be_written_are_counted() {
    let mut log = DecisionLog::start("a".parse().unwrap(), Full).unwrap();
    log.decided(&decision());
    eventually("the loss was not counted", || log.lost() == 1);
}
