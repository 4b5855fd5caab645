//! Rules files and what becomes of them: each `*.yaml` in `golden/rules` beside its `*.ok` (the rules it means) or
//! `*.err` (why it is refused). `UPDATE_GOLDEN=1` writes them anew, for the diff to be read.
#![expect(clippy::unwrap_used, reason = "a panic here is the report")]

use std::fs;
use std::path::{Path, PathBuf};

use fw_model::RuleSet;
use vhost_fw::rules_file::parse;

#[test]
fn every_golden_file_means_what_it_meant() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/rules");
    let mut files: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    assert!(files.len() >= 60, "golden files are gone: {} left", files.len());
    let wrong: Vec<String> = files.iter().filter_map(|path| difference(path)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn difference(path: &Path) -> Option<String> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let (ending, other, found) = match parse(&fs::read_to_string(path).unwrap(), name, 0) {
        Ok(rules) => ("ok", "err", written(&rules)),
        Err(error) => ("err", "ok", format!("{error}\n")),
    };
    let golden = path.with_extension(ending);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_file(path.with_extension(other));
        fs::write(&golden, &found).unwrap();
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    (found != expected).then(|| format!("{name}:\nexpected ({ending}):\n{expected}found:\n{found}"))
}

/// One line per part, so that a difference is a line.
fn written(rules: &RuleSet) -> String {
    let json = |value: serde_json::Value| value.to_string();
    let mut lines = vec![format!("generation {}", rules.generation)];
    lines.push(json(serde_json::to_value(&rules.nic).unwrap()));
    lines.push(json(serde_json::to_value(rules.defaults).unwrap()));
    lines.extend(
        rules
            .address_sets
            .iter()
            .map(|(name, set)| format!("{name} {}", serde_json::to_string(set).unwrap())),
    );
    lines.extend(rules.rules.iter().map(|rule| json(serde_json::to_value(rule).unwrap())));
    lines.push(json(serde_json::to_value(rules.timers).unwrap()));
    lines.push(json(serde_json::to_value(rules.limits).unwrap()));
    lines.join("\n") + "\n"
}
