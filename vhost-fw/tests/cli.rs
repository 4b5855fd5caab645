//! The program as an operator meets it: words, exit codes, what is said where.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

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

/// A device of the NIC `a` without a VM.
struct Running {
    child: Child,
    folder: TempDir,
}

impl Running {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("r.yaml"), RULES).unwrap();
        // Started as root, the process becomes a user of its own, who must reach its files.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-fw"));
        // The names of the kernel's sandbox features are another test's; here the machine may lack some.
        command.args([
            "--socket",
            "vhost.sock",
            "--uplink",
            "null",
            "--rules",
            "r.yaml",
            "--control",
            "control.sock",
        ]);
        command.args(["--allow-missing-sandbox"]).current_dir(folder.path());
        command.stderr(File::create(folder.path().join("log")).unwrap());
        let mut running = Self { child: command.spawn().unwrap(), folder };
        running.eventually("it does not come up", |running| running.ctl(&["stats"]).0 == Some(0));
        running
    }

    fn ctl(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let control = self.folder.path().join("control.sock");
        told(&[&["ctl", "--control", control.to_str().unwrap()], words].concat())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn eventually(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..500 {
            if holds(self) {
                return;
            }
            assert_eq!(self.child.try_wait().unwrap(), None, "{what}: it ended: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
        panic!("{what}: {}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_running_nic_is_asked_told_and_reloaded() {
    let mut running = Running::new();
    let (_, json, _) = running.ctl(&["stats", "-o", "json"]);
    let stats: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&stats["nic"], &stats["enforced"]), (&"a".into(), &1.into()));

    let next = running.folder.path().join("next.yaml");
    fs::write(&next, format!("{RULES}rules: [{{id: web, direction: out, action: allow, protocol: tcp}}]\n"))
        .unwrap();
    let (code, said, error) = running.ctl(&["install", next.to_str().unwrap()]);
    assert_eq!((code, said.as_str()), (Some(0), "generation 2 is enforced\n"), "{error}");
    let (_, json, _) = running.ctl(&["-o", "json", "explain", "out", "tcp", "10.0.0.1", "10.0.0.2:80"]);
    let line: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(line["emitted"], serde_json::json!([]));

    fs::write(&next, RULES.replace("id: a", "id: b")).unwrap();
    let (code, _, error) = running.ctl(&["install", next.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(error.contains("`b`"), "{error}");
    assert_eq!(running.ctl(&["conns"]).0, Some(0));
    assert_eq!(running.ctl(&["conns", "kill", "all"]).1, "0 conns closed\n");
    assert_eq!(running.ctl(&["freeze"]).0, Some(0));
    assert!(running.ctl(&["stats"]).1.contains("frozen"));
    assert_eq!(running.ctl(&["thaw"]).0, Some(0));

    let rules = running.folder.path().join("r.yaml");
    fs::write(&rules, "nic: {}\n").unwrap();
    running.signal("HUP");
    running.eventually("a wrong file is told", |running| running.log().contains("r.yaml:1: nic needs `id`"));
    fs::write(&rules, format!("generation: 9\n{RULES}")).unwrap();
    running.signal("HUP");
    running
        .eventually("a right file is enforced", |running| running.ctl(&["stats"]).1.contains("enforced 9"));
}

#[test]
fn a_second_process_of_a_nic_does_not_start_and_the_first_one_goes_without_a_trace() {
    let mut running = Running::new();
    let path = |name: &str| running.folder.path().join(name).to_str().unwrap().to_owned();
    let (vhost, rules, control) = (path("vhost.sock"), path("r.yaml"), path("control.sock"));
    let second = ["--socket", &vhost, "--uplink", "null", "--rules", &rules, "--control", &control];
    let (code, _, error) = told(&second);
    assert_eq!(code, Some(1));
    assert!(error.contains("a running process listens here"), "{error}");
    assert_eq!(told(&[&second[..], &["--check"]].concat()).0, Some(2));
    running.signal("TERM");
    assert_eq!(running.child.wait().unwrap().code(), Some(0), "{}", running.log());
    assert!(!Path::new(&vhost).exists() && !Path::new(&control).exists());
    let (code, said, error) =
        told(&["--check", "--socket", &path("new.sock"), "--uplink", "null", "--rules", &rules]);
    assert_eq!((code, said.as_str()), (Some(0), "ok: NIC a, generation 1, 0 rules\n"), "{error}");
}
