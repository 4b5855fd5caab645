//! Every frame-level case of the evasion catalogue, through `vhost-fw simulate`: attacks are stopped, benign frames
//! pass, and both bind alike.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fw_tests::cases::{self, Case, Expect, Step};
use fw_tests::simulator::Simulator;

#[test]
fn every_frame_level_case_of_the_catalogue_is_judged_right() {
    let mut by_policy: BTreeMap<String, Vec<Case>> = BTreeMap::new();
    for case in cases::frame_level() {
        by_policy.entry(case.policy.clone()).or_default().push(case);
    }
    let (mut tried, mut wrong) = (0, String::new());
    for (policy, cases) in &by_policy {
        let mut simulator = Simulator::new(&cases::rules_of(policy));
        for case in cases {
            simulator.reset();
            tried += 1;
            if let Err(why) = run(&mut simulator, case) {
                let _ = writeln!(wrong, "{} [{policy}] {}: {why}", case.id, case.name);
            }
        }
    }
    assert!(tried > 150, "only {tried} cases were found");
    assert!(wrong.is_empty(), "of {tried} cases:\n{wrong}");
}

fn run(simulator: &mut Simulator, case: &Case) -> Result<(), String> {
    let (mut emitted, mut owed) = (Vec::new(), Vec::new());
    for (place, step) in case.steps.iter().enumerate() {
        match step {
            Step::Wait(seconds) => simulator.wait(*seconds),
            Step::Frame(frame) => {
                let answer = simulator.judge(&frame.from, &frame.bytes, frame.vnet.as_deref());
                let left: Vec<_> = answer.emitted.iter().map(|frame| cases::bytes(frame)).collect();
                if !frame.expect.iter().any(|expect| expect.is_met(frame, &answer.verdict, &left)) {
                    return Err(format!(
                        "step {place} wants {:?}, got {} ({})",
                        frame.expect, answer.verdict, answer.reason
                    ));
                }
                if frame.expect.iter().all(|expect| *expect == Expect::Reassembled) {
                    owed.push((place, cases::hex(&frame.bytes)));
                }
                emitted.extend(answer.emitted);
            }
        }
    }
    match owed.iter().find(|(_, frame)| !emitted.contains(frame)) {
        Some((place, _)) => Err(format!("the fragment of step {place} never left")),
        None => Ok(()),
    }
}
