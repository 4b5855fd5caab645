//! An initramfs as the kernel reads it: a cpio archive in the "newc" form.
//!
//! It may know names, modes and bytes. It must never know what they are for.

use std::collections::BTreeSet;

/// An archive being written.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    known: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a folder; its parent must be there already. Twice is once.
    pub(super) fn folder(&mut self, name: &str) {
        if !name.is_empty() && self.known.insert(name.to_owned()) {
            self.entry(name, 0o040_755, &[]);
        }
    }

    /// Adds a file. The first of a name stays.
    pub(super) fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        if self.known.insert(name.to_owned()) {
            self.entry(name, 0o100_000 | mode, content);
        }
    }

    /// The finished archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    // Documentation/driver-api/early-userspace/buffer-format.rst: magic and thirteen fields of eight hex digits,
    // name and content each padded to four bytes.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let (number, length, name_length) = (self.entries, content.len(), name.len() + 1);
        let links = if mode & 0o040_000 == 0 { 1 } else { 2 };
        let head = format!(
            "070701{number:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{length:08x}{:08x}{:08x}{:08x}{:08x}\
             {name_length:08x}{:08x}",
            0, 0, 0, 0, 0, 0, 0, 0
        );
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_what_the_kernel_expects() {
        let mut archive = Archive::default();
        archive.folder("etc");
        archive.folder("etc");
        archive.file("etc/name", 0o644, b"web\n");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert_eq!(text.matches("070701").count(), 3);
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        assert_eq!(bytes.len() % 4, 0);
        let name = text.find("etc/name").unwrap();
        assert_eq!((name - 110) % 4, 0);
        // The name and its end take nine bytes; 110 + 9 is one short of a multiple of four.
        assert_eq!(&text[name + 8..name + 14], "\0\0web\n");
    }
}
