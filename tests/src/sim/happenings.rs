//! What happens in a run, and when: all of it drawn before the run begins, each
//! with a number by which it can be left out.

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

use super::accidents::Accident;
use super::people::Doing;
use super::plan::{Kind, Plan, Profile};
use super::spells::Trouble;

/// Something that happens at a time.
#[derive(Debug)]
pub(crate) struct Happening {
    pub(crate) at: Timestamp,
    pub(crate) number: u32,
    pub(crate) what: Happens,
}

/// What happens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Happens {
    Doing(Doing),
    Accident(Accident),
    Spell(Trouble),
}

/// What the recorded run of a sweep does: each thing once, and the control
/// plane's each change.
pub(crate) const SWEPT: u32 = Doing::COUNT;

/// Seconds between two of them: a backup is over by then.
const APART: i64 = 780;

/// How long that takes.
pub(crate) const SWEEP_HOURS: i64 = (APART * (SWEPT as i64 + 1)).div_euclid(3_600) + 1;

/// So that the recorded run of a sweep has a backup that fails and one that is
/// lost: seconds after its beginning.
const IN_A_SWEEP: [(i64, Accident); 2] =
    [(2, Accident::SnapshotFails), (2_000, Accident::SnapshotDeleted)];

/// The happenings of a run that begins then, the last one first.
pub(crate) fn draw(plan: &Plan, profile: &Profile, begin: Timestamp) -> Vec<Happening> {
    let mut rng = Rng::with_seed(plan.seed ^ 0x6861_7070);
    let span = profile.span.as_secs();
    let sweep = profile.kind == Kind::Sweep;
    let mut all = Vec::new();
    for number in 0..profile.doings {
        let doing = if sweep { Doing::in_turn(number) } else { Doing::draw(&mut rng) };
        let at = if sweep { 1 + APART * i64::from(number) } else { rng.i64(0..span) };
        let failing = profile.kind == Kind::Failing && rng.u8(0..10) < 9;
        all.push((at, Happens::Doing(if failing { Doing::Create } else { doing })));
    }
    for _ in 0..profile.accidents {
        all.push((rng.i64(0..span), Happens::Accident(Accident::draw(&mut rng))));
    }
    for _ in 0..profile.spells {
        let trouble = Trouble::ALL[rng.usize(0..Trouble::ALL.len())];
        all.push((rng.i64(0..span), Happens::Spell(trouble)));
    }
    if sweep {
        all.extend(IN_A_SWEEP.map(|(at, accident)| (at, Happens::Accident(accident))));
    }
    let mut happenings: Vec<Happening> = (0..)
        .zip(all)
        .map(|(number, (at, what))| Happening {
            at: begin + SignedDuration::from_secs(at),
            number,
            what,
        })
        .filter(|one| !plan.without.contains(&one.number))
        .collect();
    happenings.sort_by_key(|one| std::cmp::Reverse((one.at, one.number)));
    happenings
}

/// How many happenings a run has: their numbers go up to here.
pub(crate) fn count(profile: &Profile) -> u32 {
    let more = if profile.kind == Kind::Sweep { IN_A_SWEEP.len() } else { 0 };
    profile.doings + profile.accidents + profile.spells + u32::try_from(more).unwrap_or(0)
}
