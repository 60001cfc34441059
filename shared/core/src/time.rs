//! Time in whole UTC seconds, as the API, the rows, and the announcements show it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// An instant in whole UTC seconds, written `2025-01-15T10:30:00Z`.
///
/// The text has one width from year 0 to 9999, so rows that are ordered by it
/// (the `due` index) are ordered by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(i64);

/// A span in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub i64);

impl Seconds {
    /// `n` minutes.
    pub const fn minutes(n: i64) -> Self {
        Self(n * 60)
    }
    /// `n` hours.
    pub const fn hours(n: i64) -> Self {
        Self(n * 3600)
    }
    /// `n` days of 24 hours.
    pub const fn days(n: i64) -> Self {
        Self(n * 86_400)
    }
}

impl fmt::Display for Seconds {
    /// In words: `1 minute`, `90 minutes`, `4 hours`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.0 {
            seconds if seconds >= 7200 && seconds % 3600 == 0 => (seconds / 3600, "hour"),
            seconds if seconds >= 60 => (seconds / 60, "minute"),
            seconds => (seconds, "second"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

impl Time {
    /// The instant `seconds` after the Unix epoch.
    pub const fn from_unix(seconds: i64) -> Self {
        Self(seconds)
    }
    /// Seconds since the Unix epoch.
    pub const fn unix(self) -> i64 {
        self.0
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .pattern(Some("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"))
            .into()
    }
}

impl ToSchema for Time {}

impl std::ops::Add<Seconds> for Time {
    type Output = Self;
    fn add(self, span: Seconds) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl std::ops::Sub for Time {
    type Output = Seconds;
    fn sub(self, other: Self) -> Seconds {
        Seconds(self.0.saturating_sub(other.0))
    }
}

impl std::ops::Add for Seconds {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_second(self.0) {
            Ok(instant) => write!(f, "{}", instant.strftime("%Y-%m-%dT%H:%M:%SZ")),
            Err(_) => write!(f, "@{}", self.0),
        }
    }
}

impl FromStr for Time {
    type Err = jiff::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.parse::<jiff::Timestamp>()?.as_second()))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // One second has one form: what an event says otherwise its schema refuses too. By
        // length and marks: a list reads thousands of times.
        let marks = text.as_bytes().get(10) == Some(&b'T') && text.ends_with('Z');
        // jiff takes a leap second for the one before.
        let plain = text.len() == 20 && marks && !text.ends_with(":60Z");
        if plain {
            return text.parse().map_err(de::Error::custom);
        }
        Err(de::Error::custom("a time is in whole seconds of UTC, as 2025-01-15T10:30:00Z"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_whole_utc_seconds_and_read_back() {
        let time: Time = "2025-01-15T10:30:00.999Z".parse().expect("a time");
        assert_eq!(time.to_string(), "2025-01-15T10:30:00Z");
        assert_eq!((time + Seconds::days(30)).to_string(), "2025-02-14T10:30:00Z");
        assert_eq!(time.to_string().parse::<Time>().ok(), Some(time));
    }

    #[test]
    fn a_time_in_json_has_one_form() {
        let read = |text: &str| serde_json::from_str::<Time>(&format!("\"{text}\"")).ok();
        assert_eq!(read("2025-01-15T10:30:00Z"), "2025-01-15T10:30:00Z".parse().ok());
        for other in [
            "2025-01-15T10:30:00.5Z",
            "2025-01-15T10:30:00+00:00",
            "2025-01-15T10:30:00z",
            "2025-01-15t10:30:00Z",
            "2025-01-15 10:30:00Z",
            "20250115T103000.000Z",
            "2016-12-31T23:59:60Z",
            "2025-01-15T10:30+00Z",
            "x",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
