//! Policies that are right (`*.ok`: what NICs get, and warnings) and wrong (`*.err`: every finding), a dozen lines each.
//!
//! `tests/golden/policy/NAME.in` is the document. To make the answer of a new case, run
//! with `PORTCULLIS_GOLDEN=write` and read what it wrote.
#![cfg(test)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use fw_model::{NicId, RuleSet};
use fw_tests::program::repository;
use policy_compiler::{Author, Source, compile, read};
use policy_sync::rules_file::{rule, rules_file};

/// 2027-01-15.
const NOW_MS: i64 = 1_800_000_000_000;

fn folder() -> PathBuf {
    repository().join("tests/golden/policy")
}

/// What a case comes to, and how its file ends.
fn answer(text: &str, name: &str) -> (String, &'static str) {
    let intent = match read(&[Source { name, text, author: Author::Provider }]) {
        Ok(intent) => intent,
        Err(refusal) => return (format!("{refusal}\n"), "err"),
    };
    let compiled = compile(intent, NOW_MS, 7);
    let mut answer = String::new();
    for warning in &compiled.warnings {
        let _ = writeln!(answer, "{warning}");
    }
    let nics: Vec<NicId> = compiled.form.nics().cloned().collect();
    for nic in nics {
        let rules = compiled.form.rules_of(&nic, NOW_MS).unwrap();
        let _ = writeln!(answer, "nic {nic}");
        for each in &rules.rules {
            let _ = writeln!(answer, "  {}", rule(each));
        }
        for (set, content) in &rules.address_sets {
            let members: Vec<String> =
                content.members.iter().map(|member| member.prefix.to_string()).collect();
            let _ = writeln!(answer, "  {set}: {}", members.join(" "));
        }
        round_trips(&rules);
    }
    (answer, "ok")
}

/// What we write is what `vhost-fw` reads.
fn round_trips(rules: &RuleSet) {
    let text = rules_file(rules).to_string();
    let read = vhost_fw::rules_file::parse(&text, "written.json", 0)
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(read, *rules);
}

fn cases(ending: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
    cases.sort();
    cases
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[test]
fn every_case_comes_to_what_is_written() {
    let write = std::env::var_os("PORTCULLIS_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let cases = cases("in");
    assert!(cases.len() >= 40, "{} cases", cases.len());
    for case in cases {
        let (found, ending) = answer(&fs::read_to_string(&case).unwrap(), &name(&case));
        let file = case.with_extension(ending);
        if write {
            fs::write(&file, &found).unwrap();
        }
        let wanted = fs::read_to_string(&file).unwrap_or_default();
        if wanted != found {
            wrong.push(format!("{}: wanted\n{wanted}\nfound\n{found}", name(&file)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_answer_stands_without_its_case() {
    for answer in cases("ok").into_iter().chain(cases("err")) {
        assert!(answer.with_extension("in").exists(), "{}", answer.display());
    }
}

#[test]
fn the_documents_we_ship_compile_without_a_warning() {
    for file in ["docs/policy/three-tier.yaml", "docs/policy/baseline.yaml"] {
        let text = fs::read_to_string(repository().join(file)).unwrap();
        let intent = read(&[Source { name: file, text: &text, author: Author::Provider }]).unwrap();
        let compiled = compile(intent, NOW_MS, 1);
        assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
    }
}
