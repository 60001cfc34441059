//! Slots around every change of every clock, against a walk over the minutes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics says enough")]

mod minutes;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use backups_core::schedule::{Cron, Plan, Zone};
use backups_core::time::Time;
use jiff::tz::{TimeZone, TimeZoneDatabase, TimeZoneTransition};
use jiff::{SignedDuration, Timestamp};
use minutes::{Expression, Walk};

/// Seconds in a day.
const DAY: i64 = 86_400;

/// Around each change, either way. More than any clock was ever changed by.
const AROUND: i64 = 3 * DAY / 2;

/// What a clock does in a window: its first and last second, its offset at the
/// first, and its changes. Zones that do the same are compared once.
type Window = (i64, i64, i32, Vec<(i64, i32)>);

/// The windows around all changes of these years that are `wanted` by their size
/// in seconds, and of each a zone. How many zones have one is returned with them.
fn windows(
    years: RangeInclusive<i16>,
    wanted: impl Fn(i32) -> bool,
) -> (BTreeMap<Window, String>, usize) {
    let january = |year: i16| -> Timestamp { format!("{year}-01-01T00:00Z").parse().unwrap() };
    let (from, until) = (january(*years.start()), january(years.end() + 1));
    let (mut windows, mut zones) = (BTreeMap::new(), 0);
    let database = TimeZoneDatabase::bundled();
    for name in database.available().filter(|name| name.as_str() != "Factory") {
        let zone = database.get(name.as_str()).unwrap();
        let changes = zone.following(from).take_while(|change| change.timestamp() < until);
        let size = |change: &TimeZoneTransition<'_>| {
            let before = change.timestamp() - SignedDuration::from_secs(1);
            change.offset().seconds() - zone.to_offset(before).seconds()
        };
        let changes = changes.filter(|change| wanted(size(change)));
        let changes: Vec<i64> = changes.map(|change| change.timestamp().as_second()).collect();
        zones += usize::from(!changes.is_empty());
        for change in changes {
            if let Some(window) = window(&zone, change) {
                windows.entry(window).or_insert_with(|| name.to_string());
            }
        }
    }
    (windows, zones)
}

/// The window around a change; None if a clock in it is not a whole minute off
/// UTC, so that the walk would miss what it shows.
fn window(zone: &TimeZone, change: i64) -> Option<Window> {
    let middle = change - change.rem_euclid(60);
    let (from, until) = (middle - AROUND, middle + AROUND);
    let begin = Timestamp::from_second(from).unwrap();
    let offset = zone.to_offset(begin).seconds();
    let changes = zone.following(begin).map(|it| (it.timestamp().as_second(), it.offset()));
    let changes = changes.take_while(|(at, _)| *at <= until);
    let changes: Vec<(i64, i32)> = changes.map(|(at, offset)| (at, offset.seconds())).collect();
    let whole = offset % 60 == 0 && changes.iter().all(|(at, o)| at % 60 == 0 && o % 60 == 0);
    whole.then_some((from, until, offset, changes))
}

/// Compares in each window the slots of each expression.
fn compare(windows: &BTreeMap<Window, String>, expressions: &[&'static str]) {
    let expressions: Vec<(Expression, Cron)> = expressions
        .iter()
        .map(|text| (Expression::new(text), Cron::parse(text).expect("a schedule")))
        .collect();
    let database = TimeZoneDatabase::bundled();
    for ((from, until, ..), name) in windows {
        let walk = Walk::new(&database.get(name).unwrap(), *from, *until);
        let zone = Zone::parse(name).expect("a zone");
        for (expression, cron) in &expressions {
            let plan = Plan { cron: cron.clone(), zone: zone.clone() };
            // In the first minute the walk does not know what went before.
            let mut walked = walk.slots(expression);
            walked.retain(|slot| slot > from);
            let context =
                || format!("`{}` in {name} from {}", expression.text, Time::from_unix(*from));
            assert_eq!(forwards(&plan, *from, *until), walked, "{}", context());
            walked.reverse();
            assert_eq!(backwards(&plan, *from, *until), walked, "{}, backwards", context());
        }
    }
}

/// The slots after `from` up to `until`, by asking for the next.
fn forwards(plan: &Plan, from: i64, until: i64) -> Vec<i64> {
    let next = |after: &i64| plan.next_after(Time::from_unix(*after)).map(Time::unix);
    std::iter::successors(next(&from), next).take_while(|slot| *slot <= until).collect()
}

/// The same from the last to the first, by asking for the latest.
fn backwards(plan: &Plan, from: i64, until: i64) -> Vec<i64> {
    let latest =
        |until: i64| plan.latest_in(Time::from_unix(from), Time::from_unix(until)).map(Time::unix);
    std::iter::successors(latest(until), |slot| latest(slot - 1)).collect()
}

#[test]
fn slots_of_all_zones_are_those_of_a_walk_over_the_minutes() {
    let (windows, zones) = windows(2024..=2030, |_| true);
    assert!(zones > 150 && windows.len() > 300, "{zones} zones, {} windows", windows.len());
    compare(
        &windows,
        &[
            // Fixed hours.
            "30 2 * * *",
            "0 0 * * *",
            "0,15,30,45 0-3 * * *",
            "*/20 1,2,23 * * *",
            "59 23,0 * * *",
            "45 1 * * 0",
            "30 0-2 * * 5,6",
            "5 3 25-31 3,10 *",
            "15 2 1-7 * 0",
            "0 1 */2 * 0-6/3",
            // Elapsed time.
            "0 * * * *",
            "25,55 */2 * * *",
            "30 */3 * * 0",
            "10 * 28-31 * 6",
            "*/30 */1 */2 * *",
        ],
    );
}

/// Whole days that were skipped, clocks that were changed by minutes or by two
/// hours: what few clocks are due to do, and any may come to.
#[test]
fn slots_around_the_odd_changes_of_the_past_are_those_of_a_walk_too() {
    let (windows, zones) = windows(1950..=2023, |size| size.abs() != 3600);
    assert!(zones > 100 && windows.len() > 100, "{zones} zones, {} windows", windows.len());
    compare(&windows, &["10,40 0-3,23 * * *", "0 12 1,31 * 0", "20,50 */2 * * *"]);
}
