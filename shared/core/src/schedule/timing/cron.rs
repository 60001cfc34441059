//! Cron expressions of five fields: how one is read, and which local times it names.
//!
//! Local times are whole seconds since 1970-01-01 00:00 on the clock in
//! question. Nothing here knows of zones.
//!
//! Our own reader, and not the crate `croner`, which the tests compare it with:
//! croner takes more than crontab(5) does (`L`, `W`, `#`, seconds, years, `MON`
//! in the minute field), joins `*/2` days with OR where Vixie cron has AND, and
//! holds 5 KB of years for each expression, which takes it 80 times as long to read.

use std::fmt;

use jiff::civil::Date;
use jiff::tz::Offset;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::time::Seconds;

/// Seconds in a minute.
const MINUTE: i64 = 60;

/// Minutes in a day.
const DAY: i64 = 1440;

/// After so many months the calendar begins anew, weekdays and leap years alike
/// (400 years); and 41 years more, so that the distance over its seam counts too.
const CALENDAR: usize = (400 + 41) * 12;

/// A cron expression: minute, hour, day of the month, month, day of the week.
///
/// Its text is kept as sent, but for blanks; two are equal if their texts are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    /// Of each field the values that it names, as bits. Never empty.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is bit 0.
    weekdays: u64,
    /// Either of the two day fields is enough, or both must match.
    either_day: bool,
    /// The hour field begins with `*`.
    every_hour: bool,
}

/// One of the five fields.
struct Field {
    /// As sentences call it.
    name: &'static str,
    least: u64,
    most: u64,
    /// Names for the values from `least` on.
    names: &'static [&'static str],
}

const MINUTES: Field = Field { name: "minute", least: 0, most: 59, names: &[] };
const HOURS: Field = Field { name: "hour", least: 0, most: 23, names: &[] };
const DAYS: Field = Field { name: "day-of-month", least: 1, most: 31, names: &[] };
const MONTHS: Field = Field {
    name: "month",
    least: 1,
    most: 12,
    names: &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"],
};
const WEEKDAYS: Field = Field {
    name: "day-of-week",
    least: 0,
    most: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
};

impl Cron {
    /// The most characters of an expression. One that lists every minute has 177.
    pub const MAX_CHARACTERS: usize = 256;

    /// Reads an expression as crontab(5) has it: five fields of numbers, lists,
    /// ranges, and steps; names for months and weekdays in any case; Sunday is
    /// 0 and 7. If both day fields are restricted either is enough, but if one
    /// begins with `*` both must match.
    ///
    /// # Errors
    /// A sentence for the caller. It does not repeat what was sent.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split([' ', '\t']).filter(|field| !field.is_empty()).collect();
        let text = fields.join(" ");
        if text.len() > Self::MAX_CHARACTERS {
            return Err(format!(
                "The schedule must have at most {} characters.",
                Self::MAX_CHARACTERS
            ));
        }
        if text.starts_with('@') {
            return Err("Nicknames such as `@daily` are not supported; write five fields, such \
                        as `0 3 * * *` for 03:00 every day."
                .to_owned());
        }
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err("The schedule must have five fields, minute hour day-of-month month \
                        day-of-week, such as `0 3 * * *` for 03:00 every day; there are none \
                        for seconds and years."
                .to_owned());
        };
        let weekdays = WEEKDAYS.read(weekday)?;
        Ok(Self {
            minutes: MINUTES.read(minute)?,
            hours: HOURS.read(hour)?,
            days: DAYS.read(day)?,
            months: MONTHS.read(month)?,
            // 7 is Sunday too.
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            either_day: !day.starts_with('*') && !weekday.starts_with('*'),
            every_hour: hour.starts_with('*'),
            text,
        })
    }

    /// The expression as sent, with single blanks.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The least distance of two slots that follow each other, leaving changes
    /// of the clock aside. None if it names no day of any year (`0 0 30 2 *`).
    pub fn closest(&self) -> Option<Seconds> {
        let (first, last) = (self.time_from(0)?, self.time_until(DAY - 1)?);
        let over_midnight = self.closest_days()? * DAY + first - last;
        let closest = self.closest_within_day().map_or(over_midnight, |it| it.min(over_midnight));
        Some(Seconds(closest * MINUTE))
    }

    /// Whether clock changes neither add nor move a slot: the hour field begins with `*`.
    pub(super) fn follows_elapsed_time(&self) -> bool {
        self.every_hour
    }

    /// The first local time in `from..before` that it names, both in seconds.
    pub(super) fn first(&self, from: i64, before: i64) -> Option<i64> {
        let minute = from.div_euclid(MINUTE) + i64::from(from.rem_euclid(MINUTE) > 0);
        let (today, time) = (minute.div_euclid(DAY), minute.rem_euclid(DAY));
        let mut month = Month::of(today)?;
        while month.start * DAY * MINUTE < before {
            let mut days = self.days_of(&month);
            while days != 0 {
                let day = month.start + i64::from(days.trailing_zeros()) - 1;
                days &= days - 1;
                if day < today {
                    continue;
                }
                if let Some(time) = self.time_from(if day == today { time } else { 0 }) {
                    return Some((day * DAY + time) * MINUTE).filter(|found| *found < before);
                }
            }
            month = month.next()?;
        }
        None
    }

    /// The last local time in `from..before` that it names, both in seconds.
    pub(super) fn last(&self, from: i64, before: i64) -> Option<i64> {
        let minute = (before - 1).div_euclid(MINUTE);
        let (today, time) = (minute.div_euclid(DAY), minute.rem_euclid(DAY));
        let mut month = Month::of(today)?;
        while (month.start + month.length) * DAY * MINUTE > from {
            let mut days = self.days_of(&month);
            while days != 0 {
                let number = days.ilog2();
                let day = month.start + i64::from(number) - 1;
                days &= !(1 << number);
                if day > today {
                    continue;
                }
                if let Some(time) = self.time_until(if day == today { time } else { DAY - 1 }) {
                    return Some((day * DAY + time) * MINUTE).filter(|found| *found >= from);
                }
            }
            month = month.previous()?;
        }
        None
    }

    /// The days of a month that it names: bit 1 is the first.
    fn days_of(&self, month: &Month) -> u64 {
        if self.months >> month.number & 1 == 0 {
            return 0;
        }
        // Weekdays from that of the 1st on, then that week five times over.
        let week = (self.weekdays | self.weekdays << 7) >> month.weekday & 0x7f;
        let weekdays = (week | week << 7 | week << 14 | week << 21 | week << 28) << 1;
        let days = if self.either_day { self.days | weekdays } else { self.days & weekdays };
        days & ((2 << month.length) - 2)
    }

    /// The first time of day at or after one, in minutes.
    fn time_from(&self, time: i64) -> Option<i64> {
        let (hour, minute) = (time / 60, time % 60);
        if self.hours >> hour & 1 == 1
            && let Some(minute) = lowest(self.minutes & !0 << minute)
        {
            return Some(hour * 60 + minute);
        }
        let hour = lowest(self.hours & !1 << hour)?;
        Some(hour * 60 + lowest(self.minutes)?)
    }

    /// The last time of day at or before one, in minutes.
    fn time_until(&self, time: i64) -> Option<i64> {
        let (hour, minute) = (time / 60, time % 60);
        if self.hours >> hour & 1 == 1
            && let Some(minute) = highest(self.minutes & ((2 << minute) - 1))
        {
            return Some(hour * 60 + minute);
        }
        let hour = highest(self.hours & ((1 << hour) - 1))?;
        Some(hour * 60 + highest(self.minutes)?)
    }

    /// The least distance of two times of the same day, in minutes. None: there is one only.
    fn closest_within_day(&self) -> Option<i64> {
        let over_the_hour = highest(self.minutes)? - lowest(self.minutes)?;
        let hours = least_distance(self.hours).map(|hours| hours * 60 - over_the_hour);
        least_distance(self.minutes).into_iter().chain(hours).min()
    }

    /// The least distance of two days that follow each other. None: it names no day.
    fn closest_days(&self) -> Option<i64> {
        let mut month = Month::of(0)?;
        let (mut closest, mut last) = (None, None);
        for _ in 0..CALENDAR {
            let mut days = self.days_of(&month);
            while days != 0 {
                let day = month.start + i64::from(days.trailing_zeros());
                days &= days - 1;
                let distance = last.replace(day).map(|last| day - last);
                closest = [closest, distance].into_iter().flatten().min();
                if closest == Some(1) {
                    return closest;
                }
            }
            month = month.next()?;
        }
        closest
    }
}

impl Field {
    /// The values that a field names, as bits.
    fn read(&self, text: &str) -> Result<u64, String> {
        text.split(',').try_fold(0, |values, item| Ok(values | self.item(item)?))
    }

    /// `*`, a value, or a range; all but the value with or without a step.
    fn item(&self, item: &str) -> Result<u64, String> {
        let (range, step) = match item.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (item, None),
        };
        let (first, last) = if range == "*" {
            (self.least, self.most)
        } else if let Some((first, last)) = range.split_once('-') {
            self.range(first, last)?
        } else if step.is_some() {
            return Err(format!(
                "A step in the {} field must follow `*` or a range, such as `*/2` or `1-5/2`.",
                self.name
            ));
        } else {
            let value = self.value(range)?;
            (value, value)
        };
        let step = step.map_or(Ok(1), |step| self.step(step))?;
        let steps = (first..=last).step_by(step);
        Ok(steps.fold(0, |values, value| values | 1 << value))
    }

    /// A range's first and last value.
    fn range(&self, first: &str, last: &str) -> Result<(u64, u64), String> {
        let (first, mut end) = (self.value(first)?, self.value(last)?);
        // `FRI-SUN`: a week ends on Sunday as well as it begins on it.
        if end == 0 && first > 0 && last.eq_ignore_ascii_case("SUN") {
            end = 7;
        }
        if first > end {
            return Err(format!(
                "A range in the {} field must not run backwards; write two, such as `{}-{},{}-{}`.",
                self.name,
                self.most - 1,
                self.most,
                self.least,
                self.least + 1
            ));
        }
        Ok((first, end))
    }

    /// A number or a name of this field.
    fn value(&self, text: &str) -> Result<u64, String> {
        if let Some(index) = self.names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
            return Ok(self.least + index as u64);
        }
        number(text).filter(|value| (self.least..=self.most).contains(value)).ok_or_else(|| {
            let names = match self.names {
                [first, .., last] => format!(", names from {first} to {last}"),
                _ => String::new(),
            };
            format!(
                "The {} field must be made of numbers from {} to {}{names}, `*`, lists (`1,4`), \
                 ranges (`1-5`) and steps (`*/2`); there is no `L`, `W`, `#`, `?` or `H`.",
                self.name, self.least, self.most
            )
        })
    }

    /// A step. One that leaves the field at once (`*/90` minutes) would not do
    /// what was meant by it: it would be due each hour.
    fn step(&self, text: &str) -> Result<usize, String> {
        let step = number(text).filter(|step| (1..=self.most).contains(step));
        step.and_then(|step| usize::try_from(step).ok()).ok_or_else(|| {
            format!("A step in the {} field must be a number from 1 to {}.", self.name, self.most)
        })
    }
}

/// One or two digits.
fn number(text: &str) -> Option<u64> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// The lowest of a set of bits.
fn lowest(bits: u64) -> Option<i64> {
    (bits != 0).then(|| i64::from(bits.trailing_zeros()))
}

/// The highest of a set of bits.
fn highest(bits: u64) -> Option<i64> {
    bits.checked_ilog2().map(i64::from)
}

/// The least distance of two bits that are set. None: there is one only.
fn least_distance(bits: u64) -> Option<i64> {
    (1..64).find(|distance| bits & bits >> distance != 0)
}

/// A month of the calendar.
struct Month {
    year: i16,
    /// 1 to 12.
    number: i8,
    /// Its 1st, in days since 1970-01-01.
    start: i64,
    /// In days.
    length: i64,
    /// Of its 1st; 0 is Sunday.
    weekday: i8,
}

impl Month {
    /// The one that a day is in, in days since 1970-01-01. None where the
    /// calendar ends (year 9999).
    fn of(day: i64) -> Option<Self> {
        let midnight = jiff::Timestamp::from_second(day.checked_mul(DAY * MINUTE)?).ok()?;
        let date = Offset::UTC.to_datetime(midnight).date();
        Self::starting(date.year(), date.month(), day - i64::from(date.day()) + 1)
    }

    /// The month that follows.
    fn next(&self) -> Option<Self> {
        let start = self.start + self.length;
        match self.number {
            12 => Self::starting(self.year + 1, 1, start),
            number => Self::starting(self.year, number + 1, start),
        }
    }

    /// The month before.
    fn previous(&self) -> Option<Self> {
        let (year, number) = match self.number {
            1 => (self.year - 1, 12),
            number => (self.year, number - 1),
        };
        let length = Date::new(year, number, 1).ok()?.days_in_month();
        Self::starting(year, number, self.start - i64::from(length))
    }

    /// The month whose 1st is the day `start`.
    fn starting(year: i16, number: i8, start: i64) -> Option<Self> {
        let first = Date::new(year, number, 1).ok()?;
        let weekday = first.weekday().to_sunday_zero_offset();
        Some(Self { year, number, start, length: first.days_in_month().into(), weekday })
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Cron {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Cron {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
