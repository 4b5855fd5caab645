//! A learning switch in user space, for machines where nobody may make a tap.
//!
//! It joins the `unix:` uplinks of several firewalls: each record is a 12-byte virtio-net header and a frame, and goes
//! on as it came. It may know MAC addresses. It must never change or judge a frame.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// A record: the virtio-net header, an Ethernet header and the largest GSO frame.
const RECORD: usize = 12 + 14 + 65_536;
/// Addresses learned at most; beyond that new ones are flooded.
const LEARNED: usize = 1024;
const VNET_HEADER: usize = 12;

type Mac = [u8; 6];

struct Port {
    path: PathBuf,
    line: Option<OwnedFd>,
}

/// Joins the uplinks at `paths` until it is killed. An uplink that goes away is sought again.
///
/// # Errors
/// The machine has no such sockets, or waiting fails.
pub fn run(paths: Vec<PathBuf>) -> Result<()> {
    let mut ports: Vec<Port> = paths.into_iter().map(|path| Port { path, line: None }).collect();
    let mut places = HashMap::new();
    let mut record = vec![0; RECORD];
    loop {
        for port in &mut ports {
            if port.line.is_none() {
                port.line = plug(&port.path)?;
            }
        }
        for arrived in readable(&ports)? {
            forward_waiting(arrived, &mut ports, &mut places, &mut record);
        }
    }
}

/// The line to an uplink; `None` while nobody listens there.
fn plug(path: &PathBuf) -> Result<Option<OwnedFd>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let line = net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let address = SocketAddrUnix::new(path).with_context(|| path.display().to_string())?;
    Ok(net::connect(&line, &address).is_ok().then_some(line))
}

/// Ports with something to read, after waiting for one for at most 200 ms.
fn readable(ports: &[Port]) -> Result<Vec<usize>> {
    let plugged: Vec<usize> = (0..ports.len()).filter(|port| line(ports, *port).is_some()).collect();
    let mut lines: Vec<PollFd<'_>> = plugged
        .iter()
        .filter_map(|port| line(ports, *port))
        .map(|line| PollFd::new(line, PollFlags::IN))
        .collect();
    let patience = Timespec::try_from(Duration::from_millis(200)).context("200 ms are no time")?;
    match poll(&mut lines, Some(&patience)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(plugged
        .into_iter()
        .zip(lines)
        .filter(|(_, line)| !line.revents().is_empty())
        .map(|(port, _)| port)
        .collect())
}

fn line(ports: &[Port], port: usize) -> Option<&OwnedFd> {
    ports.get(port)?.line.as_ref()
}

/// Forwards up to 64 records of one port, so that no port starves another.
fn forward_waiting(arrived: usize, ports: &mut [Port], places: &mut HashMap<Mac, usize>, record: &mut [u8]) {
    for _ in 0..64 {
        let Some(from) = line(ports, arrived) else { return };
        match net::recv(from, &mut *record, RecvFlags::empty()) {
            Ok((1.., length)) => {
                let Some(record) = record.get(..length) else { continue };
                for port in destinations(record, arrived, ports.len(), places) {
                    // A full line drops the record, as a wire would.
                    line(ports, port).map(|to| net::send(to, record, SendFlags::NOSIGNAL));
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => return,
            Ok(_) | Err(_) => {
                if let Some(port) = ports.get_mut(arrived) {
                    port.line = None;
                }
                return;
            }
        }
    }
}

/// Learns where the sender is, and says where its frame goes.
fn destinations(record: &[u8], arrived: usize, ports: usize, places: &mut HashMap<Mac, usize>) -> Vec<usize> {
    let Some((to, rest)) = record.get(VNET_HEADER..).and_then(|frame| frame.split_first_chunk::<6>()) else {
        return Vec::new();
    };
    let Some(from) = rest.first_chunk::<6>() else { return Vec::new() };
    if !is_group(from) && (places.len() < LEARNED || places.contains_key(from)) {
        places.insert(*from, arrived);
    }
    match places.get(to).filter(|_| !is_group(to)) {
        Some(place) if *place == arrived => Vec::new(),
        Some(place) => vec![*place],
        None => (0..ports).filter(|port| *port != arrived).collect(),
    }
}

fn is_group(mac: &Mac) -> bool {
    mac.first().is_some_and(|first| first & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(to: Mac, from: Mac) -> Vec<u8> {
        [&[0; VNET_HEADER][..], &to, &from, &[8, 0]].concat()
    }

    const A: Mac = [2, 0, 0, 0, 0, 1];
    const B: Mac = [2, 0, 0, 0, 0, 2];
    const ALL: Mac = [0xff; 6];

    #[test]
    fn unknown_and_group_addresses_go_everywhere_else() {
        let mut places = HashMap::new();
        assert_eq!(destinations(&record(B, A), 0, 3, &mut places), [1, 2]);
        assert_eq!(destinations(&record(ALL, B), 1, 3, &mut places), [0, 2]);
    }

    #[test]
    fn a_learned_address_gets_its_frames_alone() {
        let mut places = HashMap::new();
        destinations(&record(ALL, B), 1, 3, &mut places);
        assert_eq!(destinations(&record(B, A), 0, 3, &mut places), [1]);
        assert_eq!(destinations(&record(B, A), 1, 3, &mut places), [0_usize; 0]);
    }

    #[test]
    fn a_record_without_addresses_goes_nowhere() {
        assert_eq!(destinations(&[0; 20], 0, 3, &mut HashMap::new()), [0_usize; 0]);
    }

    #[test]
    fn a_group_address_is_never_learned() {
        let mut places = HashMap::new();
        destinations(&record(B, ALL), 0, 3, &mut places);
        assert!(places.is_empty());
    }

    #[test]
    fn what_is_learned_is_bounded() {
        let mut places = HashMap::new();
        for number in 0..4096_u32 {
            let [_, _, c, d] = number.to_be_bytes();
            destinations(&record(ALL, [2, 0, 0, 0, c, d]), 0, 2, &mut places);
        }
        assert_eq!(places.len(), LEARNED);
    }
}
