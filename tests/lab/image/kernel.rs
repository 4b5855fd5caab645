//! Debian's cloud kernel: found, fetched and taken apart without installing it.
//!
//! It may know the package and the shape of a compressed kernel. It must never know what boots it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{place, read};
use crate::process::run;

/// The package that always names the newest cloud kernel.
const META_PACKAGE: &str = "linux-image-cloud-amd64";

/// An unpacked kernel package.
#[derive(Debug)]
pub(super) struct Kernel {
    root: PathBuf,
    version: String,
}

impl Kernel {
    /// The kernel unpacked in `folder`, fetched first if there is none.
    pub(super) fn ensure(folder: &Path) -> Result<Self> {
        let root = folder.join("kernel");
        if let Some(version) = version_in(&root) {
            return Ok(Self { root, version });
        }
        let package = match env::var_os("PORTCULLIS_KERNEL_DEB") {
            Some(package) => PathBuf::from(package),
            None => fetch(folder)?,
        };
        let draft = folder.join(format!("kernel-draft-{}", std::process::id()));
        run("dpkg-deb", &["-x", &package.display().to_string(), &draft.display().to_string()])?;
        let _ = fs::remove_dir_all(&root);
        fs::rename(&draft, &root).context("cannot put the unpacked kernel into its place")?;
        let version = version_in(&root).with_context(|| format!("{} holds no kernel", package.display()))?;
        Ok(Self { root, version })
    }

    /// Its release name.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// One of its modules.
    pub(super) fn module(&self, name: &str) -> Result<PathBuf> {
        let wanted = format!("{name}.ko");
        let modules = self.root.join("lib/modules").join(&self.version);
        find(&modules, &wanted).with_context(|| format!("kernel {} has no module {name}", self.version))
    }

    /// Writes the kernel as it is packed, and unpacked as Cloud Hypervisor boots it.
    pub(super) fn unpack(&self, vmlinuz: &Path, vmlinux: &Path) -> Result<()> {
        let packed = read(&self.root.join("boot").join(format!("vmlinuz-{}", self.version)))?;
        place(vmlinuz, &packed)?;
        place(vmlinux, &elf_inside(&packed)?)
    }
}

fn version_in(root: &Path) -> Option<String> {
    let names = fs::read_dir(root.join("boot")).ok()?.flatten();
    names
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
        .find(|version| root.join("lib/modules").join(version).is_dir())
}

fn fetch(folder: &Path) -> Result<PathBuf> {
    let depends = run("apt-cache", &["depends", META_PACKAGE])
        .context("the guest's kernel comes from a Debian package (or give one by PORTCULLIS_KERNEL_DEB)")?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-") && !name.contains('<'))
        .with_context(|| format!("{META_PACKAGE} names no kernel; run apt-get update"))?;
    let done = Command::new("apt-get")
        .args(["download", "-q", package])
        .current_dir(folder)
        .output()
        .context("cannot run apt-get")?;
    if !done.status.success() {
        bail!("apt-get download {package}: {}", String::from_utf8_lossy(&done.stderr).trim());
    }
    let fetched = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(&format!("{package}_")) && path.extension().is_some_and(|kind| kind == "deb")
    });
    fetched.with_context(|| format!("apt-get download left no {package}"))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    let here = entries.iter().find(|path| path.file_name().is_some_and(|found| found == name));
    here.cloned().or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|below| find(below, name)))
}

/// The kernel proper: an LZ4 stream in the legacy form (blocks of 8 MiB, each behind its length) inside the packed
/// image. What follows the last block is no length of a block.
fn elf_inside(packed: &[u8]) -> Result<Vec<u8>> {
    const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
    const BLOCK: usize = 8 << 20;
    let start =
        packed.windows(4).position(|window| window == MAGIC).context("the kernel is not packed by LZ4")?;
    let mut rest = packed.get(start + 4..).unwrap_or_default();
    let mut kernel = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length))?;
        let Some(block) = after.get(..length).filter(|_| length != 0 && length <= BLOCK + BLOCK / 128) else {
            break;
        };
        let block = lz4_flex::block::decompress(block, BLOCK).context("the packed kernel is damaged")?;
        kernel.extend_from_slice(&block);
        rest = after.get(length..).unwrap_or_default();
    }
    if !kernel.starts_with(b"\x7fELF") {
        bail!("what the packed kernel holds is no ELF file");
    }
    Ok(kernel)
}
