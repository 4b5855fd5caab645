//! Filters and probes as they are typed.
//!
//! Knows words. Never knows which conns there are.

use std::net::SocketAddr;

use fw_model::{Addr, ConnFilter, Direction, Probe, Protocol};

use super::CtlError;
use crate::config::ProbeProtocol;

/// `proto=tcp local=PREFIX remote=PREFIX port=N rule=ID`, each at most once.
pub(super) fn filter(words: &[String]) -> Result<ConnFilter, CtlError> {
    let mut filter = ConnFilter::default();
    for word in words {
        let usage = |why: &str| CtlError::Usage(format!("`{word}`: {why}"));
        let (key, value) = word.split_once('=').ok_or_else(|| usage(EXPECTED))?;
        let twice = match key {
            "proto" => filter.protocol.replace(protocol(value).ok_or_else(|| usage(PROTOCOLS))?).is_some(),
            "local" => filter.local.replace(parsed(value).map_err(|why| usage(&why))?).is_some(),
            "remote" => filter.remote.replace(parsed(value).map_err(|why| usage(&why))?).is_some(),
            "port" => filter.port.replace(value.parse().map_err(|_| usage("expected 0 to 65535"))?).is_some(),
            "rule" => filter.rule.replace(parsed(value).map_err(|why| usage(&why))?).is_some(),
            _ => return Err(usage(EXPECTED)),
        };
        if twice {
            return Err(usage("stands here twice; a conn has one"));
        }
    }
    Ok(filter)
}

/// As [`filter`]; every conn is meant only where that is said.
pub(super) fn kill_filter(words: &[String]) -> Result<ConnFilter, CtlError> {
    match words {
        [all] if all == "all" => Ok(ConnFilter::default()),
        [] => Err(CtlError::Usage("say which conns: a filter, or all".to_owned())),
        words => filter(words),
    }
}

const EXPECTED: &str = "expected proto=, local=, remote=, port= or rule=";
const PROTOCOLS: &str = "expected tcp, udp, icmp, icmpv6 or a number from 0 to 255";

fn protocol(text: &str) -> Option<Protocol> {
    match text {
        "tcp" => Some(Protocol::TCP),
        "udp" => Some(Protocol::UDP),
        "icmp" => Some(Protocol::ICMP),
        "icmpv6" => Some(Protocol::ICMPV6),
        number => number.parse().ok().map(Protocol),
    }
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// The first frame `explain` asks about.
pub(super) fn probe(
    direction: Direction,
    protocol: ProbeProtocol,
    source: &str,
    destination: &str,
) -> Result<Probe, CtlError> {
    let usage = |why: String| CtlError::Usage(why);
    let (source, source_port) = end(source).map_err(usage)?;
    let (destination, destination_port) = end(destination).map_err(usage)?;
    if source.is_v4() != destination.is_v4() {
        return Err(usage(format!("{source} and {destination} are of two families")));
    }
    let (number, has_ports) = match protocol {
        ProbeProtocol::Tcp => (Protocol::TCP, true),
        ProbeProtocol::Udp => (Protocol::UDP, true),
        ProbeProtocol::Icmp if source.is_v4() => (Protocol::ICMP, false),
        ProbeProtocol::Icmp => (Protocol::ICMPV6, false),
    };
    if has_ports && destination_port.is_none_or(|port| port == 0) {
        return Err(usage(format!("{number} needs a destination port: {destination} and :PORT")));
    }
    if !has_ports && destination_port.is_some() {
        return Err(usage(format!("{number} has no destination port")));
    }
    Ok(Probe {
        direction,
        protocol: number,
        source,
        source_port: source_port.unwrap_or(0),
        destination,
        destination_port: destination_port.unwrap_or(0),
    })
}

/// `ADDRESS`, `IPV4:PORT` or `[IPV6]:PORT`.
fn end(text: &str) -> Result<(Addr, Option<u16>), String> {
    let bare: Result<Addr, _> = text.parse();
    if let Ok(addr) = bare {
        return Ok((addr, None));
    }
    let with_port: SocketAddr =
        text.parse().map_err(|_| format!("`{text}`: expected ADDRESS, IPV4:PORT or [IPV6]:PORT"))?;
    let addr: Addr = with_port.ip().to_string().parse().map_err(|error| format!("{error}"))?;
    Ok((addr, Some(with_port.port())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_filter_says_each_thing_once() {
        let all =
            filter(&words("proto=tcp local=10.0.0.10 remote=198.51.100.0/24 port=443 rule=web")).unwrap();
        assert_eq!((all.protocol, all.port), (Some(Protocol::TCP), Some(443)));
        assert_eq!(all.remote.unwrap().to_string(), "198.51.100.0/24");
        assert_eq!(filter(&[]).unwrap(), ConnFilter::default());
        for wrong in
            ["tcp", "proto=sctp", "port=65536", "port=1 port=1", "local=10.0.0.1/8", "state=new", "all"]
        {
            assert!(matches!(filter(&words(wrong)), Err(CtlError::Usage(_))), "{wrong}");
        }
    }

    #[test]
    fn killing_everything_must_be_said() {
        assert!(kill_filter(&[]).is_err());
        assert_eq!(kill_filter(&words("all")).unwrap(), ConnFilter::default());
        assert!(kill_filter(&words("all port=1")).is_err());
    }

    #[test]
    fn a_probe_has_one_family_and_the_ports_its_protocol_has() {
        use ProbeProtocol::{Icmp, Tcp, Udp};
        let probe = |protocol, from, to| probe(Direction::Out, protocol, from, to);
        let v6 = probe(Tcp, "2001:db8::1", "[2001:db8::2]:443").unwrap();
        assert_eq!((v6.destination_port, v6.source_port, v6.protocol), (443, 0, Protocol::TCP));
        assert_eq!(probe(Icmp, "fe80::1", "fe80::2").unwrap().protocol, Protocol::ICMPV6);
        assert_eq!(probe(Icmp, "10.0.0.1:77", "10.0.0.2").unwrap().source_port, 77);
        for (protocol, from, to) in [
            (Tcp, "10.0.0.1", "10.0.0.2"),
            (Udp, "10.0.0.1", "[::2]:53"),
            (Icmp, "10.0.0.1", "10.0.0.2:1"),
            (Tcp, "web", "10.0.0.2:80"),
            (Tcp, "10.0.0.1", "[::ffff:10.0.0.2]:80"),
        ] {
            assert!(probe(protocol, from, to).is_err(), "{from} {to}");
        }
    }
}
