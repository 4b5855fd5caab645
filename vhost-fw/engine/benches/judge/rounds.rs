//! Rounds of frames, judged by the engine and touched by the floor in turns.

use fw_engine::{HEAD_LEN, VnetHeader};
use fw_model::Direction;

use crate::bed::{Bed, Expected, Wire};
use crate::timing::{self, Plan, Times, nanoseconds};

/// Frames of a round.
const FRAMES: u32 = 2_048;
/// The control loop takes about 0.1 ms.
const PLAN: Plan = Plan { counted: 401, at_most: 10_000, control: 50_000 };

/// Runs rounds until enough count. `fill` writes the next frames, outside of all times.
pub(crate) fn run(
    bed: &mut Bed,
    expected: Expected,
    mut fill: impl FnMut(&mut [Wire]),
) -> Result<Times, String> {
    let mut wires = blank();
    timing::rounds(&PLAN, |number| {
        bed.rest();
        fill(&mut wires);
        let (mut ours, mut verdicts) = (0.0, Ok(()));
        if number.is_multiple_of(2) {
            ours = nanoseconds(|| verdicts = bed.judge(&wires, expected));
        }
        let floor = nanoseconds(|| bed.touch(&wires));
        if !number.is_multiple_of(2) {
            ours = nanoseconds(|| verdicts = bed.judge(&wires, expected));
        }
        verdicts?;
        Ok((ours / f64::from(FRAMES), floor / f64::from(FRAMES)))
    })
}

fn blank() -> Vec<Wire> {
    let none = Wire { direction: Direction::Out, bytes: [0; HEAD_LEN], length: 0, vnet: VnetHeader::NONE };
    vec![none; FRAMES as usize]
}

/// Judges one round after a first that leaves everything warm, and says of how many frames it was.
pub(crate) fn count(
    bed: &mut Bed,
    expected: Expected,
    mut fill: impl FnMut(&mut [Wire]),
) -> Result<u32, String> {
    let mut wires = blank();
    fill(&mut wires);
    bed.judge(&wires, expected)?;
    bed.rest();
    fill(&mut wires);
    counted_round(bed, expected, &wires)?;
    Ok(FRAMES)
}

/// By its name callgrind is told what to count.
#[inline(never)]
fn counted_round(bed: &mut Bed, expected: Expected, wires: &[Wire]) -> Result<(), String> {
    bed.judge(wires, expected)
}
