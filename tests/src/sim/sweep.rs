//! Crash points without chance: a run is recorded, and then crashed before, after,
//! and just behind each of its calls. From the crash on no event is delivered:
//! ticks alone repair.
//!
//! What the run is about is a script, by the seed: [`SCRIPTS`] seeds in a row have
//! each. One does what `Doing` lists, so a new lifecycle is swept without anyone
//! thinking of it.

use super::happenings::Script;
use super::{CrashPoint, Outcome, Plan, Side, run};
use crate::{Result, fail};

/// How many scripts there are.
pub const SCRIPTS: u64 = Script::COUNT;

/// The recorded run of a seed, without a crash.
///
/// # Errors
/// It is not clean by itself.
pub fn record(seed: u64) -> Result<Outcome> {
    let outcome = run(&plan(seed, CrashPoint { call: u64::MAX, side: Side::Before, again: None }))?;
    match &outcome.violation {
        None => Ok(outcome),
        Some(violation) => fail(format!("the recorded run of seed {seed}: {violation}")),
    }
}

/// The plan that crashes at a call.
pub fn plan(seed: u64, crash: CrashPoint) -> Plan {
    Plan { crash: Some(crash), ..Plan::of(seed) }
}

/// How many calls after a crash the second one comes at the most: while what the first
/// one left is made up for.
const SOON: u64 = 40;

/// The points of a run with so many calls: every `nth` of them. `pairs`: each with a
/// second one, soon after it.
pub fn points(calls: u64, nth: u64, pairs: bool) -> Vec<CrashPoint> {
    let all = (0..calls).flat_map(|call| {
        Side::ALL.map(|side| {
            let mut rng = fastrand::Rng::with_seed(call * 3 + side as u64);
            CrashPoint { call, side, again: pairs.then(|| rng.u64(1..=SOON)) }
        })
    });
    all.enumerate()
        .filter(|(at, _)| (*at as u64).is_multiple_of(nth.max(1)))
        .map(|(_, point)| point)
        .collect()
}
