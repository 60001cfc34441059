//! How expressions are read, and how near their slots are.

use jiff::tz::TimeZone;
use proptest::prelude::*;

use crate::schedule::{Cron, Plan, Zone};
use crate::time::{Seconds, Time};

fn cron(text: &str) -> Cron {
    Cron::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn refused(text: &str) -> String {
    Cron::parse(text).expect_err(text)
}

#[test]
fn blanks_are_normalised_and_nothing_else() {
    let read = cron("  0\t3  * jan-MAR   Mon ");
    assert_eq!(read.as_str(), "0 3 * jan-MAR Mon");
    assert_eq!(serde_json::to_string(&read).ok().as_deref(), Some(r#""0 3 * jan-MAR Mon""#));
    assert_eq!(serde_json::from_str::<Cron>(r#""0 3 * jan-MAR Mon""#).ok(), Some(read));
    assert!(serde_json::from_str::<Cron>(r#""@daily""#).is_err());
    for blank in ['\u{a0}', '\u{2003}', '\u{3000}', '\n', '\r', '\u{b}'] {
        assert!(Cron::parse(&format!("0 3 * *{blank}*")).is_err(), "{blank:?}");
        assert!(Cron::parse(&format!("0 3 * * *{blank}")).is_err(), "{blank:?}");
    }
}

#[test]
fn what_is_not_five_fields_is_refused_with_an_example() {
    for text in ["", "  ", "0 3 * *", "0 0 3 * * *", "0 3 * * * 2026", "0 3 ? * * * *"] {
        assert!(refused(text).contains("five fields"), "{text}");
    }
    for text in ["@daily", "@reboot", " @every 1h"] {
        assert!(refused(text).contains("Nicknames"), "{text}");
    }
    let long = format!("{}0 0 * * *", "0,".repeat(200));
    assert!(refused(&long).contains("256 characters"));
    let minutes: Vec<String> = (0..60).map(|minute| minute.to_string()).collect();
    let longest = format!("{} * * * *", minutes.join(","));
    assert_eq!(cron(&longest).closest(), Some(Seconds(60)));
}

#[test]
fn a_refusal_names_the_field_and_what_it_takes() {
    for (field, texts) in [
        ("minute field", ["60 * * * *", "MON * * * *", "H * * * *", "-1 * * * *", "1,,2 * * * *"]),
        ("hour field", ["0 24 * * *", "0 L * * *", "0 +3 * * *", "0 1- * * *", "0 003 * * *"]),
        (
            "day-of-month field",
            ["0 0 0 * *", "0 0 L * *", "0 0 15W * *", "0 0 ? * *", "0 0 32 * *"],
        ),
        (
            "month field",
            ["0 0 * 0 *", "0 0 * 13 *", "0 0 * MON *", "0 0 * JANUARY *", "0 0 * 1~3 *"],
        ),
        (
            "day-of-week field",
            ["0 0 * * 8", "0 0 * * 5L", "0 0 * * 1#2", "0 0 * * +1", "0 0 * * *-5"],
        ),
        (
            "step in the minute field",
            ["5/15 * * * *", "*/0 * * * *", "*/60 * * * *", "*/ * * * *", "*/2/3 * * * *"],
        ),
        (
            "range in the hour field",
            ["0 5-3 * * *", "0 23-0 * * *", "0 22-2/2 * * *", "0 1,9-8 * * *", "0 7-6 * * *"],
        ),
    ] {
        for text in texts {
            let fault = refused(text);
            assert!(fault.contains(field) && fault.ends_with('.'), "{text}: {fault}");
        }
    }
    assert!(refused("0 0 * * 5L").contains("names from SUN to SAT"));
    // Not even a part of what was sent: it may be a secret.
    assert!(!refused("hunter2 0 * * *").contains("hunter2"));
}

#[test]
fn the_least_distance_of_two_slots_is_exact() {
    let minutes = |text: &str| cron(text).closest().map(|span| span.0 / 60);
    for (text, least) in [
        ("* * * * *", 1),
        ("*/30 * * * *", 30),
        ("0 * * * *", 60),
        ("7,52 * * * *", 15),
        ("0,59 3 * * *", 59),
        ("50 0-5 * * *", 60),
        ("0,50 3,4 * * *", 10),
        ("0 3 * * *", 1440),
        ("0 3,15 * * *", 720),
        ("0 1,22 * * *", 180),
        // Around midnight, if days that follow each other both match.
        ("59 23,0 * * *", 60),
        ("0,59 0,23 * * *", 1),
        ("0,59 0,23 * * 1", 59),
        ("0 0,23 * * 1,2", 60),
        ("0 0,23 * * 1,3", 23 * 60),
        ("0 0,23 * * 6,7", 60),
        ("0 0,23 1,15 * *", 23 * 60),
        ("0 0,23 1,31 * *", 60),
        ("0 0,23 1,30 1-6 *", 60),
        ("0 0,23 1,30 3,12 *", 23 * 60),
        ("0 0,23 28 2 *", 23 * 60),
        ("0 0,23 1,29 3,2 *", 60),
        // One time of the day.
        ("0 0 * * 1", 7 * 1440),
        ("0 0 1 * *", 28 * 1440),
        ("0 0 */2 * *", 1440),
        ("0 0 1 1 *", 365 * 1440),
        ("0 0 29 2 *", 1461 * 1440),
        ("0 0 13 * 5", 1440),
        ("0 0 29 2 */7", 28 * 1461 / 4 * 1440),
    ] {
        assert_eq!(minutes(text), Some(least), "{text}");
    }
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "* * 30-31 2 *"] {
        assert_eq!(minutes(never), None, "{never}");
    }
}

/// A field of numbers between two, as text.
fn field(least: u8, most: u8) -> impl Strategy<Value = String> {
    let value = || least..=most;
    let item = prop_oneof![
        3 => value().prop_map(|value| value.to_string()),
        2 => (value(), value()).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
        1 => (value(), value(), 1..=most)
            .prop_map(|(a, b, step)| format!("{}-{}/{step}", a.min(b), a.max(b))),
    ];
    prop_oneof![
        3 => Just("*".to_owned()),
        1 => (1..=most).prop_map(|step| format!("*/{step}")),
        4 => prop::collection::vec(item, 1..4).prop_map(|items| items.join(",")),
    ]
}

proptest! {
    /// Slots in UTC, where no clock changes, against croner's.
    #[test]
    fn expressions_mean_what_croner_reads_in_them(
        fields in (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)),
        start in 0i64..4_000_000_000,
    ) {
        let (minute, hour, day, month, weekday) = &fields;
        // croner joins a day field like `*/2` with OR; Vixie cron with AND.
        let stepped = |text: &str| text.starts_with("*/");
        prop_assume!(!stepped(day) && !stepped(weekday));
        let text = format!("{minute} {hour} {day} {month} {weekday}");
        let plan = Plan { cron: cron(&text), zone: Zone::parse("UTC").expect("UTC") };
        let theirs: croner::Cron = text.parse().expect("croner reads it");
        let mut after = Time::from_unix(start);
        let closest = plan.cron.closest();
        for _ in 0..5 {
            let next = plan.next_after(after);
            prop_assert_eq!(closest.is_some(), next.is_some(), "{}", text);
            let Some(next) = next else { break };
            let from = jiff::Timestamp::from_second(after.unix()).expect("an instant");
            let expected = theirs.find_next_occurrence(&from.to_zoned(TimeZone::UTC), false);
            let expected = expected.expect("croner finds it").timestamp().as_second();
            prop_assert_eq!(next.unix(), expected, "{} after {}", text, after);
            prop_assert_eq!(plan.latest_in(after, next), Some(next), "{}", text);
            prop_assert_eq!(plan.latest_in(after, next + Seconds(-1)), None, "{}", text);
            after = next;
        }
    }

    /// No two slots of a walk are nearer than the least distance.
    #[test]
    fn no_two_slots_are_nearer_than_the_least_distance(
        fields in (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7)),
        start in 0i64..4_000_000_000,
    ) {
        let (minute, hour, day, month, weekday) = fields;
        let text = format!("{minute} {hour} {day} {month} {weekday}");
        let plan = Plan { cron: cron(&text), zone: Zone::parse("UTC").expect("UTC") };
        let closest = plan.cron.closest();
        let mut last = plan.next_after(Time::from_unix(start));
        for _ in 0..50 {
            let next = last.and_then(|last| plan.next_after(last));
            if let (Some(last), Some(next)) = (last, next) {
                prop_assert!(Some(next - last) >= closest, "{}", text);
            }
            last = next;
        }
    }
}
