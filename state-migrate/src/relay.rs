//! Snapshots from one end to the other, and their answers back.
//!
//! The ends trust each other's key and not what is between them, so this only reads lengths. Knows how long a snapshot and
//! an answer are. Never knows what they say.

use std::io::{self, Read, Write};

use conn_snapshot::{ANSWER_HEAD_LEN, Answer, HEADER_LEN, Header, Sealed};

/// The longest body that is passed on, in bytes: more than any table has.
const BODY_MAX: u64 = 4 << 30;

/// What was passed on.
#[derive(Debug)]
pub(crate) struct Passed {
    /// What the snapshot says of itself, unbelieved.
    pub(crate) header: Header,
    /// What the taker said.
    pub(crate) answer: Answer,
}

/// Passes one snapshot on and its answer back; `None` when the giver has no more.
pub(crate) fn pass_on(
    giver: &mut (impl Read + Write),
    taker: &mut (impl Read + Write),
) -> io::Result<Option<Passed>> {
    let Some(head) = read_header(giver)? else { return Ok(None) };
    let header = Sealed::read(&head).map_err(io::Error::other)?.header;
    if header.body_len > BODY_MAX {
        return Err(io::Error::other(format!("a table of {} bytes is longer than any", header.body_len)));
    }
    taker.write_all(&head)?;
    let copied = io::copy(&mut giver.take(header.body_len), taker)?;
    if copied < header.body_len {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the giver went away within a table"));
    }
    taker.flush()?;
    let (bytes, answer) = read_answer(taker)?;
    giver.write_all(&bytes)?;
    giver.flush()?;
    Ok(Some(Passed { header, answer }))
}

/// A header's bytes; `None` if the giver ended before one.
pub(crate) fn read_header(giver: &mut impl Read) -> io::Result<Option<[u8; HEADER_LEN]>> {
    let mut head = [0; HEADER_LEN];
    let mut first = [0];
    if giver.read(&mut first)? == 0 {
        return Ok(None);
    }
    if let Some((to, rest)) = head.split_first_mut() {
        let [first] = first;
        *to = first;
        giver.read_exact(rest)?;
    }
    Ok(Some(head))
}

/// An answer, and its bytes as they came.
pub(crate) fn read_answer(taker: &mut impl Read) -> io::Result<(Vec<u8>, Answer)> {
    let mut head = [0; ANSWER_HEAD_LEN];
    taker.read_exact(&mut head)?;
    let mut rest = vec![0; Answer::rest_len(head).map_err(io::Error::other)?];
    taker.read_exact(&mut rest)?;
    let answer = Answer::read(head, &rest).map_err(io::Error::other)?;
    Ok(([head.as_slice(), &rest].concat(), answer))
}
