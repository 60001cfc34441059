//! Slots by hand, on the days that matter.

use crate::schedule::{Cron, Plan, Zone};
use crate::time::{Seconds, Time};

fn plan(cron: &str, zone: &str) -> Plan {
    let cron = Cron::parse(cron).unwrap_or_else(|fault| panic!("{cron}: {fault}"));
    Plan { cron, zone: Zone::parse(zone).unwrap_or_else(|fault| panic!("{zone}: {fault}")) }
}

fn time(text: &str) -> Time {
    let text = if text.len() == 16 { format!("{text}:00Z") } else { text.to_owned() };
    text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

/// The slots after `after` are these (`2025-03-30T01:00`, UTC), and backwards too.
fn slots(cron: &str, zone: &str, after: &str, expected: &[&str]) {
    let plan = plan(cron, zone);
    let mut last = time(after);
    for next in expected {
        let next = time(next);
        assert_eq!(plan.next_after(last).map(|it| it.to_string()), Some(next.to_string()));
        assert_eq!(plan.latest_in(last, next), Some(next));
        assert_eq!(plan.latest_in(last, next + Seconds(-1)), None);
        last = next;
    }
}

#[test]
fn a_slot_is_after_the_time_asked_for_and_up_to_the_last() {
    let plan = plan("0 3 * * *", "UTC");
    let slot = time("2025-06-01T03:00");
    assert_eq!(plan.next_after(slot + Seconds(-1)), Some(slot));
    assert_eq!(plan.next_after(slot), Some(slot + Seconds::days(1)));
    assert_eq!(plan.next_after(slot + Seconds(1)), Some(slot + Seconds::days(1)));
    assert_eq!(plan.latest_in(slot, slot), None);
    assert_eq!(plan.latest_in(slot + Seconds(-1), slot), Some(slot));
    assert_eq!(plan.latest_in(slot + Seconds(5), slot), None);
}

#[test]
fn the_latest_slot_of_a_long_outage_is_found() {
    let until = time("2025-06-01T12:34:56Z");
    for (cron, latest) in [
        ("* * * * *", "2025-06-01T12:34"),
        ("0 3 * * 1", "2025-05-26T01:00"),
        ("0 0 29 2 *", "2024-02-28T23:00"),
    ] {
        let plan = plan(cron, "Europe/Berlin");
        assert_eq!(plan.latest_in(time("1990-01-01T00:00"), until), Some(time(latest)), "{cron}");
        assert_eq!(plan.latest_in(Time::from_unix(i64::MIN), until), Some(time(latest)), "{cron}");
    }
}

#[test]
fn both_day_fields_are_either_or_unless_one_begins_with_a_star() {
    // 2025-06-01 is a Sunday.
    slots(
        "0 0 3,5 * 3",
        "UTC",
        "2025-06-01T00:00",
        &["2025-06-03T00:00", "2025-06-04T00:00", "2025-06-05T00:00", "2025-06-11T00:00"],
    );
    slots("0 0 */2 * 3", "UTC", "2025-06-01T00:00", &["2025-06-11T00:00", "2025-06-25T00:00"]);
    slots("0 0 1-7 * */7", "UTC", "2025-06-01T00:00", &["2025-07-06T00:00", "2025-08-03T00:00"]);
    slots(
        "0 0 * feb,DEC fri-Sun",
        "UTC",
        "2025-06-01T00:00",
        &["2025-12-05T00:00", "2025-12-06T00:00", "2025-12-07T00:00", "2025-12-12T00:00"],
    );
    slots("0 0 * * 7", "UTC", "2025-06-01T00:00", &["2025-06-08T00:00"]);
}

#[test]
fn rare_days_are_found_and_days_of_no_year_are_not() {
    // 1900 and 2100 have no leap day.
    slots("0 0 29 2 *", "UTC", "1896-02-29T00:00", &["1904-02-29T00:00"]);
    slots("0 0 29 2 *", "UTC", "2096-02-29T00:00", &["2104-02-29T00:00"]);
    slots("0 0 29 2 */7", "UTC", "2088-02-29T00:00", &["2128-02-29T00:00"]);
    for never in ["0 0 30 2 *", "* * 31 4,6,9,11 *"] {
        let plan = plan(never, "America/New_York");
        assert_eq!(plan.next_after(time("2025-01-01T00:00")), None);
        assert_eq!(plan.latest_in(time("1925-01-01T00:00"), time("2025-01-01T00:00")), None);
    }
}

#[test]
fn the_end_of_the_calendar_is_no_slot_and_no_panic() {
    let plan = plan("0 0 1 1 *", "Asia/Tokyo");
    assert_eq!(plan.next_after(time("9999-06-01T00:00")), None);
    for far in [i64::MIN, i64::MAX, -400_000_000_000, 300_000_000_000] {
        assert_eq!(plan.next_after(Time::from_unix(far)), None);
        assert_eq!(plan.latest_in(Time::from_unix(i64::MIN), Time::from_unix(far)), None);
    }
}

#[test]
fn in_berlin_a_fixed_time_runs_once_a_day_whatever_the_clock_does() {
    // 2025-03-30: 02:00 becomes 03:00 at 01:00 UTC.
    slots(
        "30 2 * * *",
        "Europe/Berlin",
        "2025-03-28T12:00",
        &["2025-03-29T01:30", "2025-03-30T01:00", "2025-03-31T00:30"],
    );
    // Several in the gap, and one right after it, are one slot.
    slots(
        "0,20,40 2,3 * * *",
        "Europe/Berlin",
        "2025-03-29T12:00",
        &["2025-03-30T01:00", "2025-03-30T01:20", "2025-03-30T01:40", "2025-03-31T00:00"],
    );
    slots(
        "*/15 2 * * *",
        "Europe/Berlin",
        "2025-03-29T12:00",
        &["2025-03-30T01:00", "2025-03-31T00:00"],
    );
    // 2025-10-26: 03:00 becomes 02:00 at 01:00 UTC; 02:30 the first time.
    slots(
        "30 2 * * *",
        "Europe/Berlin",
        "2025-10-25T12:00",
        &["2025-10-26T00:30", "2025-10-27T01:30"],
    );
    slots(
        "0,30 1-3 * * *",
        "Europe/Berlin",
        "2025-10-25T23:15",
        &[
            "2025-10-25T23:30",
            "2025-10-26T00:00",
            "2025-10-26T00:30",
            "2025-10-26T02:00",
            "2025-10-26T02:30",
        ],
    );
}

#[test]
fn in_berlin_elapsed_time_goes_on() {
    slots(
        "30 * * * *",
        "Europe/Berlin",
        "2025-03-29T23:45",
        &["2025-03-30T00:30", "2025-03-30T01:30", "2025-03-30T02:30"],
    );
    slots(
        "0 */2 * * *",
        "Europe/Berlin",
        "2025-03-29T22:30",
        &["2025-03-29T23:00", "2025-03-30T02:00", "2025-03-30T04:00"],
    );
    slots(
        "30 * * * *",
        "Europe/Berlin",
        "2025-10-25T23:45",
        &["2025-10-26T00:30", "2025-10-26T01:30", "2025-10-26T02:30"],
    );
    slots(
        "0 */2 * * *",
        "Europe/Berlin",
        "2025-10-25T21:00",
        &["2025-10-25T22:00", "2025-10-26T00:00", "2025-10-26T01:00", "2025-10-26T03:00"],
    );
}

#[test]
fn new_york_changes_at_two_by_its_own_clock() {
    slots(
        "0 2 * * *",
        "America/New_York",
        "2025-03-08T12:00",
        &["2025-03-09T07:00", "2025-03-10T06:00"],
    );
    slots(
        "30 1 * * *",
        "America/New_York",
        "2025-11-01T12:00",
        &["2025-11-02T05:30", "2025-11-03T06:30"],
    );
    slots(
        "30 */1 * * *",
        "America/New_York",
        "2025-11-02T05:00",
        &["2025-11-02T05:30", "2025-11-02T06:30", "2025-11-02T07:30"],
    );
}

#[test]
fn lord_howe_changes_by_half_an_hour() {
    // 2025-10-05: 02:00 (+10:30) becomes 02:30 (+11) at 15:30 UTC the day before.
    slots(
        "15,45 2 * * *",
        "Australia/Lord_Howe",
        "2025-10-04T12:00",
        &["2025-10-04T15:30", "2025-10-04T15:45", "2025-10-05T15:15"],
    );
    // 2025-04-06: 02:00 (+11) becomes 01:30 (+10:30) at 15:00 UTC the day before.
    slots(
        "15,45 1 * * *",
        "Australia/Lord_Howe",
        "2025-04-05T12:00",
        &["2025-04-05T14:15", "2025-04-05T14:45", "2025-04-06T14:45"],
    );
    slots(
        "45 * * * *",
        "Australia/Lord_Howe",
        "2025-04-05T14:00",
        &["2025-04-05T14:45", "2025-04-05T15:15", "2025-04-05T16:15"],
    );
}

#[test]
fn casablanca_puts_its_clock_back_for_ramadan() {
    // 2025-02-23: 03:00 (+1) becomes 02:00 (0); 2025-04-06: 02:00 becomes 03:00.
    slots(
        "30 2 * * *",
        "Africa/Casablanca",
        "2025-02-22T12:00",
        &["2025-02-23T01:30", "2025-02-24T02:30"],
    );
    slots(
        "30 2 6,7 4 *",
        "Africa/Casablanca",
        "2025-04-01T00:00",
        &["2025-04-06T02:00", "2025-04-07T01:30"],
    );
}

#[test]
fn in_sao_paulo_there_were_days_without_a_midnight() {
    // 2018-11-04: 00:00 (-3) becomes 01:00 (-2).
    slots(
        "0 0 * * *",
        "America/Sao_Paulo",
        "2018-11-03T12:00",
        &["2018-11-04T03:00", "2018-11-05T02:00"],
    );
    slots("30 0 4 11 *", "America/Sao_Paulo", "2018-11-03T12:00", &["2018-11-04T03:00"]);
    // 2018-02-18: 00:00 (-2) becomes 23:00 (-3) of the 17th, which is a Saturday.
    slots(
        "30 23 * * 6",
        "America/Sao_Paulo",
        "2018-02-17T12:00",
        &["2018-02-18T01:30", "2018-02-25T02:30"],
    );
    slots("0 0 * * *", "America/Sao_Paulo", "2018-02-17T12:00", &["2018-02-18T03:00"]);
}

#[test]
fn samoa_had_no_30th_of_december_in_2011() {
    // All of it fell into a gap, that ended at 10:00 UTC with the 31st (+14).
    slots(
        "0 6,18 * * *",
        "Pacific/Apia",
        "2011-12-29T20:00",
        &["2011-12-30T04:00", "2011-12-30T10:00", "2011-12-30T16:00", "2011-12-31T04:00"],
    );
    slots("0 12 30 12 *", "Pacific/Apia", "2011-01-01T00:00", &["2011-12-30T10:00"]);
    slots(
        "0 * * * *",
        "Pacific/Apia",
        "2011-12-30T08:30",
        &["2011-12-30T09:00", "2011-12-30T10:00", "2011-12-30T11:00"],
    );
    slots("0 * 30 12 *", "Pacific/Apia", "2011-12-01T00:00", &["2012-12-29T10:00"]);
}

#[test]
fn a_clock_that_never_changes_may_be_off_by_a_quarter() {
    slots(
        "0 3 * * *",
        "Asia/Kathmandu",
        "2025-06-01T00:00",
        &["2025-06-01T21:15", "2025-06-02T21:15"],
    );
    slots(
        "*/30 * * * *",
        "Asia/Kathmandu",
        "2025-06-01T00:00",
        &["2025-06-01T00:15", "2025-06-01T00:45"],
    );
}

#[test]
fn after_the_last_change_in_the_database_its_rule_goes_on() {
    slots(
        "30 2 * * *",
        "Europe/Berlin",
        "2150-03-27T12:00",
        &["2150-03-28T01:30", "2150-03-29T01:00", "2150-03-30T00:30"],
    );
}
