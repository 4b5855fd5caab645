//! The program as an operator meets it: words, exit codes, what is said where.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

const RULES: &str = "nic: {id: a, mac: \"52:54:00:00:00:01\"}\ndefaults: {out: drop, in: drop}\n";

fn run(words: &[&str], stdin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-fw"));
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A program that refuses its command line does not read on.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn told(words: &[&str]) -> (Option<i32>, String, String) {
    let output = run(words, "");
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_misspelt_flag_is_refused_with_the_right_one() {
    let (code, _, error) = told(&["--sockt", "x"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("--socket"), "{error}");
}

#[test]
fn nothing_named_is_told_what_to_name() {
    let (code, _, error) = told(&[]);
    assert_eq!(code, Some(2));
    assert!(error.contains("--tap"), "{error}");
}

#[test]
fn reasons_are_printed_as_published() {
    let (code, text, _) = told(&["reasons"]);
    assert_eq!(code, Some(0));
    assert_eq!(text, include_str!("../../docs/reasons.md"));
}

#[test]
fn a_simulation_answers_each_frame_with_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("r.yaml");
    fs::write(&rules, RULES).unwrap();
    let words = ["simulate", "--rules", rules.to_str().unwrap(), "--steps", "-"];
    let output = run(
        &words,
        "{\"from\":\"guest\",\"frame\":\"00\"}\n{\"wait_s\":1}\n{\"from\":\"net\",\"frame\":\"\"}\n",
    );
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 2);
    let output = run(&words, "\n{\"wait\":1}\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("stdin:2: "));
}

#[test]
fn wrong_rules_are_named_by_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("r.yaml");
    fs::write(&rules, format!("{RULES}ruels: []\n")).unwrap();
    let rules = rules.to_str().unwrap();
    let (code, _, error) = told(&["simulate", "--rules", rules, "--steps", "/dev/null"]);
    assert_eq!(code, Some(2));
    assert!(error.contains(&format!("{rules}:3: unknown key `ruels`; did you mean `rules`?")), "{error}");
    let device = ["--socket", "/nowhere/s", "--uplink", "null", "--rules", rules];
    for words in [&device[..], &[&device[..], &["--check"]].concat()] {
        let (code, _, error) = told(words);
        assert_eq!(code, Some(2));
        assert!(error.contains("r.yaml:3: "), "{error}");
    }
}

#[test]
fn a_nic_that_is_not_there_is_refused_and_wrong_words_are_usage() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("none.sock");
    let ctl = ["ctl", "--control", socket.to_str().unwrap()];
    let (code, _, error) = told(&[&ctl[..], &["stats"]].concat());
    assert_eq!(code, Some(1));
    assert!(error.contains("none.sock") && error.contains("is the NIC up"), "{error}");
    for words in [
        &["conns", "kill"][..],
        &["conns", "list", "x=y"],
        &["explain", "out", "tcp", "10.0.0.1", "10.0.0.2"],
        &["dance"],
    ] {
        assert_eq!(told(&[&ctl[..], words].concat()).0, Some(2), "{words:?}");
    }
    assert_eq!(told(&["ctl", "stats"]).0, Some(2));
}
