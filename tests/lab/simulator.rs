//! `vhost-fw simulate` as a firewall that can be asked frame by frame.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;

use crate::cases::hex;
use crate::program;

/// The answer to one frame, as the program prints it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// pass, drop, hold or reject.
    pub verdict: String,
    /// Why.
    pub reason: String,
    /// Who decided.
    pub by: String,
    /// The rule that admitted or refused it.
    pub rule: Option<String>,
    /// Frames that left on the other side, in hexadecimal digits.
    pub emitted: Vec<String>,
    /// Their virtio-net headers.
    pub emitted_vnet: Vec<String>,
    /// Frames that went back to the sender.
    pub replied: Vec<String>,
}

/// A running simulation.
#[derive(Debug)]
pub struct Simulator {
    child: Child,
    steps: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Simulator {
    /// Starts one with these rules.
    ///
    /// # Panics
    /// If the program does not start.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test without its program has nothing to say")]
    pub fn new(rules: &Path) -> Self {
        let mut command = Command::new(program::vhost_fw());
        command.args(["simulate", "--steps", "-", "--rules"]).arg(rules);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("vhost-fw starts");
        let steps = child.stdin.take().expect("its stdin");
        let answers = BufReader::new(child.stdout.take().expect("its stdout"));
        Self { child, steps, answers }
    }

    /// Judges a frame.
    ///
    /// # Panics
    /// If the program does not answer with one line of the promised form.
    #[expect(clippy::expect_used, reason = "no answer is the failure to report")]
    pub fn judge(&mut self, from: &str, frame: &[u8], vnet: Option<&[u8]>) -> Answer {
        let mut step = serde_json::json!({"from": from, "frame": hex(frame)});
        if let (Some(vnet), Some(step)) = (vnet, step.as_object_mut()) {
            step.insert("vnet".to_owned(), hex(vnet).into());
        }
        self.tell(&step);
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("an answer");
        serde_json::from_str(&line).unwrap_or_else(|error| {
            let status = self.child.try_wait();
            panic_with(&format!("`{line}` is no answer: {error} (program: {status:?}) to {step}"))
        })
    }

    /// Lets time pass.
    pub fn wait(&mut self, seconds: u64) {
        self.tell(&serde_json::json!({"wait_s": seconds}));
    }

    /// Starts over with an empty table.
    pub fn reset(&mut self) {
        self.tell(&serde_json::json!({"reset": true}));
    }

    /// Installs the next generation of rules.
    pub fn install(&mut self, rules: &Path) {
        self.tell(&serde_json::json!({"rules": rules}));
    }

    #[expect(clippy::expect_used, reason = "a program that hangs up is the failure to report")]
    fn tell(&mut self, step: &serde_json::Value) {
        writeln!(self.steps, "{step}").expect("the simulation listens");
        self.steps.flush().expect("the simulation listens");
    }
}

#[expect(clippy::panic, reason = "tests end so")]
fn panic_with(message: &str) -> ! {
    panic!("{message}")
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
