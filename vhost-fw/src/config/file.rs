//! The file of `--config`: the device's flags as YAML keys.
//!
//! Knows how each key is written. Never knows which settings belong together.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::DeviceArgs;
use crate::uplink::UplinkChoice;
use fw_document::problems::Problems;
use fw_document::read::{self, Fields};
use fw_document::tree::{self, Node, Value};
use fw_document::{DocumentError, text_of};

const KEYS: &[&str] = &[
    "socket",
    "client",
    "tap",
    "bridge",
    "tap-fd",
    "uplink",
    "nic",
    "rules",
    "control",
    "run-dir",
    "queues",
    "queue-size",
    "mac",
    "mtu",
    "max-connections",
    "state-key",
    "state-dir",
    "restore",
    "keeper",
    "poll",
    "pin",
    "decision-log",
    "log-level",
    "allow-missing-sandbox",
];

pub(super) fn load(path: &Path) -> Result<DeviceArgs, DocumentError> {
    let name = path.display().to_string();
    parse(&text_of(File::open(path), &name)?, &name)
}

pub(super) fn parse(text: &str, name: &str) -> Result<DeviceArgs, DocumentError> {
    let mut problems = Problems::default();
    let args = tree::read(text, &mut problems).and_then(|document| settings(&document, &mut problems));
    match args {
        Some(args) if problems.is_empty() => Ok(args),
        _ => Err(problems.into_error(name)),
    }
}

fn settings(document: &Node<'_>, problems: &mut Problems) -> Option<DeviceArgs> {
    let fields = Fields::read(document, "a config file", KEYS, problems)?;
    let socket = path(&fields, "socket", problems);
    let rules = path(&fields, "rules", problems);
    let control = path(&fields, "control", problems);
    let run_dir = path(&fields, "run-dir", problems);
    let state_key = path(&fields, "state-key", problems);
    let state_dir = path(&fields, "state-dir", problems);
    let decision_log = path(&fields, "decision-log", problems);
    let client = fields.get("client").and_then(|node| read::boolean(node, "client", problems));
    let poll = fields.get("poll").and_then(|node| read::boolean(node, "poll", problems));
    let keeper = fields.get("keeper").and_then(|node| read::boolean(node, "keeper", problems));
    let open = fields.get("allow-missing-sandbox");
    let open = open.and_then(|node| read::boolean(node, "allow-missing-sandbox", problems));
    let tap_fd =
        fields.get("tap-fd").and_then(|node| read::number(node, "tap-fd", 3_u16, u16::MAX, problems));
    let mut sixteen = |key| fields.get(key).and_then(|node| read::number(node, key, 0, u16::MAX, problems));
    let (queues, queue_size) = (sixteen("queues"), sixteen("queue-size"));
    let (mtu, pin) = (sixteen("mtu"), sixteen("pin"));
    let max_connections = fields
        .get("max-connections")
        .and_then(|node| read::number(node, "max-connections", 1, u32::MAX, problems));
    let uplink = fields.get("uplink").and_then(|node| uplink(node, problems));
    Some(DeviceArgs {
        socket,
        client: client.unwrap_or_default(),
        tap: text(&fields, "tap", "a tap's name", problems),
        bridge: text(&fields, "bridge", "a bridge's name", problems),
        tap_fd: tap_fd.map(i32::from),
        uplink,
        nic: fields.get("nic").and_then(|node| read::parsed(node, "nic", "a NIC's name", problems)),
        rules,
        control,
        run_dir,
        queues,
        queue_size,
        mac: fields.get("mac").and_then(|node| read::parsed(node, "mac", "a MAC address", problems)),
        mtu,
        max_connections,
        state_key,
        state_dir,
        restore: fields
            .get("restore")
            .and_then(|node| read::parsed(node, "restore", "revalidate, refuse or empty", problems)),
        keeper: keeper.unwrap_or_default(),
        kept: false,
        poll: poll.unwrap_or_default(),
        pin,
        decision_log,
        log_level: fields
            .get("log-level")
            .and_then(|node| read::parsed(node, "log-level", "a level", problems)),
        allow_missing_sandbox: open.unwrap_or_default(),
        config: None,
        check: false,
    })
}

fn text(fields: &Fields<'_, '_>, key: &str, expected: &str, problems: &mut Problems) -> Option<String> {
    fields.get(key).and_then(|node| read::parsed(node, key, expected, problems))
}

fn path(fields: &Fields<'_, '_>, key: &str, problems: &mut Problems) -> Option<PathBuf> {
    text(fields, key, "a path", problems).map(PathBuf::from)
}

/// `null` without quotes is YAML's nothing, and what people will write.
fn uplink(node: &Node<'_>, problems: &mut Problems) -> Option<UplinkChoice> {
    if let Value::Nothing = node.value {
        return Some(UplinkChoice::Null);
    }
    read::parsed(node, "uplink", "null or unix:PATH", problems)
}
