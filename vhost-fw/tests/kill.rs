//! What a killed device leaves its VMM with.
#![cfg(test)]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const RULES: &str = r#"
nic: {id: web-1, mac: "52:54:00:00:00:01", addresses: [10.0.0.10]}
defaults: {out: drop, in: drop}
"#;

/// A running device; it ends with its owner.
struct Device(Child);

impl Device {
    fn start(folder: &Path) -> Self {
        let rules = folder.join("rules.yaml");
        fs::write(&rules, RULES).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vhost-fw"));
        command.args(["--uplink", "null", "--allow-missing-sandbox"]).arg("--rules").arg(rules);
        command.arg("--socket").arg(folder.join("vhost.sock"));
        command.arg("--control").arg(folder.join("control.sock"));
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The number of the descriptor with this inode.
    fn number_of(&self, inode: u64) -> Option<u32> {
        let files = fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().filter_map(Result::ok);
        let mut found = files.filter(|file| fs::metadata(file.path()).is_ok_and(|file| file.ino() == inode));
        found.next()?.file_name().to_str()?.parse().ok()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A VMM's first question, answered.
fn connected(folder: &Path) -> UnixStream {
    let end = Instant::now() + Duration::from_secs(10);
    let mut vmm = loop {
        match UnixStream::connect(folder.join("vhost.sock")) {
            Ok(vmm) => break vmm,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        thread::sleep(Duration::from_millis(10));
    };
    // VHOST_USER_GET_FEATURES, version 1, no body.
    vmm.write_all(&[1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    vmm.read_exact(&mut [0; 20]).unwrap();
    vmm
}

/// The kernel closes a killed process's files from the highest number down: the listener's must be the highest, or a VMM
/// that tries again at once reaches the dying process, and Cloud Hypervisor then gives its NIC up for good.
#[test]
fn a_killed_device_stops_listening_before_its_vmm_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::start(folder.path());
    let _vmm = connected(folder.path());
    // The kernel lists both under the path they were bound to: flag 00010000 is the one that listens.
    let name = folder.path().join("vhost.sock.new").display().to_string();
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let (mut listens, mut talks) = (None, None);
    for line in sockets.lines().filter(|line| line.ends_with(&name)) {
        let inode = line.split_whitespace().nth(6).unwrap().parse().unwrap();
        *if line.contains(" 00010000 ") { &mut listens } else { &mut talks } = device.number_of(inode);
    }
    assert!(listens.is_some() && talks.is_some(), "{sockets}");
    assert!(listens > talks, "the listener is {listens:?}, the connection {talks:?}");
}

#[test]
fn nobody_connects_to_a_dying_device() {
    for _ in 0..20 {
        let folder = tempfile::tempdir().unwrap();
        let mut device = Device::start(folder.path());
        let mut vmm = connected(folder.path());
        device.0.kill().unwrap();
        let _ = vmm.read(&mut [0]);
        let again = UnixStream::connect(folder.path().join("vhost.sock"));
        assert!(again.is_err(), "it still listens, and its VMM knows that it is gone");
    }
}
