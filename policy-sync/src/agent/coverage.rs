//! What on this host is not behind the firewall: ports of bridges that no NIC of ours holds, and devices passed through.
//!
//! Knows sysfs. Never knows a policy.

use std::fs;
use std::path::Path;

/// Most findings that are told.
const TOLD_MAX: usize = 256;

/// One line per finding: what it is and where.
pub(crate) fn unprotected() -> Vec<String> {
    unprotected_below(Path::new("/sys"))
}

fn unprotected_below(sys: &Path) -> Vec<String> {
    let mut found = bridge_ports(&sys.join("class/net"));
    found.extend(passed_through(&sys.join("bus/pci/drivers/vfio-pci")));
    found.truncate(TOLD_MAX);
    found
}

/// Taps on bridges that carry no mark of `vhost-fw nic add`: some other program's NIC.
fn bridge_ports(net: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir(net) else { return Vec::new() };
    let port = |device: fs::DirEntry| {
        let path = device.path();
        let bridge = fs::read_link(path.join("brport/bridge")).ok()?;
        let is_tap = path.join("tun_flags").exists();
        let alias = fs::read_to_string(path.join("ifalias")).unwrap_or_default();
        let (device, bridge) = (device.file_name(), bridge.file_name()?.to_owned());
        let ours = alias.to_ascii_lowercase().contains("portcullis");
        (is_tap && !ours).then(|| {
            format!("tap {} on bridge {}: not a NIC of Portcullis", device.display(), bridge.display())
        })
    };
    devices.filter_map(Result::ok).filter_map(port).collect()
}

fn passed_through(driver: &Path) -> Vec<String> {
    let Ok(devices) = fs::read_dir(driver) else { return Vec::new() };
    let names = devices.filter_map(Result::ok).map(|device| device.file_name());
    let is_device = |name: &std::ffi::OsString| name.to_string_lossy().contains(':');
    names
        .filter(is_device)
        .map(|name| format!("PCI device {} is passed through to a VM", name.display()))
        .collect()
}
