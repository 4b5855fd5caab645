//! One question to the wire: does this get through, and is that what the policy says?
//!
//! Traffic answers first; then the firewalls name the rule or reason, and a refusal counts only if the one that names
//! it also counted it. It may know guests and firewalls. It must never take an explanation for a frame.

use std::collections::BTreeMap;
use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::firewall::Explained;
use crate::host;
use crate::site::{Site, Who};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// An echo over TCP.
    Tcp(u16),
    /// An echo over UDP.
    Udp(u16),
    /// A page.
    Http(u16),
    /// An echo over ICMP.
    Ping,
    /// An echo over ICMP asked for in another's name.
    PingAs(&'static str),
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "tcp/{port}"),
            Self::Udp(port) => write!(f, "udp/{port}"),
            Self::Http(port) => write!(f, "http/{port}"),
            Self::Ping => f.write_str("ping"),
            Self::PingAs(address) => write!(f, "ping-as-{address}"),
        }
    }
}

/// The family a probe speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What the policy says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It gets through.
    Passes,
    /// It is refused, by this rule or for this reason.
    Denied(&'static str),
}

/// A question with its expected answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Who asks.
    pub from: Who,
    /// Whom.
    pub to: Who,
    /// For what.
    pub service: Service,
    /// Over which family.
    pub family: Family,
    /// What the policy says.
    pub expected: Expected,
}

/// What a probe came to: one line of the contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `PASS`, `DENIED` or `WRONG`.
    pub word: &'static str,
    src: &'static str,
    dst: &'static str,
    service: String,
    why: String,
}

impl Finding {
    /// Whether all is as the policy says.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.word != "WRONG"
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}", self.word, self.src, self.dst, self.service, self.why)
    }
}

/// The two firewalls a flow meets.
const MEETS: [&str; 2] = ["out", "in"];

impl Probe {
    /// Asks, and judges the answer.
    ///
    /// # Errors
    /// A guest or a firewall does not answer the laboratory itself.
    pub fn ask(&self, site: &mut Site) -> Result<Finding> {
        let before = self.refusals(site)?;
        let met = self.speak(site)?;
        let explained = self.explain(site)?;
        let refused = explained.iter().position(|end| end.as_ref().is_some_and(|end| end.verdict != "pass"));
        let open = met == "open";
        let (word, why) = match (self.expected, refused) {
            (Expected::Passes, None) if open => ("PASS", admitted_by(&explained)),
            (Expected::Denied(wanted), Some(end)) if !open => {
                let Some(Some(refusal)) = explained.get(end) else {
                    bail!("a refusal without an explanation")
                };
                if refusal.why() != wanted {
                    ("WRONG", format!("{}-not-{wanted}", refusal.why()))
                } else if self.counted(site, refusal, &before)? {
                    ("DENIED", wanted.to_owned())
                } else {
                    ("WRONG", format!("{wanted}-not-counted"))
                }
            }
            (Expected::Passes, Some(end)) => {
                let why = explained.get(end).and_then(Option::as_ref).map_or("?", Explained::why);
                ("WRONG", format!("{met}-by-{why}"))
            }
            (Expected::Passes | Expected::Denied(_), _) => {
                ("WRONG", format!("{met}-though-explained-otherwise"))
            }
        };
        let service = match self.family {
            Family::V4 => self.service.to_string(),
            Family::V6 => format!("{}/v6", self.service),
        };
        Ok(Finding { word, src: name(self.from), dst: name(self.to), service, why })
    }

    /// Speaks for real; one word for what came of it.
    fn speak(&self, site: &mut Site) -> Result<String> {
        let target = address(self.to, self.family);
        let ping = match self.family {
            Family::V4 => "busybox ping",
            Family::V6 => "busybox ping6",
        };
        let echoed = "&& echo open || echo timeout";
        let command = match self.service {
            Service::Tcp(port) => format!("guest-probe tcp {target} {port}"),
            Service::Udp(port) => format!("guest-probe udp {target} {port}"),
            Service::Http(port) => format!("guest-probe http {target} {port}"),
            Service::Ping => format!("{ping} -c 2 -W 2 {target} >/dev/null {echoed}"),
            Service::PingAs(other) => format!(
                "ip addr add {other}/24 dev eth0; {ping} -c 1 -W 2 -I {other} {target} >/dev/null {echoed}; \
                 ip addr del {other}/24 dev eth0"
            ),
        };
        let said = site.run_as(self.from, &command)?;
        Ok(said.split_whitespace().last().unwrap_or("silence").to_owned())
    }

    /// What each end's firewall says about the flow; `None` for an end without one.
    fn explain(&self, site: &mut Site) -> Result<[Option<Explained>; 2]> {
        let source = match self.service {
            Service::PingAs(other) => other,
            Service::Tcp(_) | Service::Udp(_) | Service::Http(_) | Service::Ping => {
                address(self.from, self.family)
            }
        };
        let target = address(self.to, self.family);
        let flow = match self.service {
            Service::Tcp(port) | Service::Http(port) => {
                ["tcp".to_owned(), source.to_owned(), place(target, port)]
            }
            Service::Udp(port) => ["udp".to_owned(), source.to_owned(), place(target, port)],
            Service::Ping | Service::PingAs(_) => ["icmp".to_owned(), source.to_owned(), target.to_owned()],
        };
        let mut answers = [None, None];
        for ((answer, who), direction) in answers.iter_mut().zip([self.from, self.to]).zip(MEETS) {
            if let Some(end) = site.place(who) {
                *answer = Some(end.firewall.explain(direction, &flow)?);
            }
        }
        Ok(answers)
    }

    /// Refused frames of both ends, by reason.
    fn refusals(&self, site: &mut Site) -> Result<BTreeMap<String, u64>> {
        let mut all = BTreeMap::new();
        for who in [self.from, self.to] {
            if let Some(end) = site.place(who) {
                for (reason, count) in end.firewall.drops()? {
                    *all.entry(reason).or_default() += count;
                }
            }
        }
        Ok(all)
    }

    /// Whether a firewall has counted a refusal for this reason since `before`.
    fn counted(&self, site: &mut Site, refusal: &Explained, before: &BTreeMap<String, u64>) -> Result<bool> {
        // A worker may publish its counters a little after the frame.
        for _ in 0..20 {
            if self.refusals(site)?.get(&refusal.reason) > before.get(&refusal.reason) {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(false)
    }
}

/// The rule that let it in, else the one that let it out, else why it passed.
fn admitted_by(explained: &[Option<Explained>; 2]) -> String {
    let [out, in_] = explained;
    in_.as_ref().or(out.as_ref()).map_or_else(|| "unjudged".to_owned(), |end| end.why().to_owned())
}

fn name(who: Who) -> &'static str {
    match who {
        Who::Web => crate::site::WEB.name,
        Who::Client => crate::site::CLIENT.name,
        Who::Host => "host",
    }
}

fn address(who: Who, family: Family) -> &'static str {
    match (who, family) {
        (Who::Web, Family::V4) => crate::site::WEB.v4,
        (Who::Web, Family::V6) => crate::site::WEB.v6,
        (Who::Client, Family::V4) => crate::site::CLIENT.v4,
        (Who::Client, Family::V6) => crate::site::CLIENT.v6,
        (Who::Host, Family::V4) => host::HOST_V4,
        (Who::Host, Family::V6) => host::HOST_V6,
    }
}

fn place(address: &str, port: u16) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}
