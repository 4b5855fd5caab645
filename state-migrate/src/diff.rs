//! How two files of conns differ.
//!
//! A conn that only grew older, or whose windows moved, is the same conn. Knows records. Never knows which file is right.

use std::collections::BTreeMap;
use std::io::Write;

use fw_model::FlowKey;
use serde_json::{Value, json};

use crate::config::{DiffArgs, Form};
use crate::files::{ConnFile, FileError, load_key};
use crate::inspect;

/// Shows what differs, and says whether anything does.
///
/// # Errors
/// A file cannot be read or believed, or stdout is gone.
pub fn diff(args: &DiffArgs, out: &mut impl Write) -> Result<bool, FileError> {
    let key = load_key(&args.state_key)?;
    let (before, after) = (ConnFile::read(&args.before)?, ConnFile::read(&args.after)?);
    let before = conns(&before, &key)?;
    let mut after = conns(&after, &key)?;
    let mut differs = false;
    let mut say = |sign: &str, conn: &Value| {
        differs = true;
        let said = match args.output {
            Form::Json => writeln!(out, "{}", json!({"change": sign, "conn": conn})),
            Form::Text => writeln!(out, "{sign} {}", inspect::text(conn)),
        };
        said.map_err(|error| FileError::Io("stdout".into(), error))
    };
    for (flow, was) in before {
        match after.remove(&flow) {
            None => say("-", &was)?,
            Some(is) if standing(&is) != standing(&was) => {
                say("-", &was)?;
                say("+", &is)?;
            }
            Some(_) => {}
        }
    }
    for is in after.values() {
        say("+", is)?;
    }
    Ok(differs)
}

fn conns(file: &ConnFile, key: &conn_snapshot::Key) -> Result<BTreeMap<FlowKey, Value>, FileError> {
    let mut conns = BTreeMap::new();
    file.check(key)?.visit(|chunk| {
        conns.extend(chunk.records.iter().map(|record| (record.flow, inspect::conn(record, &chunk.rules))));
    });
    Ok(conns)
}

/// What makes a conn another one.
fn standing(conn: &Value) -> [Option<&Value>; 3] {
    ["opener", "state", "rule"].map(|name| conn.get(name))
}
