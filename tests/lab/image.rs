//! The guest image: Debian's cloud kernel and an initramfs made from `images/`.
//!
//! It may know packages, files and where they go in an archive. It must never know what a test does with the guest.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail};

use crate::process::run;
use crate::program;

mod archive;
mod kernel;

use archive::Archive;
use kernel::Kernel;

/// The virtio driver's modules, in the order they need.
const GUEST_MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "failover",
    "net_failover",
    "virtio_net",
];

/// What the machine around a nested Cloud Hypervisor needs.
const OUTER_MODULES: &[&str] = &["irqbypass", "kvm", "kvm-amd", "tun", "llc", "stp", "bridge", "veth"];

/// The files a guest boots from.
#[derive(Debug, Clone)]
pub struct Image {
    /// The kernel as Debian packs it, for QEMU.
    pub vmlinuz: PathBuf,
    /// The same kernel unpacked, for Cloud Hypervisor.
    pub vmlinux: PathBuf,
    /// The initial file system.
    pub initramfs: PathBuf,
    folder: PathBuf,
}

impl Image {
    /// Where images are kept: `PORTCULLIS_IMAGES`, else `images/.cache`.
    #[must_use]
    pub fn folder() -> PathBuf {
        env::var_os("PORTCULLIS_IMAGES")
            .map_or_else(|| program::repository().join("images/.cache"), PathBuf::from)
    }

    /// The image, made first where it is missing or its parts have changed.
    ///
    /// # Errors
    /// The kernel's package cannot be had, or a program that belongs into the guest is missing.
    pub fn ensure() -> Result<Self> {
        let folder = Self::folder();
        let image = Self {
            vmlinuz: folder.join("vmlinuz"),
            vmlinux: folder.join("vmlinux"),
            initramfs: folder.join("initramfs"),
            folder: folder.clone(),
        };
        if env::var_os("PORTCULLIS_IMAGES").is_some() && image.initramfs.is_file() {
            return Ok(image);
        }
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let kernel = Kernel::ensure(&folder)?;
        let parts = guest_parts()?;
        let stamp = stamp(&kernel, &parts);
        if fs::read_to_string(folder.join("stamp")).ok().as_deref() != Some(&stamp) || !image.is_whole() {
            kernel.unpack(&image.vmlinuz, &image.vmlinux)?;
            place(&image.initramfs, &guest_archive(&kernel, &parts)?)?;
            place(&folder.join("stamp"), stamp.as_bytes())?;
        }
        Ok(image)
    }

    fn is_whole(&self) -> bool {
        self.vmlinuz.is_file() && self.vmlinux.is_file() && self.initramfs.is_file()
    }

    /// Makes the initramfs of the machine around a nested Cloud Hypervisor: `programs` on its path with their
    /// libraries, the guest image under `/lab/images`, and `/lab/run` to say what it does.
    ///
    /// # Errors
    /// A part is missing.
    pub fn outer(&self, programs: &[PathBuf], run: &str, target: &Path) -> Result<()> {
        let kernel = Kernel::ensure(&self.folder)?;
        let mut archive = bare(&kernel, OUTER_MODULES, include_bytes!("../../images/outer-init.sh"))?;
        for folder in ["lab", "lab/images", "etc"] {
            archive.folder(folder);
        }
        // dnsmasq asks who nobody is.
        archive.file(
            "etc/passwd",
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        );
        archive.file("etc/group", 0o644, b"root:x:0:\ndip:x:30:\nnogroup:x:65534:\n");
        for program in programs {
            let name =
                program.file_name().and_then(|name| name.to_str()).context("a program without a name")?;
            let place =
                if name == "busybox" { "bin/busybox.host".to_owned() } else { format!("usr/bin/{name}") };
            archive.file(&place, 0o755, &read(program)?);
        }
        add_libraries(&mut archive, programs)?;
        for (name, path) in
            [("vmlinuz", &self.vmlinuz), ("vmlinux", &self.vmlinux), ("initramfs", &self.initramfs)]
        {
            archive.file(&format!("lab/images/{name}"), 0o644, &read(path)?);
        }
        archive.file("lab/run", 0o755, run.as_bytes());
        place(target, &archive.finish())
    }
}

/// Programs that go into the guest.
fn guest_parts() -> Result<Vec<PathBuf>> {
    let mut parts = vec![program::ours("guest-probe")?];
    parts.extend(program::on_path("iperf3"));
    Ok(parts)
}

fn guest_archive(kernel: &Kernel, parts: &[PathBuf]) -> Result<Vec<u8>> {
    let mut archive = bare(kernel, GUEST_MODULES, include_bytes!("../../images/init.sh"))?;
    for folder in ["etc", "www"] {
        archive.folder(folder);
    }
    archive.file("etc/udhcpc.sh", 0o755, include_bytes!("../../images/udhcpc.sh"));
    archive.file("www/index.html", 0o644, b"hello from behind the portcullis\n");
    for part in parts {
        let name = part.file_name().and_then(|name| name.to_str()).context("a program without a name")?;
        archive.file(&format!("usr/bin/{name}"), 0o755, &read(part)?);
    }
    add_libraries(&mut archive, parts)?;
    Ok(archive.finish())
}

/// An archive with busybox, modules and `/init`.
fn bare(kernel: &Kernel, modules: &[&str], init: &[u8]) -> Result<Archive> {
    let mut archive = Archive::default();
    for folder in
        ["bin", "sbin", "usr", "usr/bin", "usr/sbin", "modules", "proc", "sys", "dev", "tmp", "run", "root"]
    {
        archive.folder(folder);
    }
    archive.file("bin/busybox", 0o755, &read(&static_busybox()?)?);
    for module in modules {
        archive.file(&format!("modules/{module}.ko"), 0o644, &read(&kernel.module(module)?)?);
    }
    archive.file("modules/order", 0o644, format!("{}\n", modules.join("\n")).as_bytes());
    archive.file("init", 0o755, init);
    Ok(archive)
}

fn static_busybox() -> Result<PathBuf> {
    let busybox = program::need("busybox")?;
    if libraries(&busybox).is_empty() {
        return Ok(busybox);
    }
    bail!("{} is not static; install busybox-static", busybox.display())
}

/// Copies what the programs are linked with, at the places the linker looks for them.
fn add_libraries(archive: &mut Archive, programs: &[PathBuf]) -> Result<()> {
    let all: BTreeSet<PathBuf> = programs.iter().flat_map(|program| libraries(program)).collect();
    for library in all {
        let place = library.strip_prefix("/").unwrap_or(&library);
        for folder in place.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            archive.folder(&folder.display().to_string());
        }
        archive.file(&place.display().to_string(), 0o755, &read(&library)?);
    }
    Ok(())
}

/// The shared objects of a program, as its linker would load them; none for a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let listed = run("ldd", &[&program.display().to_string()]).unwrap_or_default();
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn stamp(kernel: &Kernel, parts: &[PathBuf]) -> String {
    let mut stamp = format!(
        "{}\n{}{}",
        kernel.version(),
        include_str!("../../images/init.sh"),
        include_str!("../../images/udhcpc.sh")
    );
    for part in parts.iter().cloned().chain(program::on_path("busybox")) {
        let age = fs::metadata(&part).and_then(|about| about.modified()).ok();
        let age = age.and_then(|age| age.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        stamp.push_str(&format!("{} {}\n", part.display(), age.as_nanos()));
    }
    stamp
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| path.display().to_string())
}

/// Writes a file as a whole or not at all: another run may be reading the old one.
fn place(path: &Path, bytes: &[u8]) -> Result<()> {
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    fs::write(&draft, bytes).with_context(|| draft.display().to_string())?;
    fs::rename(&draft, path).with_context(|| path.display().to_string())
}
