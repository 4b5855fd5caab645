//! Where programs are: ours beside this one, others on the path.
//!
//! It may know folders and build profiles. It must never know what a program does.

use std::env;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};

/// The first `name` on the path; the system folders count as on it.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// The first `name` on the path.
///
/// # Errors
/// There is none.
pub fn need(name: &str) -> Result<PathBuf> {
    on_path(name).with_context(|| format!("there is no `{name}` on this machine"))
}

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
    PATH.get_or_init(|| match build().and_then(|()| ours("vhost-fw")) {
        Ok(path) => path,
        Err(error) => panic!("{error:#}"),
    })
    .clone()
}

/// The folder with our own programs: `PORTCULLIS_BIN`, else where this program's build puts them.
///
/// # Errors
/// This program does not know where it is.
pub fn folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("PORTCULLIS_BIN") {
        return Ok(folder.into());
    }
    let me = env::current_exe().context("where is this program?")?;
    let folder = me.parent().context("this program stands in no folder")?;
    let tested = folder.file_name().is_some_and(|name| name == "deps");
    Ok(if tested { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}

/// One of our own programs.
///
/// # Errors
/// It has not been built.
pub fn ours(name: &str) -> Result<PathBuf> {
    let program = folder()?.join(name);
    if !program.is_file() {
        bail!("{} is not built; cargo build --workspace --bins", program.display());
    }
    Ok(program)
}

/// Builds all our programs in this program's own profile. Does nothing away from the work tree.
///
/// # Errors
/// The build fails.
pub fn build() -> Result<()> {
    if env::var_os("PORTCULLIS_BIN").is_some() {
        return Ok(());
    }
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).args(["build", "--quiet", "--workspace", "--bins"]);
    if !cfg!(debug_assertions) || folder()?.ends_with("release") {
        cargo.arg("--release");
    }
    if !cargo.status().context("cannot run cargo")?.success() {
        bail!("our programs do not build");
    }
    Ok(())
}
