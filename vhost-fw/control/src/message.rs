//! Messages on the control socket: a length, then JSON of the protocol's version and the message.
//!
//! Length is a little-endian u32 that does not count itself. Knows bytes. Never knows what a message asks.

use std::io::{self, Read, Write};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::PROTOCOL_VERSION;

/// The longest message: rules with a million members.
pub const LEN_MAX: usize = 256 << 20;

/// Bytes of the length.
pub const PREFIX: usize = 4;

/// `message` as it stands on the wire.
///
/// # Errors
/// It is longer than [`LEN_MAX`].
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; PREFIX];
    serde_json::to_writer(&mut bytes, &(PROTOCOL_VERSION, message))?;
    let length = bytes.len() - PREFIX;
    let written = u32::try_from(length).ok().filter(|_| length <= LEN_MAX);
    let prefix = written.ok_or_else(|| io::Error::other("the message is too long"))?.to_le_bytes();
    bytes.splice(..PREFIX, prefix);
    Ok(bytes)
}

/// The length that `bytes` announce; `None` until it is there.
#[must_use]
pub fn announced(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|length| usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX))
}

/// Reads the JSON of a message.
///
/// # Errors
/// It is none, or of another version; the text says which.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T, String> {
    match serde_json::from_slice::<(u16, T)>(json) {
        Ok((PROTOCOL_VERSION, message)) => Ok(message),
        Ok((version, _)) => Err(other_version(version)),
        // What another version says need not be readable at all.
        Err(error) => match serde_json::from_slice::<Versioned>(json) {
            Ok(Versioned(version, IgnoredAny)) if version != PROTOCOL_VERSION => Err(other_version(version)),
            _ => Err(format!("not understood: {error}")),
        },
    }
}

#[derive(Deserialize)]
struct Versioned(u16, IgnoredAny);

fn other_version(version: u16) -> String {
    format!("this program speaks version {PROTOCOL_VERSION} of the control protocol, the other end {version}")
}

/// Asks, and waits for the answer.
///
/// # Errors
/// The other end went away, or its answer is not understood.
pub fn exchange<T: DeserializeOwned>(
    stream: &mut (impl Read + Write),
    request: &impl Serialize,
) -> io::Result<T> {
    // Who is turned away may be told so before the request is out: read first, complain then.
    let sent = stream.write_all(&encode(request)?);
    match receive(stream, LEN_MAX) {
        Ok(Some(answer)) => answer.map_err(io::Error::other),
        Ok(None) => Err(sent.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

/// The next message, of `len_max` bytes at most; `None` when the other end has no more.
///
/// # Errors
/// The other end went away within a message, or its message is too long; what is in it may still not be understood.
pub fn receive<T: DeserializeOwned>(
    stream: &mut impl Read,
    len_max: usize,
) -> io::Result<Option<Result<T, String>>> {
    let mut prefix = Vec::new();
    stream.take(PREFIX as u64).read_to_end(&mut prefix)?;
    if prefix.is_empty() {
        return Ok(None);
    }
    let length = announced(&prefix).ok_or(io::ErrorKind::UnexpectedEof)?;
    if length > len_max {
        return Err(io::Error::other(format!("a message of {length} bytes, and {len_max} are taken")));
    }
    let mut json = Vec::new();
    stream.take(length as u64).read_to_end(&mut json)?;
    Ok(Some(decode(&json)))
}
