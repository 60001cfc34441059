//! When a schedule is due: a cron expression read by the clock of a time zone.
//!
//! A *slot* is an instant at which a schedule is due. A clock that is put
//! forward skips local times (a gap), one that is put back shows some twice (a
//! fold). What becomes of those is Vixie cron's rule:
//!
//! ```text
//!   hour field            in a gap                      in a fold
//!   fixed (`2`, `0-5`)    one slot, right after it      one slot, the first time
//!   `*...` (`*`, `*/2`)   none                          a slot each time
//! ```
//!
//! So a backup at 02:30 is made on every day, exactly once, and one of each
//! hour at the same distance through the night. Unlike Vixie's, a minute field
//! that begins with `*` does not turn fixed hours into elapsed time: `*/15 2 * * *`
//! has fixed hours too, or the spring would have a night without a backup.
//!
//! All of it is told from the zone's stretches of constant offset, and never
//! from what a library makes of an ambiguous local time: within a stretch a
//! local time is an instant plus the offset, and a stretch that begins later
//! or earlier on the clock than the one before it ended begins with a gap or a fold.
//!
//! ```text
//!   local time shown  ────────▶|        ▲ gap: shown by no stretch
//!                              |        ▼
//!                              |──────────────▶|
//!                              |           |──────────▶  fold: shown by two
//!   instants          ─────────┴───────────────┴───────▶
//! ```

mod cron;
mod zone;

pub use cron::Cron;
pub use zone::Zone;

use serde::{Deserialize, Serialize};

use crate::time::{Seconds, Time};

/// How far ahead and back a slot is looked for: a bound on the work, and longer
/// than any two slots are apart. The rarest is a 29 February that must be a
/// given weekday (`0 0 29 2 */7`): 40 years, if the turn of a century that has
/// no leap day is among them.
const SEARCH: Seconds = Seconds::days(41 * 366);

/// A cron expression and the zone whose clock it is read by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which local times.
    pub cron: Cron,
    /// Whose local times.
    #[serde(rename = "timezone")]
    pub zone: Zone,
}

impl Plan {
    /// The first slot after `after`, itself not counted. None if there is none
    /// in the 41 years that follow, which is: never.
    pub fn next_after(&self, after: Time) -> Option<Time> {
        let from = after + Seconds(1);
        let before = from + SEARCH;
        let mut stretch = Stretch::at(&self.zone, from.unix())?;
        loop {
            if let Some(slot) = stretch.first_slot(&self.cron, from.unix(), before.unix()) {
                return Some(Time::from_unix(slot));
            }
            let end = stretch.end.filter(|end| *end < before.unix())?;
            stretch = Stretch::at(&self.zone, end)?;
        }
    }

    /// The last slot after `after` (itself not counted) and up to `until`. It is
    /// looked for from `until` backwards: that a long outage has missed many
    /// slots costs nothing. At most 41 years before `until`.
    pub fn latest_in(&self, after: Time, until: Time) -> Option<Time> {
        let before = until + Seconds(1);
        let from = (after + Seconds(1)).max(until + Seconds(-SEARCH.0));
        let mut stretch = Stretch::at(&self.zone, until.unix())?;
        loop {
            if let Some(slot) = stretch.last_slot(&self.cron, from.unix(), before.unix()) {
                return Some(Time::from_unix(slot));
            }
            let start = stretch.start.filter(|start| start.at > from.unix())?;
            stretch = Stretch::at(&self.zone, start.at - 1)?;
        }
    }
}

/// The instants between two changes of a zone's clock. Within it an instant
/// `i` (seconds since the Unix epoch) has the local time `i + offset` (seconds
/// since 1970-01-01 00:00 on that clock).
struct Stretch {
    /// None: since ever.
    start: Option<Start>,
    /// The first instant that is no more in it. None: for ever.
    end: Option<i64>,
    /// Local time less UTC.
    offset: i64,
}

/// The change of the clock that a stretch begins with.
#[derive(Clone, Copy)]
struct Start {
    /// The first instant after it.
    at: i64,
    /// The first local time that no stretch before this one has shown.
    unseen: i64,
}

impl Stretch {
    /// The one that an instant is in. None where the calendar ends (year 9999).
    fn at(zone: &Zone, instant: i64) -> Option<Self> {
        let offset = zone.offset_at(instant)?;
        let start = zone.last_change(instant).and_then(|at| {
            // What the stretch before it ended with. Two changes are never so
            // near each other that one before that had shown more (a test looks).
            Some(Start { at, unseen: at + zone.offset_at(at - 1)? })
        });
        Some(Self { start, end: zone.next_change(instant), offset })
    }

    /// Its first slot in `from..before`, both instants.
    fn first_slot(&self, cron: &Cron, from: i64, before: i64) -> Option<i64> {
        let (from, before) = self.within(from, before);
        if cron.follows_elapsed_time() {
            let local = cron.first(from + self.offset, before + self.offset)?;
            return Some(local - self.offset);
        }
        self.slot_after_gap(cron, from, before).or_else(|| {
            let local = cron.first(self.not_yet_shown(from), before + self.offset)?;
            Some(local - self.offset)
        })
    }

    /// Its last slot in `from..before`, both instants.
    fn last_slot(&self, cron: &Cron, from: i64, before: i64) -> Option<i64> {
        let (from, before) = self.within(from, before);
        if cron.follows_elapsed_time() {
            let local = cron.last(from + self.offset, before + self.offset)?;
            return Some(local - self.offset);
        }
        cron.last(self.not_yet_shown(from), before + self.offset)
            .map(|local| local - self.offset)
            .or_else(|| self.slot_after_gap(cron, from, before))
    }

    /// What of `from..before` is in this stretch.
    fn within(&self, from: i64, before: i64) -> (i64, i64) {
        let from = self.start.map_or(from, |start| from.max(start.at));
        (from, self.end.map_or(before, |end| before.min(end)))
    }

    /// The local time at `from`, or in a fold the first that is shown the first time.
    fn not_yet_shown(&self, from: i64) -> i64 {
        let local = from + self.offset;
        self.start.map_or(local, |start| local.max(start.unseen))
    }

    /// The stretch's very first instant, if it makes up for a time of the gap before it.
    fn slot_after_gap(&self, cron: &Cron, from: i64, before: i64) -> Option<i64> {
        let start = self.start.filter(|start| (from..before).contains(&start.at))?;
        cron.first(start.unseen, start.at + self.offset).map(|_| start.at)
    }
}
