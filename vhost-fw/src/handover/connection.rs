//! A control connection that has become a handover's: tables go out on it or come in, while the VM runs or rests.
//!
//! Each connection has a thread of its own; snapshots go one way and answers the other, one at a time. Whoever is slow or
//! goes away ends this and nothing else. Knows the order of things said. Never knows what a snapshot says.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Duration;

use conn_snapshot::{ANSWER_HEAD_LEN, Answer, Snapshot};
use fw_control::Request;
use fw_model::HandoverId;

use super::leaving::Round;
use super::patient::Patient;
use super::transfer::read_one;
use super::{Handover, HandoverError};

/// From one look at what has changed to the next.
const ROUND: Duration = Duration::from_millis(100);

/// Bytes of a refused snapshot that are still taken, so that its giver reads why.
const UNREAD_MAX: u64 = 1 << 30;

type Line = Patient<UnixStream>;

impl Handover {
    /// Serves what `request` asked for on its connection, in a thread of its own; a request that asks for none is not
    /// served.
    ///
    /// # Errors
    /// The thread does not start.
    pub fn serve(self: &Arc<Self>, request: Request, stream: UnixStream) -> io::Result<()> {
        let handover = Arc::clone(self);
        let work = move || {
            if let Err(error) = Patient::new(stream).and_then(|line| handover.converse(request, line)) {
                log::warn!("a conn table on its way: {error}");
            }
        };
        Builder::new().name("handover".to_owned()).spawn(work).map(drop)
    }

    fn converse(&self, request: Request, mut line: Line) -> io::Result<()> {
        match request {
            Request::SendAhead(id) => {
                let sent = send_ahead(self, id, &mut line);
                self.end_ahead(id).map_err(io::Error::other).and(sent)
            }
            Request::ReceiveAhead(_) => receive_ahead(self, &mut line),
            Request::Export => export(self, &mut line),
            Request::Import => import(self, &mut line),
            Request::Install(_)
            | Request::Advance(_)
            | Request::Stats
            | Request::Conns(_)
            | Request::Kill(_)
            | Request::Explain(_)
            | Request::Freeze
            | Request::Thaw
            | Request::AnnounceHandover(_)
            | Request::ExpectHandover(_)
            | Request::Upgrade
            | Request::CancelHandover
            | Request::Terms => Ok(()),
        }
    }
}

/// Sends the table, then in rounds what changes, until it has left with its VM or the other side goes.
fn send_ahead(handover: &Handover, id: HandoverId, line: &mut Line) -> io::Result<()> {
    let table = handover.begin_ahead(id).map_err(io::Error::other)?;
    log::info!("{} conns go ahead in {} bytes, handover {id}", table.header.records, table.bytes.len());
    give(handover, id, &table, line)?;
    // Nothing is said in the other direction: what can be read is an end.
    while !line.is_readable(Some(ROUND))? {
        match handover.next_round(id).map_err(io::Error::other)? {
            Round::News(news) => give(handover, id, &news, line)?,
            Round::Nothing => {}
            Round::Over => break,
        }
    }
    Ok(())
}

fn give(handover: &Handover, id: HandoverId, snapshot: &Snapshot, line: &mut Line) -> io::Result<()> {
    line.write_all(&snapshot.bytes)?;
    match answer(line)? {
        Answer::Taken(code) if code == snapshot.code => handover.taken(id, code),
        Answer::Taken(_) => {
            return Err(io::Error::other("the other side took another snapshot than was sent"));
        }
        Answer::Refused(cause) => return Err(io::Error::other(format!("the other side refuses: {cause}"))),
    }
    Ok(())
}

fn answer(line: &mut Line) -> io::Result<Answer> {
    let mut head = [0; ANSWER_HEAD_LEN];
    line.read_exact(&mut head)?;
    let mut rest = vec![0; Answer::rest_len(head).map_err(io::Error::other)?];
    line.read_exact(&mut rest)?;
    Answer::read(head, &rest).map_err(io::Error::other)
}

/// Takes a table and what is new of it, until the other side has no more.
fn receive_ahead(handover: &Handover, line: &mut Line) -> io::Result<()> {
    while let Some(bytes) = next(handover, line)? {
        reply(handover.stage(&bytes), line)?;
    }
    Ok(())
}

/// The next snapshot; `None` when there is no more. It is waited for as long as the other side stays: a table in which
/// nothing changes is nothing to send.
fn next(handover: &Handover, line: &mut Line) -> io::Result<Option<Vec<u8>>> {
    line.is_readable(None)?;
    let mut first = [0];
    if line.read(&mut first)? == 0 {
        return Ok(None);
    }
    let mut input = first.as_slice().chain(&mut *line);
    match read_one(&mut input, handover) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) => {
            line.write_all(&Answer::Refused(error.to_string()).bytes())?;
            // A socket that closes with bytes unread takes its answer back.
            let _ = io::copy(&mut line.take(UNREAD_MAX), &mut io::sink());
            Err(error)
        }
    }
}

fn export(handover: &Handover, line: &mut Line) -> io::Result<()> {
    line.write_all(&handover.export().map_err(io::Error::other)?)
}

fn import(handover: &Handover, line: &mut Line) -> io::Result<()> {
    match next(handover, line)? {
        Some(bytes) => reply(handover.import(&bytes), line),
        None => Ok(()),
    }
}

/// Tells the other side what became of its snapshot; a refusal ends the connection.
fn reply(taken: Result<[u8; 32], HandoverError>, line: &mut Line) -> io::Result<()> {
    match taken {
        Ok(code) => line.write_all(&Answer::Taken(code).bytes()),
        Err(error) => {
            line.write_all(&Answer::Refused(error.to_string()).bytes())?;
            Err(io::Error::other(error))
        }
    }
}
