//! The `timers` and `limits` sections: how long, how many, how fast.
//!
//! Knows the keys and their sane ranges. Never knows what is done at a limit.

use fw_model::{Limits, Rate, RateLimits, Timers};

use fw_document::matching::{CONNS_MAX, PER_SECOND_MAX};
use fw_document::problems::Problems;
use fw_document::read::{self, Fields};
use fw_document::tree::Node;

const TIMERS: &[&str] = &[
    "tcp_syn_sent",
    "syn_received",
    "established",
    "fin_wait",
    "time_wait",
    "close",
    "udp",
    "udp_replied",
    "icmp",
    "fragment",
];
const LIMITS: &[&str] = &["conns", "half_open", "fragments", "expectations", "rates", "new_conns_per_s"];

/// 31 days: longer is a leak, not a timer.
const TIMER_MAX_S: u32 = 31 * 86_400;
/// Fragment identifiers repeat within minutes (RFC 4963).
const FRAGMENT_MAX_S: u32 = 120;
const FRAGMENT_BYTES_MAX: u32 = 256 << 20;
const EXPECTATIONS_MAX: u32 = 1 << 20;
const BITS_PER_SECOND_MAX: u64 = 10_000_000_000_000;

pub(crate) fn timers(node: &Node<'_>, problems: &mut Problems) -> Option<Timers> {
    let fields = Fields::read(node, "timers", TIMERS, problems)?;
    let mut timers = Timers::DEFAULT;
    let mut set = |key, timer: &mut u32, max| {
        if let Some(node) = fields.get(key) {
            *timer = read::number(node, key, 1, max, problems).unwrap_or(*timer);
        }
    };
    set("tcp_syn_sent", &mut timers.tcp_syn_sent, TIMER_MAX_S);
    set("syn_received", &mut timers.syn_received, TIMER_MAX_S);
    set("established", &mut timers.established, TIMER_MAX_S);
    set("fin_wait", &mut timers.fin_wait, TIMER_MAX_S);
    set("time_wait", &mut timers.time_wait, TIMER_MAX_S);
    set("close", &mut timers.close, TIMER_MAX_S);
    set("udp", &mut timers.udp, TIMER_MAX_S);
    set("udp_replied", &mut timers.udp_replied, TIMER_MAX_S);
    set("icmp", &mut timers.icmp, TIMER_MAX_S);
    set("fragment", &mut timers.fragment, FRAGMENT_MAX_S);
    Some(timers)
}

/// No limit written.
pub(crate) const UNLIMITED: Limits = Limits {
    conns: None,
    half_open: None,
    fragments: None,
    expectations: None,
    rates: None,
    new_conns_per_s: None,
};

pub(crate) fn limits(node: &Node<'_>, problems: &mut Problems) -> Option<Limits> {
    let fields = Fields::read(node, "limits", LIMITS, problems)?;
    let rates = fields.get("rates").and_then(|node| rates(node, problems));
    let mut bound =
        |key, min, max| fields.get(key).and_then(|node| read::number::<u32>(node, key, min, max, problems));
    Some(Limits {
        conns: bound("conns", 1, CONNS_MAX),
        half_open: bound("half_open", 1, CONNS_MAX),
        fragments: bound("fragments", 0, FRAGMENT_BYTES_MAX),
        expectations: bound("expectations", 0, EXPECTATIONS_MAX),
        rates,
        new_conns_per_s: bound("new_conns_per_s", 1, PER_SECOND_MAX),
    })
}

fn rates(node: &Node<'_>, problems: &mut Problems) -> Option<RateLimits> {
    let fields = Fields::read(node, "rates", &["out", "in"], problems)?;
    let mut of = |key| fields.get(key).map_or(Some(NO_RATE), |node| rate(node, problems));
    let (out, in_) = (of("out"), of("in"));
    Some(RateLimits { out: out?, in_: in_? })
}

const NO_RATE: Rate = Rate { bits_per_s: None, frames_per_s: None };

fn rate(node: &Node<'_>, problems: &mut Problems) -> Option<Rate> {
    let fields = Fields::read(node, "a rate", &["bits_per_s", "frames_per_s"], problems)?;
    let mut bound = |key, max| fields.get(key).and_then(|node| read::number(node, key, 1, max, problems));
    Some(Rate {
        bits_per_s: bound("bits_per_s", BITS_PER_SECOND_MAX),
        frames_per_s: bound("frames_per_s", u64::from(PER_SECOND_MAX)),
    })
}
