//! Two hosts and the network between them: namespaces, each with its own mounts, a bridge and an uplink to ours.
//!
//! It may know `ip`. It must never know what runs on the hosts.

use std::fs;

use anyhow::{Context, Result};

use crate::host::{BRIDGE, HOST_V4, ip};
use crate::process::run;

/// The hosts' names, which are their namespaces'.
pub(super) const HOSTS: [&str; 2] = ["host-a", "host-b"];

/// Makes both hosts and the network where the peers are: our own namespace, which [`crate::host::enter`] made.
///
/// # Errors
/// A network command fails; each says what.
pub fn make() -> Result<()> {
    // Names of namespaces are mounts below /run: ours alone, and gone with us.
    run("mount", &["-t", "tmpfs", "hosts", "/run"]).context("mounting a place for namespaces")?;
    fs::create_dir_all("/run/netns")?;
    ip("link set lo up")?;
    ip(&format!("link add {BRIDGE} type bridge"))?;
    ip(&format!("addr add {HOST_V4}/24 dev {BRIDGE}"))?;
    ip(&format!("link set {BRIDGE} up"))?;
    for (host, cable) in HOSTS.into_iter().zip(["ca", "cb"]) {
        ip(&format!("netns add {host}"))?;
        ip(&format!("link add {cable} type veth peer name wire netns {host}"))?;
        ip(&format!("link set {cable} master {BRIDGE}"))?;
        ip(&format!("link set {cable} up"))?;
        ip(&format!("-n {host} link set lo up"))?;
        ip(&format!("-n {host} link add {BRIDGE} type bridge"))?;
        ip(&format!("-n {host} link set wire master {BRIDGE}"))?;
        ip(&format!("-n {host} link set wire up"))?;
        ip(&format!("-n {host} link set {BRIDGE} up"))?;
    }
    Ok(())
}

/// The tap on each host's bridge for a guest without a firewall.
pub(super) const TAP: &str = "bare";

/// Makes [`TAP`] on both hosts where it is not yet.
///
/// # Errors
/// A network command fails.
pub(super) fn make_taps() -> Result<()> {
    for host in HOSTS {
        if ip(&format!("-n {host} link show {TAP}")).is_ok() {
            continue;
        }
        ip(&format!("-n {host} tuntap add {TAP} mode tap vnet_hdr"))?;
        ip(&format!("-n {host} link set {TAP} master {BRIDGE}"))?;
        ip(&format!("-n {host} link set {TAP} up"))?;
    }
    Ok(())
}
