//! What happens in a run, and when: all of it drawn before the run begins, each
//! with a number by which it can be left out.

use fastrand::Rng;
use jiff::{SignedDuration, Timestamp};

use super::accidents::Accident;
use super::brake::{self, Pull};
use super::crowd;
use super::doing::Doing;
use super::people::Person;
use super::plan::{Kind, Plan, Profile};
use super::restoring;
use super::rushing;
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
    Brake(Pull),
}

/// What the recorded run of a sweep is about: by the seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Script {
    /// Each thing that people do, once; a backup fails, and one is lost.
    Everything,
    /// The control plane's changes.
    Registry,
    /// Backups that expire, and deletes that AWS refuses.
    Removal,
    /// Restores: one that goes well, one whose nodes do not all start, and one that an
    /// operator calls back.
    Restoring,
    /// More failed backups than are kept.
    Failing,
    /// A schedule: slots that run, that wait, that rotate at the limit, and an upgrade.
    Scheduling,
    /// One restore of a deployment of so many nodes. No sweep has it.
    Downtime(usize),
}

impl Script {
    /// How many there are: a sweep of as many seeds in a row has each.
    pub(crate) const COUNT: u64 = 6;

    /// The script of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        match seed % Self::COUNT {
            1 => Self::Everything,
            2 => Self::Registry,
            3 => Self::Removal,
            4 => Self::Restoring,
            5 => Self::Scheduling,
            _ => Self::Failing,
        }
    }

    /// What happens, and how many seconds after its beginning.
    fn happenings(self) -> Vec<(i64, Happens)> {
        // A backup is over by the next one.
        let apart =
            |seconds: i64, all: Vec<Happens>| (0..).map(move |at| 1 + seconds * at).zip(all);
        match self {
            Self::Everything => {
                // A new thing is swept without anyone thinking of it.
                let all = Doing::every().map(Happens::Doing).collect();
                let mut all: Vec<_> = apart(780, all).collect();
                // While one is being made: of several moments one is right.
                all.extend([4, 8, 784].map(|at| (at, Happens::Accident(Accident::SnapshotFails))));
                all.push((2_000, Happens::Accident(Accident::SnapshotDeleted)));
                all
            }
            Self::Registry => {
                let each = (0..Person::CHANGES).flat_map(|change| {
                    [Doing::Registry(Some(change)), Doing::Create].map(Happens::Doing)
                });
                apart(1_900, each.collect()).collect()
            }
            Self::Removal => {
                let refused = [
                    Trouble::DeleteDenied,
                    Trouble::DeleteInUse,
                    Trouble::DeleteLocked,
                    Trouble::ListsNothing,
                ];
                // Two to delete at a time; and in the end some that expire.
                let each = refused.into_iter().zip(0..).flat_map(|(trouble, at)| {
                    let at = 1 + 2_400 * at;
                    [
                        (at, Happens::Doing(Doing::Create)),
                        (at + 780, Happens::Doing(Doing::Create)),
                        (at + 1_560, Happens::Spell(trouble)),
                        (at + 1_580, Happens::Doing(Doing::Delete)),
                        (at + 1_600, Happens::Doing(Doing::Delete)),
                        (at + 1_620, Happens::Doing(Doing::Delete)),
                    ]
                });
                let last = (0..3).map(|at| (10_000 + 780 * at, Happens::Doing(Doing::Create)));
                each.chain(last).collect()
            }
            Self::Restoring => vec![
                (1, Happens::Doing(Doing::Create)),
                (2, Happens::Doing(Doing::Create)),
                (1_000, Happens::Doing(Doing::Restore)),
                (6_000, Happens::Doing(Doing::Restore)),
                (6_120, Happens::Doing(Doing::Order)),
                (6_900, Happens::Doing(Doing::Restores)),
                (6_901, Happens::Doing(Doing::Restores)),
                (6_902, Happens::Doing(Doing::Restores)),
                (6_903, Happens::Doing(Doing::Restores)),
                // When the nodes are to be started, and the volumes to be attached.
                (12_000, Happens::Doing(Doing::Restore)),
                (12_110, Happens::Spell(Trouble::StartFull)),
                (18_000, Happens::Doing(Doing::Restore)),
                (18_080, Happens::Spell(Trouble::AttachRefused)),
            ],
            Self::Downtime(_) => {
                vec![(1, Happens::Doing(Doing::Create)), (1_000, Happens::Doing(Doing::Restore))]
            }
            Self::Scheduling => vec![
                (1, Happens::Doing(Doing::SetSchedule)),
                // It runs when the first slot comes, which waits.
                (1_198, Happens::Doing(Doing::Create)),
                // The third of as many as there may be.
                (1_800, Happens::Doing(Doing::Upgrade)),
                // At the limit the schedule's own gives way, two times.
                (2_500, Happens::Doing(Doing::ReadSchedule)),
                // The slot that waits for it is one that soon nobody wants any more.
                (3_598, Happens::Doing(Doing::Upgrade)),
                (3_610, Happens::Doing(Doing::Unschedule)),
                (3_660, Happens::Doing(Doing::SetSchedule)),
                (4_000, Happens::Doing(Doing::Registry(Some(Person::LIMIT)))),
                (5_998, Happens::Doing(Doing::Upgrade)),
                (6_010, Happens::Doing(Doing::Unschedule)),
            ],
            Self::Failing => apart(300, vec![Happens::Doing(Doing::Create); 23]).collect(),
        }
    }

    /// How long it takes: of backups that expire, until the last one has.
    pub(crate) fn hours(self) -> i64 {
        match self {
            Self::Removal => 6 * 24,
            _ => self.happenings().iter().map(|(at, _)| at / 3_600 + 1).max().unwrap_or(1),
        }
    }
}

/// The happenings of a run that begins then, the last one first.
pub(crate) fn draw(plan: &Plan, profile: &Profile, begin: Timestamp) -> Vec<Happening> {
    let all = match profile.kind {
        Kind::Sweep(script) => script.happenings(),
        _ => drawn(plan, profile),
    };
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

/// What a seed draws.
fn drawn(plan: &Plan, profile: &Profile) -> Vec<(i64, Happens)> {
    let mut rng = Rng::with_seed(plan.seed ^ 0x6861_7070);
    let span = profile.span.as_secs();
    let mut all = Vec::new();
    for _ in 0..profile.doings {
        let doing = Doing::draw(&mut rng, profile.kind);
        let at = rng.i64(0..span);
        let failing = profile.kind == Kind::Failing && rng.u8(0..10) < 9;
        all.push((at, Happens::Doing(if failing { Doing::Create } else { doing })));
    }
    for _ in 0..profile.accidents {
        all.push((rng.i64(0..span), Happens::Accident(Accident::draw(&mut rng, profile.kind))));
    }
    for _ in 0..profile.spells {
        // Those of restores stand at the end.
        let of = if profile.kind.has_restores() {
            Trouble::ALL.len() - Trouble::OF_RESTORES..Trouble::ALL.len()
        } else {
            0..Trouble::ALL.len() - Trouble::OF_RESTORES
        };
        let of = if rng.bool() { of } else { 0..Trouble::ALL.len() - Trouble::OF_RESTORES };
        let trouble = Trouble::ALL[rng.usize(of)];
        let away = matches!(profile.kind, Kind::Schedules | Kind::ScheduledWeeks);
        let trouble = if away && rng.u8(0..3) == 0 { Trouble::TicksAway } else { trouble };
        all.push((rng.i64(0..span), Happens::Spell(trouble)));
    }
    all.extend(brake::draw(plan, profile));
    all.extend(rushing::draw(plan, profile));
    all.extend(crowd::draw(plan, profile));
    all.extend(restoring::draw(plan, profile));
    all
}

/// How many happenings a run has: their numbers go up to here.
pub(crate) fn count(plan: &Plan, profile: &Profile) -> u32 {
    if let Kind::Sweep(script) = profile.kind {
        return u32::try_from(script.happenings().len()).unwrap_or(0);
    }
    let rushes = rushing::how_many(profile.requests);
    let crowds = crowd::how_many(plan, profile.kind);
    let late = u32::from(restoring::at_the_last_moment(plan, profile.kind));
    profile.doings + profile.accidents + profile.spells + profile.brakes + rushes + crowds + late
}
