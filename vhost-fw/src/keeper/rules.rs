//! Rules that outlive a worker: memory without a name, which the keeper holds and the next worker reads.
//!
//! What is written once is whole before anybody else has it. Knows the text of rules and how long it lay. Never knows
//! what a rule says, but when it ends.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::fd::OwnedFd;

use fw_control::age;
use fw_engine::Tick;
use fw_model::RuleSet;
use rustix::fs::{MemfdFlags, memfd_create};

/// Writes down what is in force at `now`.
pub(crate) fn write_down(rules: &RuleSet, now: Tick) -> io::Result<OwnedFd> {
    let file = File::from(memfd_create("rules", MemfdFlags::CLOEXEC)?);
    let mut writer = BufWriter::new(file);
    serde_json::to_writer(&mut writer, &(now.0, rules))?;
    writer.flush()?;
    Ok(writer.into_inner().map_err(io::IntoInnerError::into_error)?.into())
}

/// Reads what was written down. What expires has as much less time left as it lay.
pub(crate) fn read_again(written: OwnedFd, now: Tick) -> io::Result<RuleSet> {
    let mut file = File::from(written);
    file.rewind()?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let (then, mut rules): (u64, RuleSet) = serde_json::from_slice(&text)?;
    age(&mut rules, now.0.saturating_sub(then));
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_come_back_as_they_were_and_no_rule_lives_longer() {
        let text = r#"
nic: {id: web-1, mac: "52:54:00:00:00:01", addresses: [10.0.0.10]}
defaults: {out: drop, in: drop}
rules:
  - {id: short, direction: out, action: allow, expires_in_s: 2}
  - {id: long, direction: out, action: allow, expires_in_s: 60}
  - {id: always, direction: in, action: reject}
"#;
        let mut rules = crate::rules_file::parse(text, "rules", 6).unwrap();
        let written = write_down(&rules, Tick(1000)).unwrap();
        let again = read_again(written.try_clone().unwrap(), Tick(1000)).unwrap();
        assert_eq!(again, rules);
        // A second time as well: both hold one place in one file.
        let later = read_again(written, Tick(11_000)).unwrap();
        for (rule, left) in rules.rules.iter_mut().zip([Some(0), Some(50_000), None]) {
            rule.expires_in_ms = left;
        }
        assert_eq!(later, rules);
    }

    #[test]
    fn half_a_text_is_no_rules() {
        let file = File::from(memfd_create("rules", MemfdFlags::CLOEXEC).unwrap());
        (&file).write_all(b"[0,{\"generation\":7").unwrap();
        assert!(read_again(file.into(), Tick(0)).is_err());
    }
}
