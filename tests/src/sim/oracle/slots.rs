//! When a schedule is due: told by walking the minutes, which shares no code with the
//! service's own arithmetic.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::clocks;
use super::super::plan::Profile;
use crate::rows::text;

#[expect(clippy::unwrap_used, dead_code, reason = "written for the tests of the timing itself")]
#[path = "../../../../shared/core/tests/minutes/mod.rs"]
mod minutes;

/// The expressions that people set, none of them often enough to be refused: a few times
/// an hour, or every few hours.
pub(crate) const OFTEN: [&str; 6] = [
    "*/10 * * * *",
    "*/20 * * * *",
    "7,37 * * * *",
    "0 * * * *",
    "15 */2 * * *",
    "30 0-23/3 * * *",
];

/// Of fixed hours, in and around those in which clocks are changed.
pub(crate) const NIGHTLY: [&str; 6] = [
    "*/20 0-3 * * *",
    "30 0-3,23 * * *",
    "10,40 1-2 * * *",
    "45 0,2,23 * * *",
    "15 0,1 * * *",
    "5,35 0-2,23 * * *",
];

/// For weeks.
pub(crate) const SELDOM: [&str; 7] = [
    "30 2 * * *",
    "15 0 * * *",
    "45 1 * * *",
    "0 */6 * * *",
    "20 0,6,12,18 * * *",
    "10 1,13 * * *",
    "30 1 * * 0,3",
];

/// Longer than anything goes on after the time of a seed, and a week for the next slot.
const AFTER: SignedDuration = SignedDuration::from_hours(16 * 24);

/// Before the beginning: what a clock has shown twice is known by the first time.
const BEFORE: SignedDuration = SignedDuration::from_hours(24);

/// What a clock shows at a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// A time of the expression.
    Once,
    /// One that it shows twice.
    Twice,
    /// Another one: that of the expression was skipped.
    Skipped,
}

/// The slots of every schedule that there was, from the beginning on.
#[derive(Debug, Default)]
pub(super) struct Slots {
    from: i64,
    until: i64,
    walks: BTreeMap<String, minutes::Walk>,
    /// By expression and zone: each slot, and whether it makes up for a skipped time.
    all: BTreeMap<(String, String), Vec<(Timestamp, bool)>>,
}

impl Slots {
    pub(super) fn new(profile: &Profile) -> Self {
        let begin = profile.clocks.begin;
        let second = |at: Timestamp| at.as_second() - at.as_second().rem_euclid(60);
        Self {
            from: second(begin - BEFORE),
            until: second(begin + profile.span + AFTER),
            ..Self::default()
        }
    }

    /// All slots of a setting.
    fn of(&mut self, setting: &Value) -> &[(Timestamp, bool)] {
        let (cron, name) = (text(setting, "cron"), text(setting, "timezone"));
        let key = (cron.to_owned(), name.to_owned());
        if !self.all.contains_key(&key) {
            let mut known = OFTEN.iter().chain(&NIGHTLY).chain(&SELDOM);
            let known = known.find(|one| **one == cron);
            let (Some(cron), Some(zone)) = (known, clocks::zone(name)) else { return &[] };
            let walk = self.walks.entry(name.to_owned());
            let walk = walk.or_insert_with(|| minutes::Walk::new(&zone, self.from, self.until));
            let cron = minutes::Expression::new(cron);
            let slots = walk.slots_and_gaps(&cron);
            let slots = slots.filter_map(|(at, gap)| Some((Timestamp::from_second(at).ok()?, gap)));
            self.all.insert(key.clone(), slots.collect());
        }
        self.all.get(&key).map_or(&[], Vec::as_slice)
    }

    /// The slots of a setting after one moment and up to another; none if it does not run.
    pub(super) fn between(
        &mut self,
        setting: &Value,
        after: Timestamp,
        until: Timestamp,
    ) -> Vec<Timestamp> {
        if setting["enabled"] != true {
            return Vec::new();
        }
        let all = self.of(setting);
        let first = all.partition_point(|(slot, _)| *slot <= after);
        all[first..].iter().map(|(slot, _)| *slot).take_while(|slot| *slot <= until).collect()
    }

    /// What the clock of the setting shows at one of its slots.
    pub(super) fn shown(&mut self, setting: &Value, slot: Timestamp) -> Shown {
        if self.of(setting).iter().any(|(at, gap)| *at == slot && *gap) {
            return Shown::Skipped;
        }
        let twice = |zone: &TimeZone| {
            let local = zone.to_datetime(slot);
            matches!(
                zone.to_ambiguous_timestamp(local).offset(),
                jiff::tz::AmbiguousOffset::Fold { .. }
            )
        };
        match clocks::zone(text(setting, "timezone")) {
            Some(zone) if twice(&zone) => Shown::Twice,
            _ => Shown::Once,
        }
    }
}
