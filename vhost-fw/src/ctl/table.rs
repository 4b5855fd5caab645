//! Answers as people read them.
//!
//! Knows columns. Never knows where an answer came from.

use std::io::{self, Write};

use fw_control::{Reply, Terms};
use fw_model::{Arrived, ConnInfo, FlowKey, Protocol, Stats};

pub(super) fn write(reply: &Reply, out: &mut impl Write) -> io::Result<()> {
    match reply {
        Reply::Stats(stats) => write_stats(stats, out),
        Reply::Conns(conns) => write_conns(conns, out),
        Reply::Enforced(generation) => writeln!(out, "generation {generation} is enforced"),
        Reply::Killed(conns) => writeln!(out, "{conns} conns closed"),
        Reply::Explanation(explanation) => {
            let word = |value: serde_json::Result<serde_json::Value>| {
                value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
            };
            let verdict = word(serde_json::to_value(explanation.verdict));
            let by = word(serde_json::to_value(explanation.by));
            let rule = explanation.rule.as_ref().map(|rule| format!(" {rule}")).unwrap_or_default();
            writeln!(
                out,
                "{verdict}: {} (by {by}{rule})\n{}",
                explanation.reason,
                explanation.reason.meaning()
            )
        }
        Reply::Terms(terms) => write_terms(terms, out),
        Reply::Done => writeln!(out, "done"),
        Reply::Refused(why) => writeln!(out, "refused: {why}"),
    }
}

fn write_terms(terms: &Terms, out: &mut impl Write) -> io::Result<()> {
    let Terms { nic, generation, conns, room, versions: (oldest, newest), key, rings_run, .. } = terms;
    let generation = generation.map_or_else(|| "none".to_owned(), |generation| generation.to_string());
    let served = if *rings_run { "a VM is served" } else { "no VM is served" };
    writeln!(out, "nic {nic}, generation {generation}, {served}")?;
    writeln!(out, "conns {conns} of {room}; snapshots of versions {oldest} to {newest}; key {key}")
}

fn write_stats(stats: &Stats, out: &mut impl Write) -> io::Result<()> {
    let number = |number: Option<u64>| number.map_or_else(|| "none".to_owned(), |number| number.to_string());
    let nic = stats.nic.as_ref().map_or("-", |nic| nic.as_str());
    let frozen = if stats.frozen { ", frozen" } else { "" };
    writeln!(out, "nic {nic}{frozen}")?;
    let (generation, enforced, swept) =
        (number(stats.generation), number(stats.enforced), number(stats.swept));
    writeln!(out, "generation {generation}, enforced {enforced}, swept {swept}")?;
    writeln!(out, "conns {}", stats.conns)?;
    writeln!(out, "frames out {}, in {}", stats.frames.out, stats.frames.in_)?;
    match &stats.arrived {
        None => {}
        Some(Arrived::Adopted(adoption)) => writeln!(out, "arrived: {adoption}")?,
        Some(Arrived::Emptied) => writeln!(out, "arrived: a table that was not taken (--restore empty)")?,
        Some(Arrived::Refused(cause)) => writeln!(out, "CLOSED, the table that arrived is refused: {cause}")?,
    }
    match &stats.resumed {
        None | Some(Arrived::Emptied) => {}
        Some(Arrived::Adopted(adoption)) => writeln!(out, "crash copy: {adoption}")?,
        Some(Arrived::Refused(cause)) => {
            writeln!(out, "crash copy REFUSED, the conns began empty: {cause}")?;
        }
    }
    if stats.log_lost > 0 {
        writeln!(out, "decisions not logged {}", stats.log_lost)?;
    }
    let drops = stats.drops.iter().map(|(reason, frames)| [reason.to_string(), frames.to_string()]);
    write_table(["DROPPED", "FRAMES"], drops, out)?;
    let rules = stats.rules.iter().map(|(id, counts)| {
        let last = counts.last_hit_s.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s ago"));
        let [frames, bytes, conns] =
            [counts.frames, counts.bytes, counts.conns].map(|count| count.to_string());
        [id.to_string(), frames, bytes, conns, last]
    });
    write_table(["RULE", "FRAMES", "BYTES", "CONNS", "LAST HIT"], rules, out)
}

fn write_conns(conns: &[ConnInfo], out: &mut impl Write) -> io::Result<()> {
    let rows = conns.iter().map(|conn| {
        let FlowKey { local, remote, local_port, remote_port, protocol, .. } = conn.flow;
        let end = |addr: String, port: u16| {
            let ports = protocol == Protocol::TCP || protocol == Protocol::UDP || port != 0;
            if !ports {
                addr
            } else if addr.contains(':') {
                format!("[{addr}]:{port}")
            } else {
                format!("{addr}:{port}")
            }
        };
        [
            protocol.to_string(),
            end(local.to_string(), local_port),
            end(remote.to_string(), remote_port),
            conn.opener.to_string(),
            conn.state.clone(),
            conn.rule.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            format!("{} s", conn.remaining_ms / 1000),
        ]
    });
    write_table(["PROTO", "LOCAL", "REMOTE", "OPENER", "STATE", "RULE", "LEFT"], rows, out)
}

/// Columns as wide as their widest; nothing without rows.
pub(crate) fn write_table<const N: usize>(
    head: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    out: &mut impl Write,
) -> io::Result<()> {
    let rows: Vec<[String; N]> = rows.collect();
    if rows.is_empty() {
        return Ok(());
    }
    let mut widths = head.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    for row in std::iter::once(&head.map(str::to_owned)).chain(&rows) {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use fw_model::{Adoption, By, Explanation, FrameCounts, Reason, RuleCounts, VerdictName};

    use super::*;

    fn stats() -> Stats {
        let web = RuleCounts { frames: 1234, bytes: 99, conns: 1, last_hit_s: Some(3) };
        Stats {
            nic: Some("web-1".parse().unwrap()),
            generation: Some(7),
            enforced: Some(7),
            swept: None,
            conns: 1,
            frames: FrameCounts { out: 5, in_: 6 },
            drops: BTreeMap::from([(Reason::NoConn, 2)]),
            rules: BTreeMap::from([("web".parse().unwrap(), web)]),
            log_lost: 0,
            frozen: false,
            arrived: None,
            resumed: None,
        }
    }

    fn text(reply: &Reply) -> String {
        let mut out = Vec::new();
        write(reply, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn stats_are_a_page() {
        let expected = "nic web-1\ngeneration 7, enforced 7, swept none\nconns 1\nframes out 5, in 6\n\
                        DROPPED  FRAMES\nno-conn  2\n\
                        RULE  FRAMES  BYTES  CONNS  LAST HIT\nweb   1234    99     1      3 s ago\n";
        assert_eq!(text(&Reply::Stats(Box::new(stats()))), expected);
    }

    #[test]
    fn stats_say_what_became_of_a_crash_copy() {
        let said = |resumed| text(&Reply::Stats(Box::new(Stats { resumed: Some(resumed), ..stats() })));
        let refused = said(Arrived::Refused("it is cut short".to_owned()));
        assert!(
            refused.contains("\ncrash copy REFUSED, the conns began empty: it is cut short\n"),
            "{refused}"
        );
        let resumed = said(Arrived::Adopted(Adoption { kept: 2, ..Adoption::default() }));
        assert!(resumed.contains("\ncrash copy: moved 2 "), "{resumed}");
    }

    #[test]
    fn stats_have_the_promised_form() {
        let mut value = serde_json::to_value(stats()).unwrap();
        let object = value.as_object_mut().unwrap();
        for own in ["nic", "log_lost", "frozen"] {
            object.remove(own).unwrap();
        }
        let promised = serde_json::json!({
            "generation": 7, "enforced": 7, "swept": null, "conns": 1, "frames": {"out": 5, "in": 6},
            "drops": {"no-conn": 2},
            "rules": {"web": {"frames": 1234, "bytes": 99, "conns": 1, "last_hit_s": 3}},
        });
        assert_eq!(value, promised);
    }

    #[test]
    fn an_explanation_is_a_sentence() {
        let explanation = Explanation {
            verdict: VerdictName::Drop,
            reason: Reason::RuleDrop,
            by: By::Rule,
            rule: Some("no-web".parse().unwrap()),
        };
        assert_eq!(
            text(&Reply::Explanation(explanation)),
            "drop: rule-drop (by rule no-web)\nA rule drops it.\n"
        );
    }
}
