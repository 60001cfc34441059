//! A second opinion on when a schedule is due: it walks the minutes.
//!
//! It shares no code and no idea with `schedule::timing`. It looks at a clock
//! on each minute of UTC, one after the other, and remembers which local times
//! it has seen; a gap is a time that it never saw, a fold one that it sees
//! again. It reads plain expressions only: numbers, lists, ranges, steps.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A cron expression: of each field, which values match.
pub(crate) struct Expression {
    pub(crate) text: &'static str,
    fields: Vec<Vec<bool>>,
    both_days: bool,
    repeats: bool,
}

impl Expression {
    /// Reads an expression that is known to be right.
    pub(crate) fn new(text: &'static str) -> Self {
        let words: Vec<&str> = text.split(' ').collect();
        let star = |index: usize| words[index].starts_with('*');
        Self {
            text,
            fields: words
                .iter()
                .zip([0, 0, 1, 1, 0])
                .map(|(word, lowest)| field(word, lowest))
                .collect(),
            both_days: star(2) || star(4),
            repeats: star(1),
        }
    }

    fn matches(&self, local: Local) -> bool {
        let has = |index: usize, value: i64| self.fields[index][usize::try_from(value).unwrap()];
        if !has(0, local.minute) || !has(1, local.hour) || !has(3, local.month) {
            return false;
        }
        let (day, weekday) = (has(2, local.day), has(4, local.weekday));
        if self.both_days { day && weekday } else { day || weekday }
    }
}

/// Values up to 59, `*` from the field's `lowest` on; Sunday is 0.
fn field(word: &str, lowest: usize) -> Vec<bool> {
    let number = |text: &str| text.parse::<usize>().unwrap();
    let mut matching = vec![false; 60];
    for item in word.split(',') {
        let (range, step) = item.split_once('/').unwrap_or((item, "1"));
        let range = match range.split_once('-') {
            _ if range == "*" => lowest..=59,
            Some((from, to)) => number(from)..=number(to),
            None => number(range)..=number(range),
        };
        for value in range.step_by(number(step)) {
            matching[value] = true;
        }
    }
    matching
}

/// What a clock shows, taken apart once for all expressions.
#[derive(Debug, Clone, Copy)]
struct Local {
    /// Minutes since 1970-01-01 00:00 on it.
    count: i64,
    minute: i64,
    hour: i64,
    day: i64,
    month: i64,
    weekday: i64,
}

impl Local {
    /// The Gregorian calendar from the count alone: leap years begin in March
    /// here, so that the leap day is the last of its year.
    fn of(count: i64) -> Self {
        let (days, time) = (count.div_euclid(1440), count.rem_euclid(1440));
        // Since 0000-03-01, in 400 years of 146,097 days.
        let since = days + 719_468;
        let (era, in_era) = (since.div_euclid(146_097), since.rem_euclid(146_097));
        let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
        let in_year = in_era - (365 * year + year / 4 - year / 100);
        let month = (5 * in_year + 2) / 153;
        debug_assert!(era >= 0 && month < 12);
        Self {
            count,
            minute: time % 60,
            hour: time / 60,
            day: in_year - (153 * month + 2) / 5 + 1,
            month: if month < 10 { month + 3 } else { month - 9 },
            // 1970-01-01 was a Thursday.
            weekday: (days + 4).rem_euclid(7),
        }
    }
}

/// One minute of the walk.
#[derive(Debug)]
struct Minute {
    /// Seconds since the Unix epoch.
    instant: i64,
    shown: Local,
    /// The clock has shown the same before.
    again: bool,
    /// What it left out between the minute before and this one.
    skipped: Vec<Local>,
}

/// What a zone's clock shows on each minute of a window.
#[derive(Debug)]
pub(crate) struct Walk {
    minutes: Vec<Minute>,
}

impl Walk {
    /// `from` and `until` are whole minutes, in seconds since the Unix epoch.
    pub(crate) fn new(zone: &TimeZone, from: i64, until: i64) -> Self {
        // By minutes since two days before the window, whatever the offset.
        let base = from / 60 - 2 * 1440;
        let index = |count: i64| usize::try_from(count - base).unwrap();
        let mut seen = vec![false; index(until / 60 + 2 * 1440)];
        let mut minutes: Vec<Minute> = Vec::new();
        for instant in (from..=until).step_by(60) {
            let offset = zone.to_offset(Timestamp::from_second(instant).unwrap()).seconds();
            let count = (instant + i64::from(offset)) / 60;
            let next = minutes.last().map_or(count, |minute| minute.shown.count + 1);
            // Left out only if it was not shown some time before.
            let skipped = (next..count).filter(|count| !seen[index(*count)]);
            let skipped = skipped.map(Local::of).collect();
            let again = std::mem::replace(&mut seen[index(count)], true);
            minutes.push(Minute { instant, shown: Local::of(count), again, skipped });
        }
        Self { minutes }
    }

    /// The slots of the window in seconds since the Unix epoch, in order.
    pub(crate) fn slots(&self, expression: &Expression) -> Vec<i64> {
        self.slots_and_gaps(expression).map(|(instant, _)| instant).collect()
    }

    /// The same, and of each whether it is only there for a local time that was left out.
    pub(crate) fn slots_and_gaps(
        &self,
        expression: &Expression,
    ) -> impl Iterator<Item = (i64, bool)> {
        self.minutes.iter().filter_map(|minute| {
            let matches = |local: &Local| expression.matches(*local);
            let shown = matches(&minute.shown) && (expression.repeats || !minute.again);
            let left_out = !expression.repeats && minute.skipped.iter().any(matches);
            (shown || left_out).then_some((minute.instant, !shown))
        })
    }
}
