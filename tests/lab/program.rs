//! The programs under test, built as they would be for an operator.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The repository's top folder.
#[must_use]
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The path of the freshly built `vhost-fw`, of the profile this test was built with.
///
/// # Panics
/// If it does not build: every test that needs it fails with cargo's words.
#[must_use]
#[expect(clippy::panic, reason = "a test without its program has nothing to say")]
pub fn vhost_fw() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        // target/<profile>/deps/<test> -> target/<profile>
        let profile = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.to_owned()));
        let Some(profile) = profile else { panic!("this test does not know where it is") };
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--package", "vhost-fw", "--bin", "vhost-fw"])
            .current_dir(repository());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        match cargo.status() {
            Ok(status) if status.success() => profile.join("vhost-fw"),
            outcome => panic!("vhost-fw does not build: {outcome:?}"),
        }
    })
    .clone()
}
