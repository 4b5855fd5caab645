//! What is in a file of conns, for people and for programs.
//!
//! Knows headers and records. Never knows how a table came to be.

use std::io::{self, Write};

use conn_snapshot::{Header, Kind, Record, SavedState};
use fw_model::RuleId;
use serde_json::{Value, json};

use crate::config::{Form, InspectArgs};
use crate::files::{ConnFile, FileError, load_key};

/// Shows a file.
///
/// # Errors
/// It cannot be read, is none, or stdout is gone.
pub fn inspect(args: &InspectArgs, out: &mut impl Write) -> Result<(), FileError> {
    let file = ConnFile::read(&args.file)?;
    let stdout = |error| FileError::Io("stdout".into(), error);
    let Some(key) = &args.state_key else {
        return header(&file.header()?, None, args.output, out).map_err(stdout);
    };
    let key = load_key(key)?;
    let checked = file.check(&key)?;
    header(checked.header(), Some(checked.gone()), args.output, out).map_err(stdout)?;
    checked
        .try_visit(|chunk| {
            for record in &chunk.records {
                let line = conn(record, &chunk.rules);
                match args.output {
                    Form::Json => writeln!(out, "{line}")?,
                    Form::Text => writeln!(out, "{}", text(&line))?,
                }
            }
            for flow in &chunk.gone {
                match args.output {
                    Form::Json => writeln!(out, "{}", json!({"gone": flow}))?,
                    Form::Text => writeln!(out, "gone  {}", serde_json::to_string(flow).unwrap_or_default())?,
                }
            }
            Ok(())
        })
        .map_err(stdout)
}

fn header(header: &Header, gone: Option<u64>, form: Form, out: &mut impl Write) -> io::Result<()> {
    let kind = match header.kind {
        Kind::Whole => "whole",
        Kind::Bulk => "bulk",
        Kind::Delta => "delta",
    };
    let Header { nic, generation, created_ms, handover, records, chunks, body_len, .. } = header;
    if form == Form::Json {
        let value = json!({
            "kind": kind, "nic": nic, "generation": generation, "created_ms": created_ms, "handover": handover.to_string(),
            "conns": records, "gone": gone, "chunks": chunks, "body_bytes": body_len, "believed": gone.is_some(),
        });
        return writeln!(out, "{value}");
    }
    let believed = if gone.is_some() { "authentic" } else { "not checked: give --state-key" };
    writeln!(out, "{kind} table of NIC {nic}, {believed}")?;
    writeln!(
        out,
        "{records} conns in {body_len} bytes, {chunks} chunks; generation {generation}, handover {handover}"
    )
}

/// A conn as an object of plain words; `rules` are the names its place refers to.
pub(crate) fn conn(record: &Record, rules: &[RuleId]) -> Value {
    let Record { flow, opener, state, remaining_ms, .. } = record;
    let rule = record.rule.and_then(|place| rules.get(usize::try_from(place).ok()?));
    let ends = record.tcp.map(|tcp| tcp.ends.map(|end| end.end));
    json!({
        "protocol": flow.protocol.to_string(), "local": flow.local.to_string(), "local_port": flow.local_port,
        "remote": flow.remote.to_string(), "remote_port": flow.remote_port, "vlan": flow.vlan,
        "opener": opener.to_string(), "state": state_name(*state), "rule": rule, "remaining_ms": remaining_ms,
        "sequence": ends,
    })
}

const fn state_name(state: SavedState) -> &'static str {
    match state {
        SavedState::SynSent => "syn-sent",
        SavedState::SynReceived => "syn-received",
        SavedState::Established => "established",
        SavedState::FinWait => "fin-wait",
        SavedState::TimeWait => "time-wait",
        SavedState::Close => "close",
        SavedState::Asked => "asked",
        SavedState::Answered => "answered",
    }
}

pub(crate) fn text(conn: &Value) -> String {
    let word = |name: &str| match conn.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "-".to_owned(),
        Some(other) => other.to_string(),
    };
    format!(
        "{:<6} {} {} -> {} {}  {:<4} {:<12} rule {}  {} s left",
        word("protocol"),
        word("local"),
        word("local_port"),
        word("remote"),
        word("remote_port"),
        word("opener"),
        word("state"),
        word("rule"),
        conn.get("remaining_ms").and_then(Value::as_u64).unwrap_or(0) / 1000,
    )
}
