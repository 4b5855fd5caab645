//! What the verbs that ask serve have in common: the token, the way there, and a table for people.
//!
//! Knows flags and rows. Never knows what is asked.

use std::fs;
use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::Value;

use crate::client::{Client, ClientError};
use crate::config::Form;
use crate::config::remote::Asking;

/// What is escaped in a word: all but the unreserved characters of RFC 3986, section 2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-').remove(b'~');

/// Why a verb did not do what it says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct VerbError(pub(crate) String);

impl From<ClientError> for VerbError {
    fn from(error: ClientError) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for VerbError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

impl Asking {
    pub(crate) fn client(&self) -> Result<Client, VerbError> {
        let path = &self.token_file;
        let token = fs::read_to_string(path).map_err(|error| {
            VerbError(format!("{}: {error} (--token-file, PORTCULLIS_TOKEN_FILE)", path.display()))
        })?;
        let token = Some(token.trim().to_owned());
        Ok(Client { serve: self.serve.clone(), authority: self.ca.clone(), token })
    }
}

/// A word of the operator's, as a part of a path or query.
pub(crate) fn escaped(word: &str) -> PercentEncode<'_> {
    utf8_percent_encode(word, ESCAPED)
}

/// Runs what asks, on this thread.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> Result<T, VerbError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work))
}

/// Writes rows for machines as they are, for people as a table of `columns`.
pub(crate) fn show(
    out: &mut impl Write,
    form: Form,
    rows: &Value,
    columns: &[&str],
) -> Result<ExitCode, VerbError> {
    if form == Form::Json {
        writeln!(out, "{rows}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let cells = |row: &Value| columns.iter().map(|column| cell(row, column)).collect::<Vec<_>>();
    let title = columns.iter().map(|column| column.to_uppercase()).collect();
    let rows = rows.as_array().into_iter().flatten().map(cells);
    let lines: Vec<Vec<String>> = std::iter::once(title).chain(rows).collect();
    let width =
        |place: usize| lines.iter().filter_map(|line| line.get(place)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cell(row: &Value, column: &str) -> String {
    match row.get(column) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Number(number)) if column.ends_with("_ms") => number
            .as_i64()
            .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
            .map_or_else(|| number.to_string(), |moment| moment.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        Some(Value::Array(list)) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Some(Value::Null | Value::String(_)) | None => "-".to_owned(),
        Some(value) => value.to_string(),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}
