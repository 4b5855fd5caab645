//! Closes the file system but for a few folders, and TCP, signals and abstract sockets where the kernel can.
//!
//! Knows folders. Never knows what is in the files.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, make_bitflags,
};

use super::{Degraded, Plan, SandboxError, lacking};

/// What is asked of the kernel: Linux 6.12. Older ones close less and say so.
const ASKED: ABI = ABI::V6;

/// What a program reads until it confines itself: its libraries and their loader, who it is, what is random.
const NEEDED_TO_START: &[(&str, BitFlags<AccessFs>)] = &[
    ("/lib", make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir})),
    ("/lib64", make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir})),
    ("/usr/lib", make_bitflags!(AccessFs::{Execute | ReadFile | ReadDir})),
    ("/etc/ld.so.cache", make_bitflags!(AccessFs::{ReadFile})),
    ("/etc/passwd", make_bitflags!(AccessFs::{ReadFile})),
    ("/proc", make_bitflags!(AccessFs::{ReadFile | ReadDir})),
    ("/sys/fs/cgroup", make_bitflags!(AccessFs::{ReadFile | ReadDir})),
    ("/dev/urandom", make_bitflags!(AccessFs::{ReadFile})),
    ("/dev/null", make_bitflags!(AccessFs::{ReadFile | WriteFile})),
];

/// Confines the process to the plan's folders.
pub(super) fn close(plan: &Plan<'_>) -> Result<Option<Degraded>, SandboxError> {
    let mut ruleset = everything_closed().map_err(refused)?;
    for folder in rules_folders(plan.rules) {
        ruleset = reach(ruleset, &folder, make_bitflags!(AccessFs::{ReadFile | ReadDir}))?;
    }
    for folder in plan.writable {
        let access =
            make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile});
        ruleset = reach(ruleset, folder, access)?;
    }
    if let Some(program) = plan.starts {
        // A package's new version is another file of the same name, so its folder is what may be reached.
        let folder = program.parent().unwrap_or(program);
        ruleset = reach(ruleset, folder, make_bitflags!(AccessFs::{Execute | ReadFile}))?;
        for (place, access) in NEEDED_TO_START {
            if Path::new(place).exists() {
                ruleset = reach(ruleset, Path::new(place), *access)?;
            }
        }
    }
    match ruleset.restrict_self().map_err(refused)?.ruleset {
        RulesetStatus::FullyEnforced => Ok(None),
        RulesetStatus::PartiallyEnforced => Ok(Some(Degraded::LandlockPartly)),
        RulesetStatus::NotEnforced => {
            let what = "Landlock (CONFIG_SECURITY_LANDLOCK, and `landlock` in the kernel's lsm= list)";
            lacking(plan.missing, what, Degraded::Landlock).map(Some)
        }
    }
}

/// Confines the calling thread to the descriptors it has. Where Landlock is missing, `close` has said so.
pub(super) fn close_all() -> io::Result<()> {
    everything_closed().and_then(RulesetCreated::restrict_self).map(drop).map_err(io::Error::other)
}

fn everything_closed() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ASKED))?
        .handle_access(AccessNet::from_all(ASKED))?
        .scope(Scope::from_all(ASKED))?
        .create()
}

fn reach(
    ruleset: RulesetCreated,
    folder: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    let wrong = |reason: String| SandboxError::Path { path: folder.to_owned(), reason };
    let opened = PathFd::new(folder).map_err(|error| wrong(error.to_string()))?;
    ruleset.add_rule(PathBeneath::new(opened, access)).map_err(|error| wrong(error.to_string()))
}

/// The folder the path names, and the one its target lies in, if it is a link.
fn rules_folders(rules: Option<&Path>) -> Vec<PathBuf> {
    let Some(rules) = rules else { return Vec::new() };
    let folder = |path: &Path| match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    };
    let mut folders = vec![folder(rules)];
    folders.extend(rules.canonicalize().ok().map(|target| folder(&target)));
    folders
}

fn refused(error: RulesetError) -> SandboxError {
    SandboxError::Step { step: "closing the file system (Landlock)", source: io::Error::other(error) }
}
