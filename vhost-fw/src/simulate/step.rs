//! One line of steps, read strictly.
//!
//! Knows the four kinds of step. Never knows what they lead to.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;
use std::time::Duration;

use fw_engine::VnetHeader;
use fw_model::Direction;
use serde::Deserialize;

use crate::hex;

/// The longest line, in bytes: far more than the longest frame as hexadecimal text.
const LINE_LEN_MAX: u64 = 4 << 20;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Frame { direction: Direction, bytes: Vec<u8>, vnet: Option<VnetHeader> },
    Wait { ms: u64 },
    Reset,
    Rules { file: PathBuf },
}

/// A line as it is written: the keys of all kinds, of which one kind must be whole.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    from: Option<From>,
    frame: Option<String>,
    vnet: Option<String>,
    wait_s: Option<f64>,
    reset: Option<bool>,
    rules: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum From {
    Guest,
    Net,
}

/// Reads the next line into `text`; `false` at the end.
pub(super) fn read_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<bool> {
    text.clear();
    input.by_ref().take(LINE_LEN_MAX + 1).read_until(b'\n', text)?;
    Ok(!text.is_empty())
}

impl Step {
    /// The step of a line; `None` for an empty line.
    pub(super) fn parse(line: &[u8]) -> Result<Option<Self>, String> {
        if line.len() as u64 > LINE_LEN_MAX {
            return Err(format!("longer than {LINE_LEN_MAX} bytes"));
        }
        if line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let written = serde_json::from_slice(line).map_err(|error| format!("no step: {error}"))?;
        Self::of(written).map(Some)
    }

    fn of(written: Written) -> Result<Self, String> {
        match written {
            Written {
                from: Some(from),
                frame: Some(frame),
                vnet,
                wait_s: None,
                reset: None,
                rules: None,
            } => Self::frame(&from, &frame, vnet.as_deref()),
            Written { from: None, frame: None, vnet: None, wait_s: Some(s), reset: None, rules: None } => {
                let wait =
                    Duration::try_from_secs_f64(s).map_err(|_| "`wait_s` must be 0 or more".to_owned())?;
                Ok(Self::Wait { ms: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX) })
            }
            Written { from: None, frame: None, vnet: None, wait_s: None, reset: Some(true), rules: None } => {
                Ok(Self::Reset)
            }
            Written { from: None, frame: None, vnet: None, wait_s: None, reset: None, rules: Some(file) } => {
                Ok(Self::Rules { file })
            }
            Written { .. } => Err("no step: expected {\"from\", \"frame\"} and perhaps \"vnet\", or one of \
                                   {\"wait_s\"}, {\"reset\": true}, {\"rules\"}"
                .to_owned()),
        }
    }

    fn frame(from: &From, frame: &str, vnet: Option<&str>) -> Result<Self, String> {
        let direction = match from {
            From::Guest => Direction::Out,
            From::Net => Direction::In,
        };
        let bytes = hex::decode(frame).ok_or("`frame` must be pairs of hexadecimal digits")?;
        let vnet = match vnet {
            Some(vnet) => {
                let header: Option<[u8; VnetHeader::LEN]> =
                    hex::decode(vnet).and_then(|bytes| bytes.try_into().ok());
                let header = header.ok_or("`vnet` must be 24 hexadecimal digits")?;
                Some(VnetHeader::from_bytes(header))
            }
            None => None,
        };
        Ok(Self::Frame { direction, bytes, vnet })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_step_is_read() {
        let parse = |text: &str| Step::parse(text.as_bytes()).unwrap().unwrap();
        let frame = Step::Frame { direction: Direction::Out, bytes: vec![0xab], vnet: None };
        assert_eq!(parse(r#"{"from":"guest","frame":"AB"}"#), frame);
        assert_eq!(parse(r#"{"wait_s":1.5}"#), Step::Wait { ms: 1500 });
        assert_eq!(parse(r#"{"reset":true}"#), Step::Reset);
        assert_eq!(parse(r#"{"rules":"b.yaml"}"#), Step::Rules { file: "b.yaml".into() });
        assert_eq!(Step::parse(b" \r\n"), Ok(None));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "{}",
            "[]",
            "x",
            r#"{"from":"guest"}"#,
            r#"{"from":"host","frame":""}"#,
            r#"{"from":"guest","frame":"0"}"#,
            r#"{"from":"guest","frame":"00","vnet":"00"}"#,
            r#"{"from":"guest","frame":"00","wait_s":1}"#,
            r#"{"wait_s":-1}"#,
            r#"{"wait_s":1e300}"#,
            r#"{"reset":false}"#,
            r#"{"reset":true,"rules":"x"}"#,
            r#"{"frame":"00","form":"guest"}"#,
            r#"{"reset":true} {"reset":true}"#,
        ] {
            assert!(Step::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
