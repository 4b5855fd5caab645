//! The house rules, as code. Each failure says which rule was broken and why there is one.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a panic here is the report")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fw_model::Reason;
use fw_tests::program::repository;

/// Which of our crates each of our crates may import (ARCHITECTURE.md, "Walls").
const IMPORTS: &[(&str, &[&str])] = &[
    ("fw-model", &[]),
    ("fw-control", &["fw-model"]),
    ("fw-engine", &["fw-model"]),
    ("conn-snapshot", &["fw-model"]),
    ("vhost-fw", &["fw-engine", "fw-model", "fw-control", "conn-snapshot"]),
    ("state-migrate", &["fw-model", "fw-control", "conn-snapshot"]),
    ("fw-tests", &["fw-engine", "fw-model", "fw-control", "vhost-fw", "conn-snapshot"]),
];

/// Foreign crates a heart may import, each because it is pure.
const HEART_IMPORTS: &[(&str, &[&str])] = &[
    ("fw-model", &["serde", "thiserror"]),
    ("fw-engine", &["siphasher", "thiserror"]),
    ("conn-snapshot", &["blake3", "siphasher", "thiserror"]),
];

/// Words a room may not say, and why.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "vhost-fw/engine/src",
        &[
            "Instant::now",
            "SystemTime",
            "std::net::Tcp",
            "std::fs",
            "std::thread",
            "libc",
            "println!",
            "GuestMemory",
        ],
        "the heart is pure: time is an argument, bytes are handed in",
    ),
    (
        "vhost-fw/model/src",
        &["Instant::now", "SystemTime", "std::net::Tcp", "std::fs", "std::thread", "libc", "println!"],
        "nouns have no behaviour",
    ),
    (
        "state-migrate/snapshot/src",
        &["Instant::now", "SystemTime", "std::net::Tcp", "std::fs", "std::io", "std::thread", "println!"],
        "the heart is pure: bytes are handed in and out",
    ),
    (
        "vhost-fw",
        &["workload", "tenant", "fn label", "tier:"],
        "a NIC knows rules and address sets; groups, labels and tiers are the compiler's words",
    ),
];

/// Stations of the engine: none imports another, so that the story stands in `pipeline.rs` alone.
const STATIONS: &[&str] = &["conntrack", "fragment", "guard", "limits", "matcher", "reply"];

/// Who besides the pipeline may see several stations: the owners of their state.
const OWNERS: &[&str] = &[
    "adoption.rs",
    "announcement.rs",
    "lib.rs",
    "pipeline.rs",
    "engine.rs",
    "state.rs",
    "revision.rs",
    "explain.rs",
    "in_force.rs",
    "prepared.rs",
    "ledger.rs",
    "meter.rs",
];

/// Lines a file may have without its tests.
const FILE_LINES: usize = 420;
/// Lines of code the ground floor may have in all.
const MODEL_LINES: usize = 1_000;

#[test]
fn crates_import_only_what_their_floor_allows() {
    for (name, dependencies) in dependencies() {
        let Some((_, allowed)) = IMPORTS.iter().find(|(room, _)| *room == name) else {
            panic!("{name} has no line in IMPORTS: say on which floor it stands");
        };
        for dependency in
            dependencies.iter().filter(|dependency| IMPORTS.iter().any(|(room, _)| room == dependency))
        {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} imports {dependency}: imports run downward only, or the hearts cannot be tested alone"
            );
        }
        if let Some((_, allowed)) = HEART_IMPORTS.iter().find(|(room, _)| *room == name) {
            for dependency in
                dependencies.iter().filter(|dependency| !IMPORTS.iter().any(|(room, _)| room == dependency))
            {
                assert!(
                    allowed.contains(&dependency.as_str()),
                    "{name} imports {dependency}: a heart stays pure"
                );
            }
        }
    }
}

fn dependencies() -> BTreeMap<String, Vec<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(repository());
    let output = cargo.output().expect("cargo metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("its JSON");
    let text = |value: &serde_json::Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let normal = |dependency: &&serde_json::Value| dependency["kind"].is_null();
    let packages = metadata["packages"].as_array().expect("packages");
    assert_eq!(packages.len(), IMPORTS.len(), "a crate left or came: IMPORTS must follow");
    let imports = |package: &serde_json::Value| {
        package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(normal)
            .map(|d| text(d, "name"))
            .collect()
    };
    packages.iter().map(|package| (text(package, "name"), imports(package))).collect()
}

#[test]
fn no_room_says_a_forbidden_word() {
    for (room, words, why) in FORBIDDEN {
        for (path, text) in sources(room) {
            let code = without_tests(&path, &text);
            for (place, line) in code.lines().enumerate() {
                let said =
                    words.iter().find(|word| line.contains(**word) && !line.trim_start().starts_with("//"));
                assert!(
                    said.is_none(),
                    "{}:{} says `{}`: {why}",
                    path.display(),
                    place + 1,
                    said.unwrap_or(&"")
                );
            }
        }
    }
}

#[test]
fn stations_do_not_import_each_other() {
    for (path, text) in sources("vhost-fw/engine/src") {
        let room = room_of(&path);
        if OWNERS.contains(&room.as_str()) {
            continue;
        }
        let own = room.trim_end_matches(".rs");
        for station in STATIONS.iter().filter(|station| **station != own) {
            let import = format!("crate::{station}");
            let code = without_tests(&path, &text);
            assert!(
                !code.contains(&import),
                "{} imports {station}: only the pipeline orders stations",
                path.display()
            );
        }
    }
}

/// The station a file belongs to: `conntrack.rs` for everything below `conntrack/`.
fn room_of(path: &Path) -> String {
    let inside = path.components().skip_while(|part| part.as_os_str() != "src").nth(1);
    let name = inside.map(|part| part.as_os_str().to_string_lossy().into_owned()).unwrap_or_default();
    if name.ends_with(".rs") { name } else { format!("{name}.rs") }
}

#[test]
fn only_the_verdict_and_the_pipeline_make_permits() {
    for (path, text) in sources("vhost-fw") {
        let makes = without_tests(&path, &text).contains("Permit {");
        let allowed = path.ends_with("engine/src/verdict.rs") || path.ends_with("engine/src/pipeline.rs");
        assert!(
            !makes || allowed,
            "{} makes a permit: no frame without the pipeline's leave",
            path.display()
        );
    }
}

#[test]
fn the_clock_is_read_in_one_place() {
    // A benchmark is no part of the product.
    let is_bench = |path: &Path| path.components().any(|part| part.as_os_str() == "benches");
    for (path, text) in sources("vhost-fw").into_iter().filter(|(path, _)| !is_bench(path)) {
        let code = without_tests(&path, &text);
        let mut lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let reads = lines.any(|line| line.contains("Instant::now") || line.contains("CLOCK_BOOTTIME"));
        assert!(
            !reads || path.ends_with("worker/clock.rs"),
            "{} reads the clock: the worker does that",
            path.display()
        );
    }
}

#[test]
fn unsafe_code_stands_where_architecture_says() {
    let listed = fs::read_to_string(repository().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for (path, text) in sources("vhost-fw").into_iter().chain(sources("tests")) {
        let opts_out =
            text.lines().any(|line| line.contains("unsafe_code") && !line.contains("forbid(unsafe_code)"));
        let name = path.strip_prefix(repository()).unwrap_or(&path).display().to_string();
        let mentioned = listed.contains(name.trim_start_matches("./"));
        let is_rule = path.ends_with("house_rules.rs");
        assert!(
            !opts_out || mentioned || is_rule,
            "{name} allows unsafe code and ARCHITECTURE.md does not list it"
        );
    }
}

#[test]
fn every_reason_is_provoked_by_some_test() {
    let tests: String = test_sources().into_iter().map(|(_, text)| text).collect();
    for reason in Reason::ALL {
        let variant = format!("Reason::{reason:?}");
        let named = format!("\"{}\"", reason.name());
        let told = format!(": {} by ", reason.name());
        let counted = format!(", 1 {}\"", reason.name());
        assert!(
            [variant, named, told, counted].iter().any(|word| tests.contains(word)),
            "no test provokes {reason}: a reason nobody can cause is a word without meaning"
        );
    }
}

#[test]
fn the_page_of_reasons_is_the_list() {
    let page = fs::read_to_string(repository().join("docs/reasons.md")).expect("docs/reasons.md");
    for reason in Reason::ALL {
        let row = format!("| `{}` | {} |", reason.name(), reason.meaning());
        assert!(page.contains(&row), "docs/reasons.md lacks `{row}`; `vhost-fw reasons` prints the table");
    }
}

#[test]
fn files_hold_one_idea() {
    let product = sources("vhost-fw").into_iter().chain(sources("state-migrate"));
    for (path, text) in product.chain(sources("tests/lab")) {
        let lines = without_tests(&path, &text).lines().count();
        assert!(
            lines <= FILE_LINES,
            "{} has {lines} lines: split it where a second idea starts",
            path.display()
        );
        assert!(
            text.starts_with("//!") || path.ends_with("tests.rs") || is_test(inside(&path)),
            "{} does not open with what it does",
            path.display()
        );
        assert!(!path.ends_with("mod.rs"), "{}: name the file for its noun", path.display());
        let folder =
            path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        assert!(
            !["common", "util", "utils", "misc", "helpers"].contains(&folder.as_str()),
            "{}",
            path.display()
        );
    }
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let code = |(path, text): &(PathBuf, String)| without_tests(path, text).lines().filter(is_code).count();
    let model: usize = sources("vhost-fw/model/src").iter().map(code).sum();
    assert!(model <= MODEL_LINES, "the ground floor has {model} lines: it holds nouns only");
}

/// Every Rust source below `folder`, by path.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    walk(&repository().join(folder), &mut found);
    found.sort();
    assert!(!found.is_empty(), "no sources below {folder}");
    found
}

fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a folder").filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") && !path.ends_with("fuzz") {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).expect("a source")));
        }
    }
}

fn inside(path: &Path) -> &Path {
    path.strip_prefix(repository()).unwrap_or(path)
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// What a file says apart from its tests, which stand last.
fn without_tests(path: &Path, text: &str) -> String {
    let inside = path.strip_prefix(repository()).unwrap_or(path);
    if !inside.starts_with("tests") && is_test(inside) {
        return String::from("//!");
    }
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

fn test_sources() -> Vec<(PathBuf, String)> {
    let product = sources("vhost-fw").into_iter().chain(sources("state-migrate")).map(|(path, text)| {
        let inside = path.strip_prefix(repository()).unwrap_or(&path).to_owned();
        let tests = if is_test(&inside) {
            text
        } else {
            text.split_once("#[cfg(test)]").map_or(String::new(), |(_, tests)| tests.to_owned())
        };
        (path, tests)
    });
    let laboratory = sources("tests").into_iter().filter(|(path, _)| !path.ends_with("house_rules.rs"));
    product.chain(laboratory).collect()
}
