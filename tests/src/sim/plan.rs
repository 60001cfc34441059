//! What a seed is: how long, how many, how bad. All of it is drawn before the run
//! begins, each matter from a generator of its own, so that leaving one thing out
//! does not shift the others more than it must.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use cloud::Pace;
use fastrand::Rng;
use jiff::SignedDuration;

use super::brake;
use super::clocks::Clocks;
use super::crash_point::CrashPoint;
use super::happenings::Script;
use super::herd::Herd;
use super::restoring::at_the_last_moment;
use super::rushing;

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The seed of every choice.
    pub seed: u64,
    /// Leaves these happenings out, by their numbers.
    pub without: BTreeSet<u32>,
    /// Lets these faults pass, by their numbers.
    pub unstruck: BTreeSet<u32>,
    /// One crash at one call, and no other fault: the sweep.
    pub crash: Option<CrashPoint>,
    /// One restore of a deployment of so many nodes, and nothing goes wrong: how long it
    /// is down.
    pub nodes: Option<usize>,
    /// So many schedules due at once, and nothing goes wrong.
    pub herd: Option<Herd>,
    /// Keeps the trace.
    pub trace: bool,
}

impl Plan {
    /// All that the seed has.
    pub fn of(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// The kinds of seeds come round after so many.
const ROUND: u64 = 32;

/// Those of a round that are about restores.
const RESTORING: [u64; 7] = [1, 9, 15, 17, 25, 27, 29];

/// Those of a round that are about schedules and upgrades; the third lasts for weeks, the fourth
/// has restores too.
const SCHEDULING: [u64; 4] = [5, 13, 21, 31];

/// The seed of that number, counted over those that are about schedules and upgrades.
pub fn scheduling(number: u64) -> u64 {
    let each = SCHEDULING.len() as u64;
    let at = usize::try_from(number % each).unwrap_or(0);
    number / each * ROUND + SCHEDULING[at]
}

/// The seed of that number, counted over those that are about restores.
pub fn restoring(number: u64) -> u64 {
    let each = RESTORING.len() as u64;
    let at = usize::try_from(number % each).unwrap_or(0);
    number / each * ROUND + RESTORING[at]
}

/// What kind of run it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Hours to days, faults of all kinds.
    Days,
    /// The same with nothing going wrong: then each backup must complete, soon.
    Quiet,
    /// One to three weeks, expiries among them.
    Weeks,
    /// Deployments that cannot be backed up: failed backups pile up.
    Failing,
    /// A node with more volumes than EC2 takes in one call.
    Huge,
    /// Restores, and what goes wrong with them.
    Restores,
    /// Schedules and upgrades.
    Schedules,
    /// The same for one to three weeks.
    ScheduledWeeks,
    /// The same, and restores that slots fall into.
    ScheduledRestores,
    /// Many schedules that are due at once.
    Herd(Herd),
    /// A short life for the sweep of crash points.
    Sweep(Script),
}

impl Kind {
    /// Whether people set schedules.
    pub(crate) fn has_schedules(self) -> bool {
        matches!(self, Self::Schedules | Self::ScheduledWeeks | Self::ScheduledRestores)
    }

    /// Whether people restore.
    pub(crate) fn has_restores(self) -> bool {
        matches!(self, Self::Restores | Self::ScheduledRestores)
    }

    /// Whether it lasts for weeks.
    pub(crate) fn is_long(self) -> bool {
        matches!(self, Self::Weeks | Self::ScheduledWeeks)
    }
}

/// A fault of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    CrashBefore,
    CrashAfter,
    CrashAfterReply,
    ReplyLost,
    Refused,
    Throttled,
    Error5xx,
    Error5xxApplied,
    TimedOut,
    TimedOutApplied,
    AppliedLate,
    Slow,
    Conflict,
    /// Of a transaction that is asked for again: it is still being carried out.
    InProgress,
    ShortPage,
    EntriesRefused,
}

impl Fault {
    /// Those that any call may meet.
    const ALL: [Self; 15] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::CrashAfterReply,
        Self::ReplyLost,
        Self::Refused,
        Self::Throttled,
        Self::Error5xx,
        Self::Error5xxApplied,
        Self::TimedOut,
        Self::TimedOutApplied,
        Self::AppliedLate,
        Self::Slow,
        Self::Conflict,
        Self::ShortPage,
        Self::EntriesRefused,
    ];

    /// Whether it shows in AWS's answer: it is counted when it does, for something else
    /// may have refused the call, or there is but one page.
    pub(crate) const fn is_of_the_answer(self) -> bool {
        matches!(
            self,
            Self::Throttled
                | Self::Error5xx
                | Self::Conflict
                | Self::InProgress
                | Self::ShortPage
                | Self::EntriesRefused
        )
    }

    /// Whether the caller is no more after it.
    pub(crate) const fn is_crash(self) -> bool {
        matches!(self, Self::CrashBefore | Self::CrashAfter | Self::CrashAfterReply)
    }

    /// As the reach table and the trace have it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CrashBefore => "crash_before",
            Self::CrashAfter => "crash_after",
            Self::CrashAfterReply => "crash_after_reply",
            Self::ReplyLost => "reply_lost",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Error5xx => "error_5xx",
            Self::Error5xxApplied => "error_5xx_applied",
            Self::TimedOut => "timed_out",
            Self::TimedOutApplied => "timed_out_applied",
            Self::AppliedLate => "applied_late",
            Self::Slow => "slow",
            Self::Conflict => "conflict",
            Self::InProgress => "transaction_in_progress",
            Self::ShortPage => "short_page",
            Self::EntriesRefused => "entries_refused",
        }
    }
}

/// How bad a seed is. Rates are per ten thousand.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) kind: Kind,
    /// When it begins.
    pub(crate) clocks: Clocks,
    /// For how long people and accidents happen.
    pub(crate) span: SignedDuration,
    /// How many things people do.
    pub(crate) doings: u32,
    pub(crate) accidents: u32,
    pub(crate) spells: u32,
    /// How often an operator pauses something.
    pub(crate) brakes: u32,
    /// Of a call.
    pub(crate) calls: u32,
    /// Of a call that changes EC2 or is rare, if it is more.
    pub(crate) changes: u32,
    /// Of a call that tells the bus something, if it is more.
    pub(crate) tells: u32,
    /// Of a transaction, if it is more.
    pub(crate) transactions: u32,
    /// The faults that calls of this seed have. Not all at once: what one fault
    /// hides, another seed without it shows.
    pub(crate) faults: Vec<Fault>,
    pub(crate) events_lost: u32,
    pub(crate) events_doubled: u32,
    pub(crate) events_late: u32,
    pub(crate) ticks_skipped: u32,
    pub(crate) ticks_doubled: u32,
    /// The most that a function's clock is off, in milliseconds.
    pub(crate) skew: i64,
    /// Whether index queries may see an older table.
    pub(crate) stale: bool,
    /// Whether rows stand in the due index that this release cannot read.
    pub(crate) unreadable: bool,
    /// Whether in the end all backups are deleted.
    pub(crate) clear: bool,
    pub(crate) pace: Pace,
    /// How long a snapshot that stalls moves no more: longer than the deadline, at times.
    pub(crate) stalls: [RangeInclusive<i64>; 2],
    /// How many requests a key may make in a minute, if not as many as the template says.
    pub(crate) requests: Option<u32>,
    /// Stack parameters.
    pub(crate) parameters: Vec<(String, String)>,
}

impl Profile {
    /// What the seed draws.
    pub(crate) fn draw(plan: &Plan) -> Self {
        let mut rng = Rng::with_seed(plan.seed ^ 0x7072_6f66);
        let kind = match plan.seed % ROUND {
            _ if let Some(nodes) = plan.nodes => Kind::Sweep(Script::Downtime(nodes)),
            _ if let Some(herd) = plan.herd => Kind::Herd(herd),
            _ if plan.crash.is_some() => Kind::Sweep(Script::of(plan.seed)),
            3 => Kind::Quiet,
            7 | 23 => Kind::Weeks,
            11 => Kind::Failing,
            19 => Kind::Huge,
            of if RESTORING.contains(&of) => Kind::Restores,
            of if of == SCHEDULING[2] => Kind::ScheduledWeeks,
            of if of == SCHEDULING[3] => Kind::ScheduledRestores,
            of if SCHEDULING.contains(&of) => Kind::Schedules,
            _ => Kind::Days,
        };
        let drawn = hours(kind, &mut rng);
        let hours = if at_the_last_moment(plan, kind) { 26 } else { drawn };
        let doings = match kind {
            // Towards the fewer: two short runs meet more than a long one.
            Kind::Days | Kind::Quiet | Kind::Weeks => {
                if rng.u8(0..16) == 0 {
                    rng.u32(20..=60)
                } else {
                    rng.u32(20..=22)
                }
            }
            // More than the failed backups that are kept.
            Kind::Failing => 40,
            Kind::Huge => 12,
            Kind::Restores => 16,
            Kind::Schedules | Kind::ScheduledRestores => 24,
            Kind::ScheduledWeeks => 36,
            Kind::Herd(_) | Kind::Sweep(_) => 0,
        };
        let among = |rng: &mut Rng, rates: &[u32]| rates[rng.usize(0..rates.len())];
        let (mut parameters, deadline) = parameters(kind, &mut rng);
        let requests = rushing::limit(plan, kind);
        parameters.extend(requests.map(|most| ("RequestsPerMinute".to_owned(), most.to_string())));
        let mut faults = Fault::ALL.to_vec();
        faults.retain(|_| rng.u8(0..10) < 6);
        let profile = Self {
            kind,
            clocks: Clocks::draw(plan.seed, kind, SignedDuration::from_hours(hours)),
            span: SignedDuration::from_hours(hours),
            doings,
            accidents: if kind.is_long() { rng.u32(4..=16) } else { rng.u32(0..=8) },
            spells: rng.u32(if kind.has_restores() { 1..=4 } else { 0..=3 }),
            brakes: brake::how_many(plan, kind),
            calls: match kind {
                // What is pruned last is not pruned again: it must be met.
                Kind::Failing => among(&mut rng, &[300, 800, 2_000]),
                Kind::Restores => among(&mut rng, &[0, 100, 300, 800]),
                _ => among(&mut rng, &[0, 0, 30, 100, 300, 800]),
            },
            // What is worst to lose is lost often, in some seeds.
            changes: match kind {
                Kind::Restores => among(&mut rng, &[0, 800, 2_000]),
                _ => among(&mut rng, &[0, 0, 0, 0, 2_000]),
            },
            tells: among(&mut rng, &[0, 0, 0, 0, 0, 2_000]),
            transactions: among(&mut rng, &[0, 0, 0, 0, 2_000]),
            faults,
            events_lost: among(&mut rng, &[0, 500, 5_000, 10_000]),
            events_doubled: among(&mut rng, &[0, 500, 3_000]),
            events_late: among(&mut rng, &[0, 500, 3_000]),
            ticks_skipped: among(&mut rng, &[0, 500, 3_000]),
            ticks_doubled: among(&mut rng, &[0, 500, 2_000]),
            skew: i64::from(among(&mut rng, &[0, 500, 4_000, 7_000])),
            stale: rng.u8(0..3) == 0,
            // Each is met once an hour.
            unreadable: rng.u8(0..8) == 0 && !kind.is_long(),
            // A schedule makes new ones meanwhile.
            clear: rng.u8(0..3) == 0 && !kind.has_schedules(),
            pace: pace(kind, &mut rng),
            // Between the two: whether it is given up then is for either to say.
            stalls: [5..=deadline * 45, deadline * 110..=deadline * 190],
            requests,
            parameters,
        };
        profile.eased(plan.seed)
    }

    /// The same with less or nothing going wrong, where that is what it is about. The draws
    /// are made all the same: they cost nothing.
    fn eased(self, seed: u64) -> Self {
        let kind = self.kind;
        // What is late or told wrongly shows best where nothing is to blame for it.
        if kind.has_schedules() && Rng::with_seed(seed ^ 0x736d_6f6f).u8(0..4) == 0 {
            let (calls, changes, tells, transactions, ticks_skipped) = (0, 0, 0, 0, 0);
            let brakes = 0;
            return Self { brakes, calls, changes, tells, transactions, ticks_skipped, ..self };
        }
        if !matches!(kind, Kind::Quiet | Kind::Herd(_) | Kind::Sweep(_)) {
            return self;
        }
        Self {
            accidents: 0,
            spells: 0,
            brakes: 0,
            calls: 0,
            changes: 0,
            tells: 0,
            transactions: 0,
            events_lost: 0,
            events_doubled: 0,
            events_late: 0,
            ticks_skipped: 0,
            ticks_doubled: 0,
            skew: 0,
            stale: false,
            unreadable: false,
            clear: matches!(kind, Kind::Sweep(_)),
            ..self
        }
    }
}

/// How many hours a seed of a kind lasts.
fn hours(kind: Kind, rng: &mut Rng) -> i64 {
    match kind {
        Kind::Days => rng.i64(2..=36),
        Kind::Quiet => rng.i64(2..=12),
        Kind::Weeks | Kind::ScheduledWeeks => rng.i64(7 * 24..=21 * 24),
        Kind::Failing => rng.i64(4..=8),
        Kind::Huge => rng.i64(1..=3),
        Kind::Restores => rng.i64(2..=24),
        Kind::Schedules | Kind::ScheduledRestores => rng.i64(2..=9),
        Kind::Herd(herd) => herd.hours(),
        Kind::Sweep(script) => script.hours(),
    }
}

/// Stack parameters, and the deadline of a backup in progress, in hours.
fn parameters(kind: Kind, rng: &mut Rng) -> (Vec<(String, String)>, i64) {
    let mut parameters = Vec::new();
    // As the template has them.
    if matches!(kind, Kind::Herd(_)) {
        return (parameters, 24);
    }
    let mut set = |name: &str, value: &str| parameters.push((name.to_owned(), value.to_owned()));
    // A tick asks each of them: many are drawn seldom.
    let shards = match rng.u8(0..64) {
        0 => "6",
        1..=4 => "3",
        5..=20 => "2",
        _ => "1",
    };
    set("DueShards", shards);
    // What moves no more is looked at until then: the template's own day is drawn seldom.
    let deadline = match rng.u8(0..64) {
        0 => 24,
        1..=15 => 2,
        _ => 1,
    };
    set("InProgressDeadlineHours", &deadline.to_string());
    if rng.bool() {
        set("ProBackupLimit", "3");
    }
    set("MinScheduleMinutes", "5");
    if kind.has_restores() || kind == Kind::Sweep(Script::Restoring) {
        set("OldVolumeHours", "1");
        set("PreparingDeadlineMinutes", "15");
        set("StartingDeadlineMinutes", "10");
    }
    (parameters, deadline)
}

/// How fast AWS is.
fn pace(kind: Kind, rng: &mut Rng) -> Pace {
    const MINUTE: u64 = 60_000;
    if matches!(kind, Kind::Herd(_) | Kind::Sweep(Script::Downtime(_))) {
        return Pace::default();
    }
    // The longer a snapshot takes, the more looks at it: most are short.
    let snapshot_ms = match rng.u8(0..64) {
        0 if !matches!(kind, Kind::Sweep(_)) => 20 * MINUTE..=90 * MINUTE,
        1..=40 => 3_000..=50_000,
        _ => MINUTE..=4 * MINUTE,
    };
    // Up to what the service waits for: a minute, less the call's own seconds.
    let describe_lag_ms = match rng.u8(0..8) {
        0 => 0..=50_000,
        1 | 2 => 0..=20_000,
        _ => 0..=5_000,
    };
    Pace { snapshot_ms, describe_lag_ms, ..Pace::default() }
}
