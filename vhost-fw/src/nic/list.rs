//! The NICs of a host, as a table or as JSON.
//!
//! Knows what was added and asks each NIC whether it lives. Never changes anything.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fw_control::{Line, Reply, Request, control_in};
use fw_model::NicId;
use serde::Serialize;

use super::record::Record;
use super::{NicError, at, folder};
use crate::config::Form;
use crate::ctl::table::write_table;
use crate::uplink::persistent;

/// A NIC that is busy for longer is shown as running, of unknown generation.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Row {
    id: NicId,
    user: u32,
    tap: String,
    /// Whether the tap is there.
    tap_present: bool,
    bridge: Option<String>,
    socket: PathBuf,
    running: bool,
    /// The generation of the rules in force, if it runs and has any.
    generation: Option<u64>,
}

/// Writes what there is.
pub(super) fn write(run_dir: &Path, form: Form, out: &mut impl Write) -> Result<(), NicError> {
    let taps = persistent::all().map_err(at("rtnetlink"))?;
    let mut rows = Vec::new();
    for made in Record::all(run_dir)? {
        let place = made.folder(run_dir);
        rows.push(Row {
            user: made.uid,
            tap_present: taps.contains(&(made.tap.clone(), made.nic.clone())),
            socket: made.socket(run_dir),
            running: folder::is_inhabited(&place).unwrap_or(false),
            generation: generation(&control_in(run_dir, &made.nic)),
            id: made.nic,
            tap: made.tap,
            bridge: made.bridge,
        });
    }
    let written = match form {
        Form::Json => {
            serde_json::to_writer(&mut *out, &rows).map_err(Into::into).and_then(|()| out.write_all(b"\n"))
        }
        Form::Text => write_table(
            ["NIC", "USER", "TAP", "BRIDGE", "SOCKET", "STATE", "GENERATION"],
            rows.into_iter().map(cells),
            out,
        ),
    };
    written.map_err(at("stdout"))
}

fn cells(row: Row) -> [String; 7] {
    let nothing = || "-".to_owned();
    [
        row.id.to_string(),
        row.user.to_string(),
        if row.tap_present { row.tap } else { format!("{} (missing)", row.tap) },
        row.bridge.unwrap_or_else(nothing),
        row.socket.display().to_string(),
        if row.running { "running" } else { "stopped" }.to_owned(),
        row.generation.map_or_else(nothing, |generation| generation.to_string()),
    ]
}

fn generation(control: &Path) -> Option<u64> {
    let reply = Line::open(control, PATIENCE).ok()?.ask(&Request::Stats).ok()?;
    if let Reply::Stats(stats) = reply { stats.enforced } else { None }
}
