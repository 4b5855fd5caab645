//! What the test guest runs to speak over the network: echo services, and clients that name what they met.
//!
//! It may know sockets and words on its command line. It must never know a rule, nor what the outcome should be.

use std::env;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

mod guest_watch;

const USAGE: &str = "usage: guest-probe serve tcp|udp PORT
       guest-probe tcp|udp|http HOST PORT
       guest-probe burst HOST PORT COUNT
       guest-probe hold HOST PORT
       guest-probe keep HOST PORT COUNT
       guest-probe answer HOST PORT
       guest-probe watch FIRST LAST";

/// How long a client waits for its peer.
const PATIENCE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["serve", "tcp", port] => port_of(port).and_then(serve_tcp),
        ["serve", "udp", port] => port_of(port).and_then(serve_udp),
        ["tcp", host, port] => peer_of(host, port).and_then(|peer| say(outcome(ask_tcp(peer)))),
        ["udp", host, port] => peer_of(host, port).and_then(|peer| say(outcome(ask_udp(peer)))),
        ["http", host, port] => peer_of(host, port).and_then(|peer| say(outcome(ask_http(peer)))),
        ["burst", host, port, count] => {
            peer_of(host, port).and_then(|peer| say(&burst(peer, count.parse().unwrap_or(100))?))
        }
        ["hold", host, port] => peer_of(host, port).and_then(hold),
        ["keep", host, port, count] => {
            peer_of(host, port).and_then(|peer| keep(peer, count.parse().unwrap_or(100)))
        }
        ["answer", host, port] => peer_of(host, port).and_then(answer),
        ["watch", first, last] => port_of(first)
            .and_then(|first| Ok(first..=port_of(last)?))
            .and_then(|marked| guest_watch::watch(&marked)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, USAGE)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::from(2)
        }
    }
}

fn port_of(text: &str) -> io::Result<u16> {
    text.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("`{text}` is no port")))
}

fn peer_of(host: &str, port: &str) -> io::Result<SocketAddr> {
    let host: IpAddr = host
        .parse()
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("`{host}` is no address")))?;
    Ok(SocketAddr::new(host, port_of(port)?))
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// One word for what a client met.
fn outcome(asked: io::Result<()>) -> &'static str {
    let Err(error) = asked else { return "open" };
    if error.kind() == io::ErrorKind::ConnectionRefused {
        "refused"
    } else if error.kind() == io::ErrorKind::ConnectionReset {
        "reset"
    } else if matches!(error.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) {
        "unreachable"
    } else if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) {
        "timeout"
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "prohibited"
    } else {
        "broken"
    }
}

fn ask_tcp(peer: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&peer, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    echo_once(&mut stream, b"portcullis\n")
}

fn echo_once(stream: &mut TcpStream, token: &[u8]) -> io::Result<()> {
    stream.write_all(token)?;
    let mut back = vec![0; token.len()];
    stream.read_exact(&mut back)?;
    if back == token { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "another echo")) }
}

fn ask_http(peer: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&peer, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET / HTTP/1.0\r\nHost: {}\r\n\r\n", peer.ip()).as_bytes())?;
    let mut page = Vec::new();
    stream.take(65_536).read_to_end(&mut page)?;
    let page = String::from_utf8_lossy(&page);
    let good = page.starts_with("HTTP/1.") && page.contains(" 200 ") && page.contains("portcullis");
    if good { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "another page")) }
}

fn ask_udp(peer: SocketAddr) -> io::Result<()> {
    let socket = udp_towards(peer)?;
    socket.set_read_timeout(Some(PATIENCE / 3))?;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..3 {
        match udp_echo(&socket, b"portcullis") {
            Ok(()) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn udp_towards(peer: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.connect(peer)?;
    Ok(socket)
}

fn udp_echo(socket: &UdpSocket, token: &[u8]) -> io::Result<()> {
    socket.send(token)?;
    let mut back = [0; 2048];
    let length = socket.recv(&mut back)?;
    if back.get(..length) == Some(token) { Ok(()) } else { Err(io::Error::from(io::ErrorKind::InvalidData)) }
}

/// Sends `count` datagrams of growing size one after the other and counts the echoes.
fn burst(peer: SocketAddr, count: u32) -> io::Result<String> {
    let socket = udp_towards(peer)?;
    // Long enough for a busy machine: what is missing then was lost.
    socket.set_read_timeout(Some(PATIENCE * 2))?;
    let mut echoed = 0_u32;
    for number in 0..count {
        let mut token = number.to_be_bytes().to_vec();
        token.resize(usize::try_from(16 + (number * 7) % 1200).unwrap_or(16), 0x5a);
        match udp_echo(&socket, &token) {
            Ok(()) => echoed += 1,
            Err(error) => return Ok(format!("echoed {echoed}/{count}, then {}", outcome(Err(error)))),
        }
    }
    Ok(format!("echoed {echoed}/{count}"))
}

/// Keeps one conn busy and writes one line per word until it dies.
fn hold(peer: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&peer, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    let start = Instant::now();
    loop {
        match echo_once(&mut stream, b"still here\n") {
            Ok(()) => say(&format!("alive {}", start.elapsed().as_millis()))?,
            Err(error) => {
                return say(&format!("dead {} {}", outcome(Err(error)), start.elapsed().as_millis()));
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
}

fn serve_tcp(port: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("::", port))?;
    loop {
        let (mut stream, _) = listener.accept()?;
        thread::Builder::new().stack_size(STACK).spawn(move || echo(&mut stream))?;
    }
}

/// Room for a thread that only echoes: a thousand of them fit a small guest.
const STACK: usize = 32 * 1024;

fn echo(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let Some(read) = buffer.get(..length) else { break };
        if stream.write_all(read).is_err() {
            break;
        }
    }
}

/// Opens `count` conns, says so, and echoes on them for ever.
fn keep(peer: SocketAddr, count: usize) -> io::Result<()> {
    for _ in 0..count {
        let mut stream = TcpStream::connect_timeout(&peer, PATIENCE * 10)?;
        thread::Builder::new().stack_size(STACK).spawn(move || echo(&mut stream))?;
    }
    say(&format!("kept {count}"))?;
    loop {
        thread::park();
    }
}

fn serve_udp(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind(("::", port))?;
    let mut buffer = [0; 65536];
    loop {
        let (length, peer) = socket.recv_from(&mut buffer)?;
        if let Some(read) = buffer.get(..length) {
            let _ = socket.send_to(read, peer);
        }
    }
}

/// Opens a conn of datagrams with a single word and from then on only echoes what comes.
fn answer(peer: SocketAddr) -> io::Result<()> {
    let socket = udp_towards(peer)?;
    socket.send(b"here")?;
    let mut buffer = [0; 2048];
    loop {
        // An unreachable peer shows as an error of the next call; the conn goes on.
        if let Some(read) = socket.recv(&mut buffer).ok().and_then(|length| buffer.get(..length)) {
            let _ = socket.send(read);
        }
    }
}
