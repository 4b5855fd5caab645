//! The fuzzers' committed corpora, replayed: what once was found stays found.
#![expect(clippy::expect_used, reason = "a panic here is the report")]

use std::fs;

use fw_tests::{fuzzing, program::repository};

fn replay(target: &str, run: fn(&[u8])) {
    let folder = repository().join("tests/fuzz/corpus").join(target);
    let mut tried = 0;
    for entry in fs::read_dir(&folder).expect("a corpus").filter_map(Result::ok) {
        run(&fs::read(entry.path()).expect("a seed"));
        tried += 1;
    }
    assert!(tried > 10, "only {tried} seeds in {}", folder.display());
}

#[test]
fn snapshots_are_refused_whole_or_hold_conns_that_could_live() {
    replay("decode", fuzzing::decode);
}

#[test]
fn frames_are_judged_alike_from_head_and_whole() {
    replay("frame", fuzzing::frame);
}

#[test]
fn scripts_of_frames_break_no_promise() {
    replay("judge", fuzzing::judge);
}

#[test]
fn rules_files_are_refused_or_accepted_whole() {
    replay("rules_file", fuzzing::rules_file);
}
