//! When a run begins: most of them on a winter day, those about schedules mostly shortly
//! before some clock is changed.

use fastrand::Rng;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{SignedDuration, Timestamp};

use super::plan::Kind;

/// When a run begins in which no clock changes.
pub(crate) const EPOCH: Timestamp = Timestamp::constant(1_893_456_000, 0);

/// The year after [`EPOCH`].
const YEAR: SignedDuration = SignedDuration::from_hours(365 * 24);

/// Zones whose clocks change in the year after [`EPOCH`]: of an hour, of half an hour, on
/// either side of the equator, at night and at midnight.
const CHANGING: [&str; 6] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Pacific/Auckland",
    "Africa/Cairo",
];

/// And zones that schedules have whatever changes: of no change, of a quarter of an hour,
/// and one of half an hour.
const OTHERS: [&str; 3] = ["UTC", "Asia/Kathmandu", "Australia/Lord_Howe"];

/// When a run begins, and the zone whose clock is changed in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clocks {
    pub(crate) begin: Timestamp,
    changes: Option<&'static str>,
}

impl Clocks {
    /// What a seed draws, from a generator of its own.
    pub(crate) fn draw(seed: u64, kind: Kind, span: SignedDuration) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x636c_6f63);
        let none = Self { begin: EPOCH, changes: None };
        if !kind.has_schedules()
            || matches!(kind, Kind::Sweep(_) | Kind::Herd(_))
            || rng.u8(0..4) == 0
        {
            return none;
        }
        let name = CHANGING[rng.usize(0..CHANGING.len())];
        let Some(zone) = zone(name) else { return none };
        let all = zone.following(EPOCH).map(|change| change.timestamp());
        let all: Vec<Timestamp> = all.take_while(|at| *at < EPOCH + YEAR).collect();
        let Some(change) = rng.choice(all) else { return none };
        // Somebody must have set a schedule by then.
        let before = rng.i64(span.as_secs() / 3..span.as_secs() * 3 / 4);
        let begin = change.as_second() - before;
        let begin = Timestamp::from_second(begin - begin.rem_euclid(60)).unwrap_or(EPOCH);
        Self { begin, changes: Some(name) }
    }

    /// The zone of a schedule that somebody sets: most of the time the one whose clock
    /// changes.
    pub(crate) fn zone(&self, rng: &mut Rng) -> &'static str {
        match self.changes {
            Some(zone) if rng.u8(0..8) < 6 => zone,
            _ => OTHERS[rng.usize(0..OTHERS.len())],
        }
    }

    /// Whether a clock changes.
    pub(crate) fn is_changed(&self) -> bool {
        self.changes.is_some()
    }
}

/// A zone of the database that is compiled in: what the machine has may be another year's.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok()
}
