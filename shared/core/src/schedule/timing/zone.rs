//! Time zones by their IANA names, from the database that is compiled in.

use std::fmt;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// In the database, and no place's clock: what a machine has whose zone was never set.
const NO_PLACE: &str = "Factory";

/// A time zone of the IANA database, such as `Europe/Berlin`.
///
/// Its rules are those of the database in this binary, whatever the machine
/// has installed: the same schedule has the same slots everywhere.
#[derive(Debug, Clone)]
pub struct Zone {
    /// As the database writes it.
    name: String,
    rules: TimeZone,
}

impl Zone {
    /// The zone of that name, links (`Asia/Calcutta`) among them. Only as the
    /// database spells it: one zone must not have many names in rows and lists.
    ///
    /// # Errors
    /// A sentence for the caller, with the nearest name if one is near. It does
    /// not repeat what was sent.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = TimeZoneDatabase::bundled().get(name).ok();
        match found.filter(|rules| rules.iana_name() == Some(name) && name != NO_PLACE) {
            Some(rules) => Ok(Self { name: name.to_owned(), rules }),
            None => Err(refusal(nearest(name))),
        }
    }

    /// Its name, as the database writes it.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Local time less UTC at an instant, in seconds. None beyond year 9999.
    pub(super) fn offset_at(&self, instant: i64) -> Option<i64> {
        let instant = Timestamp::from_second(instant).ok()?;
        Some(self.rules.to_offset(instant).seconds().into())
    }

    /// The first change of the clock after `instant`.
    pub(super) fn next_change(&self, instant: i64) -> Option<i64> {
        let instant = Timestamp::from_second(instant).ok()?;
        Some(self.rules.following(instant).next()?.timestamp().as_second())
    }

    /// The last change of the clock up to and at `instant`.
    pub(super) fn last_change(&self, instant: i64) -> Option<i64> {
        let instant = Timestamp::from_second(instant.checked_add(1)?).ok()?;
        Some(self.rules.preceding(instant).next()?.timestamp().as_second())
    }
}

fn refusal(nearest: Option<String>) -> String {
    let rule =
        "The time zone must be a name of the IANA database, such as `UTC` or `Europe/Berlin`";
    match nearest {
        Some(name) => format!("{rule}; did you mean `{name}`?"),
        None => format!("{rule}."),
    }
}

/// The name that was probably meant: the same but for capitals and blanks, or
/// the same city, or one that differs in a few characters.
fn nearest(sent: &str) -> Option<String> {
    /// Longer than every name of the database, whose longest has 32.
    const LONGEST: usize = 40;
    let sent = sent.trim().to_ascii_lowercase().replace(' ', "_");
    if sent.is_empty() || sent.len() > LONGEST {
        return None;
    }
    // An offset's sign is the other way round in the database (`Etc/GMT+1` is west of
    // Greenwich), and of abbreviations each is near to another: no guess at either.
    let number = sent.bytes().any(|byte| byte.is_ascii_digit());
    let most = if number || sent.len() < 5 { 0 } else { 1 + sent.len() / 6 };
    let known = TimeZoneDatabase::bundled();
    let names = known.available().map(|name| name.to_string());
    let near = names.filter(|name| name != NO_PLACE).filter_map(|name| {
        let plain = name.to_ascii_lowercase();
        let city = !number && plain.rsplit('/').next() == Some(sent.as_str());
        // Nearly all are told apart by their length, for a fraction of the time.
        let distance = match plain.len().abs_diff(sent.len()) {
            _ if plain == sent => 0,
            _ if city => 1,
            more if more > most => return None,
            _ => strsim::levenshtein(&sent, &plain),
        };
        (city || distance <= most).then_some((distance, name))
    });
    near.min().map(|(_, name)| name)
}

impl Default for Zone {
    /// `UTC`.
    fn default() -> Self {
        Self { name: "UTC".to_owned(), rules: TimeZone::UTC }
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
