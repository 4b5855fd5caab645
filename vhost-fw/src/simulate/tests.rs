//! Steps and captures in, lines out, through the real engine.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::*;

const RULES: &str = "nic: {id: a, mac: \"52:54:00:00:00:01\", addresses: [10.0.0.10]}\n\
    defaults: {out: drop, in: reject}\n\
    rules: [{id: dns, direction: out, action: allow, protocol: udp, ports: [53]}]\n";

/// A UDP datagram without a checksum, as IPv4 allows, with `payload` zeros.
fn udp(from_guest: bool, ports: [u16; 2], payload: usize) -> Vec<u8> {
    let guest = [0x52, 0x54, 0, 0, 0, 1];
    let peer = [0x52, 0x54, 0, 0, 0, 2];
    let (macs, ips) = if from_guest { ([peer, guest], [10, 1]) } else { ([guest, peer], [1, 10]) };
    let mut frame = [macs[0], macs[1]].concat();
    frame.extend([8, 0]);
    let length = u16::try_from(28 + payload).unwrap().to_be_bytes();
    let mut ip =
        vec![0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, ips[0], 10, 0, 0, ips[1]];
    let sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = !u16::try_from((sum >> 16) + (sum & 0xffff)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(ip);
    for word in [ports[0], ports[1], u16::try_from(8 + payload).unwrap(), 0] {
        frame.extend(word.to_be_bytes());
    }
    frame.resize(frame.len() + payload, 0);
    frame
}

struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("rules.yaml"), RULES).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, steps: Option<&str>, pcap: Option<PathBuf>) -> (Vec<Value>, Result<(), String>) {
        let args = SimulateArgs { rules: self.path("rules.yaml"), steps: steps.map(|_| "-".into()), pcap };
        let mut out = Vec::new();
        let result = run(&args, steps.unwrap_or_default().as_bytes(), &mut out);
        let lines = String::from_utf8(out).unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines, result.map_err(|error| error.to_string()))
    }

    fn steps(&self, steps: &str) -> Vec<Value> {
        let (lines, result) = self.run(Some(steps), None);
        assert_eq!(result, Ok(()));
        lines
    }
}

fn frame(from: &str, bytes: &[u8]) -> String {
    format!("{{\"from\":\"{from}\",\"frame\":\"{}\"}}\n", hex::encode(bytes))
}

fn seen(line: &Value) -> String {
    let rule = line["rule"].as_str().unwrap_or("-");
    format!("{} {} {} {rule}", line["verdict"], line["reason"], line["by"]).replace('"', "")
}

#[test]
fn a_question_passes_and_its_answer_too_until_time_is_over() {
    let question = frame("guest", &udp(true, [5000, 53], 4));
    let answer = frame("net", &udp(false, [53, 5000], 4));
    let lines = Bench::new().steps(&format!("{answer}{question}{answer}{{\"wait_s\": 600}}\n{answer}"));
    let seen: Vec<_> = lines.iter().map(seen).collect();
    assert_eq!(
        seen,
        [
            "reject default-reject default -",
            "pass new rule dns",
            "pass established conn dns",
            "reject default-reject default -"
        ]
    );
    assert_eq!(lines[1]["emitted"], serde_json::json!([hex::encode(&udp(true, [5000, 53], 4))]));
    assert_eq!(lines[1]["emitted_vnet"].as_array().unwrap().len(), 1);
    assert_eq!(lines[0]["emitted"], serde_json::json!([]));
    assert_eq!(lines[0]["replied"].as_array().unwrap().len(), 1, "the sender is told");
}

#[test]
fn a_line_has_the_promised_fields_in_their_order() {
    let mut out = Vec::new();
    let bench = Bench::new();
    let args = SimulateArgs { rules: bench.path("rules.yaml"), steps: Some("-".into()), pcap: None };
    run(&args, frame("guest", &[]).as_bytes(), &mut out).unwrap();
    let expected = "{\"verdict\":\"drop\",\"reason\":\"runt\",\"by\":\"guard\",\"rule\":\"guard/sane\",\
                    \"emitted\":[],\"emitted_vnet\":[],\"replied\":[]}\n";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn a_reset_forgets_conns_and_new_rules_judge_them_again() {
    let bench = Bench::new();
    fs::write(bench.path("none.yaml"), RULES.replace("[53]", "[54]")).unwrap();
    let question = frame("guest", &udp(true, [5000, 53], 4));
    let answer = frame("net", &udp(false, [53, 5000], 4));
    let rules = format!("{{\"rules\": {:?}}}\n", bench.path("none.yaml"));
    let lines = bench
        .steps(&format!("{question}{answer}{{\"reset\":true}}\n{answer}{question}{rules}{answer}{question}"));
    let verdicts: Vec<_> = lines.iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts[..4], ["pass", "pass", "reject", "pass"]);
    assert_ne!(verdicts[4], "pass", "{}", lines[4]);
    assert_eq!(verdicts[5], "drop");
}

#[test]
fn a_frame_longer_than_the_head_is_judged_whole() {
    let long = udp(true, [5000, 53], 1400);
    let lines = Bench::new().steps(&frame("guest", &long));
    assert_eq!(
        (seen(&lines[0]).as_str(), &lines[0]["emitted"][0]),
        ("pass new rule dns", &hex::encode(&long).into())
    );
    let endless = vec![0; fw_engine::FRAME_LEN_MAX + 1];
    let lines = Bench::new().steps(&frame("guest", &endless));
    assert_eq!(lines[0]["verdict"], "drop");
}

#[test]
fn a_wrong_step_names_its_line_and_ends_the_simulation() {
    let good = frame("guest", &[]);
    for (wrong, told) in [
        ("{\"from\":\"guest\"}\n", "stdin:3: no step"),
        ("{\"frame\":\"\",\"from\":\"guest\",\"vent\":1}\n", "stdin:3: no step: unknown field `vent`"),
        ("{\"rules\":\"/nowhere.yaml\"}\n", "stdin:3: /nowhere.yaml: No such file"),
    ] {
        let (lines, result) = Bench::new().run(Some(&format!("{good}\n{wrong}{good}")), None);
        let error = result.unwrap_err();
        assert!(error.starts_with(told), "{error}");
        assert_eq!(lines.len(), 1, "what came before is answered, what follows is not");
    }
}

#[test]
fn a_capture_is_judged_by_its_macs_and_its_times() {
    let bench = Bench::new();
    let mut file = [&0xa1b2_c3d4_u32.to_le_bytes()[..], &[0; 16], &1_u32.to_le_bytes()].concat();
    let (question, answer) = (udp(true, [5000, 53], 4), udp(false, [53, 5000], 4));
    for (seconds, frame) in [(100_u32, &question), (101, &answer), (9999, &answer)] {
        let length = u32::try_from(frame.len()).unwrap();
        for word in [seconds, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    fs::write(bench.path("seen.pcap"), &file).unwrap();
    let (lines, result) = bench.run(None, Some(bench.path("seen.pcap")));
    assert_eq!(result, Ok(()));
    let verdicts: Vec<_> = lines.iter().map(|line| line["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["pass", "pass", "reject"]);
    fs::write(bench.path("seen.pcap"), &file[..30]).unwrap();
    let (_, result) = bench.run(None, Some(bench.path("seen.pcap")));
    assert!(result.unwrap_err().contains("seen.pcap: the file ends"));
}
