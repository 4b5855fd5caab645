//! The kernel, KVM, taps, bridges and NICs of this host.
//!
//! Knows sysfs, procfs and control sockets. Never knows a policy.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use fw_control::{Line, Reply, Request, SOCKET};

use super::Finding;

/// The first kernel with Landlock, without which `vhost-fw` refuses to start.
const KERNEL: (u32, u32) = (5, 13);
/// How long a NIC's answer is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// What sends a bridge's frames through the host's own firewall, too.
const TRAPS: [&str; 3] = ["iptables", "ip6tables", "arptables"];

/// Looks at the host whose root folder is `root`.
pub(super) fn findings(root: &Path, run_dir: &Path) -> Vec<Finding> {
    let mut found = vec![kernel(root), kvm(&root.join("dev/kvm")), tun(&root.join("dev/net/tun"))];
    found.extend(bridges(root));
    found.extend(nics(run_dir));
    found
}

fn kernel(root: &Path) -> Finding {
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    match numbers.next().zip(numbers.next()) {
        Some(version) if version >= KERNEL => Finding::ok("kernel", format!("Linux {release}")),
        _ => Finding::wrong(
            "kernel",
            format!("Linux {release}"),
            format!("take {}.{} or newer: older ones have no Landlock for the sandbox", KERNEL.0, KERNEL.1),
        ),
    }
}

fn kvm(device: &Path) -> Finding {
    let remedy = "VMs run in emulation, slowly: load kvm_intel or kvm_amd, and let the VMM's user open it";
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Finding::ok("kvm", format!("{} opens", device.display())),
        Err(error) => Finding::note("kvm", format!("{}: {error}", device.display()), remedy),
    }
}

fn tun(device: &Path) -> Finding {
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Finding::ok("taps", format!("{} opens", device.display())),
        Err(error) => {
            let remedy = if error.kind() == ErrorKind::NotFound {
                "load the module `tun`; without taps `--uplink unix:` is all there is"
            } else {
                "run as root, or make taps with `vhost-fw nic add` as root"
            };
            Finding::wrong("taps", format!("{}: {error}", device.display()), remedy)
        }
    }
}

/// `br_netfilter` hands a bridge's frames to the host's own firewall: it drops what our rules let pass, and its conntrack fills.
fn bridges(root: &Path) -> Vec<Finding> {
    let net = root.join("sys/class/net");
    let devices = fs::read_dir(&net).into_iter().flatten().filter_map(Result::ok);
    let bridges: Vec<_> = devices.filter(|device| device.path().join("bridge").is_dir()).collect();
    let is_on = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    let mut found = Vec::new();
    for trap in TRAPS {
        let all = root.join(format!("proc/sys/net/bridge/bridge-nf-call-{trap}"));
        if is_on(&all) {
            let told = format!("br_netfilter sends every bridge's frames through the host's {trap}");
            let remedy = format!("sysctl -w net.bridge.bridge-nf-call-{trap}=0, or unload br_netfilter");
            found.push(if bridges.is_empty() {
                Finding::note("bridges", told, remedy)
            } else {
                Finding::wrong("bridges", told, remedy)
            });
        }
        for bridge in &bridges {
            if is_on(&bridge.path().join(format!("bridge/nf_call_{trap}"))) {
                let name = bridge.file_name();
                let name = name.display();
                found.push(Finding::wrong(
                    "bridges",
                    format!("bridge {name} sends its frames through the host's {trap}"),
                    format!("echo 0 > /sys/class/net/{name}/bridge/nf_call_{trap}"),
                ));
            }
        }
    }
    if found.is_empty() {
        let count = bridges.len();
        found.push(Finding::ok("bridges", format!("{count}; none goes through the host's own firewall")));
    }
    found
}

/// Every NIC with a folder here is asked what it enforces.
fn nics(run_dir: &Path) -> Vec<Finding> {
    let folders = match fs::read_dir(run_dir) {
        Ok(folders) => folders,
        Err(error) => {
            let remedy =
                "nothing, if this host has no NICs of Portcullis; else name their folder with --run-dir";
            return vec![Finding::note("nics", format!("{}: {error}", run_dir.display()), remedy)];
        }
    };
    let folders = folders.filter_map(Result::ok).filter(|folder| folder.path().is_dir());
    folders.map(|folder| nic(&folder.path(), &folder.file_name().to_string_lossy())).collect()
}

fn nic(folder: &Path, name: &str) -> Finding {
    let socket = folder.join(SOCKET);
    let asked = Line::open(&socket, PATIENCE).and_then(|mut line| line.ask(&Request::Stats));
    match asked {
        Ok(Reply::Stats(stats)) => match stats.enforced {
            Some(_) if stats.frozen => {
                Finding::note("nics", format!("{name} is frozen"), format!("vhost-fw ctl --nic {name} thaw"))
            }
            Some(generation) => Finding::ok("nics", format!("{name} enforces generation {generation}")),
            None => Finding::wrong(
                "nics",
                format!("{name} has no rules yet: it is closed"),
                "see that the agent runs here and that the policy names this NIC",
            ),
        },
        Ok(_) => Finding::wrong(
            "nics",
            format!("{name} gave no answer to what was asked"),
            "bring both to one version",
        ),
        Err(error) => Finding::wrong(
            "nics",
            format!("{name} does not answer: {}: {error}", socket.display()),
            "start its vhost-fw, or remove what is left with `vhost-fw nic gc`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn a_bridge_that_goes_through_the_hosts_firewall_is_wrong() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/sys/kernel/osrelease", "6.1.0-13-amd64\n");
        write("sys/class/net/br0/bridge/nf_call_iptables", "0\n");
        assert_eq!(kernel(root.path()).state, State::Ok);
        assert_eq!(bridges(root.path())[0].state, State::Ok);
        write("sys/class/net/br0/bridge/nf_call_ip6tables", "1\n");
        write("proc/sys/net/bridge/bridge-nf-call-iptables", "1\n");
        let found = bridges(root.path());
        assert!(found.len() == 2 && found.iter().all(|finding| finding.state == State::Wrong), "{found:?}");
        write("proc/sys/kernel/osrelease", "5.10.0-20-amd64\n");
        assert_eq!(kernel(root.path()).state, State::Wrong);
        assert_eq!(tun(&root.path().join("dev/net/tun")).state, State::Wrong);
    }

    #[test]
    fn a_nic_that_does_not_answer_is_named() {
        let run = tempfile::tempdir().unwrap();
        fs::create_dir(run.path().join("web-1")).unwrap();
        let found = nics(run.path());
        assert!(
            found[0].state == State::Wrong && found[0].found.contains("web-1 does not answer"),
            "{found:?}"
        );
    }
}
