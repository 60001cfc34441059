//! The bodies of requests: every fault found at once, or the typed request.
//!
//! Strict on purpose. An unknown field is an error, because a mistyped
//! `expires_in_days` would silently keep a backup for ever; so is a key that
//! stands twice, whose value would be anybody's guess. No reason repeats a
//! value that was sent: what a caller pastes into the wrong field may be a secret.
//!
//! `null` is allowed where the list shows null as well (`node_id`, `remarks`,
//! `expires_in_days`); `name` and `backup_type` are never null.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as WordError, StrDeserializer};

use crate::backup::{BackupType, Change};
use crate::create::NewBackup;
use crate::error::{FieldIssue, Refusal};
use crate::id::NodeId;
use crate::json::{self, Value};
use crate::restore::Asked;
use crate::schedule::{Cron, Plan, Setting, Zone};
use crate::time::Seconds;

/// The largest body that is read.
pub const MAX_BYTES: usize = 64 * 1024;

/// Characters of a name, after trimming.
pub const NAME_CHARACTERS: RangeInclusive<usize> = 1..=100;

/// The most characters of remarks.
pub const MAX_REMARKS_CHARACTERS: usize = 500;

/// Days until a backup expires.
pub const EXPIRY_DAYS: RangeInclusive<u16> = 1..=3650;

/// The body of a create.
///
/// # Errors
/// `invalid_request` with every fault found: of the whole body if it is not a
/// JSON object, else of its fields.
pub fn create(bytes: &[u8]) -> Result<NewBackup, Refusal> {
    let known = ["name", "node_id", "backup_type", "remarks", "expires_in_days"];
    let mut fields = Fields::read(bytes, &known)?;
    let name = fields.required("name", name_of);
    let node_id = fields.optional("node_id", |value| nullable(value, node_of));
    let backup_type = fields.optional("backup_type", type_of);
    let remarks = fields.optional("remarks", |value| nullable(value, remarks_of));
    let expires_in_days = fields.optional("expires_in_days", |value| nullable(value, days_of));
    match name {
        Some(name) if fields.issues.is_empty() => Ok(NewBackup {
            name,
            node_id: node_id.flatten(),
            backup_type: backup_type.unwrap_or_default(),
            remarks: remarks.flatten().flatten(),
            expires_in_days: expires_in_days.flatten(),
        }),
        _ => Err(Refusal::invalid(fields.issues)),
    }
}

/// The body of a patch of a backup: at least one field.
///
/// # Errors
/// As [`create`].
pub fn patch(bytes: &[u8]) -> Result<Change, Refusal> {
    let known = ["name", "remarks", "expires_in_days"];
    let mut fields = Fields::read(bytes, &known)?;
    let change = Change {
        name: fields.optional("name", name_of),
        remarks: fields
            .optional("remarks", |value| nullable(value, remarks_of))
            .map(Option::flatten),
        expires_in_days: fields.optional("expires_in_days", |value| nullable(value, days_of)),
    };
    if fields.issues.is_empty() && change == Change::default() {
        let reason = format!("Send at least one of {}.", listed(&known));
        fields.issues.push(FieldIssue::new("", "required", reason));
    }
    if fields.issues.is_empty() { Ok(change) } else { Err(Refusal::invalid(fields.issues)) }
}

/// The body of a restore. There need not be one.
///
/// # Errors
/// As [`create`].
pub fn restore(bytes: &[u8]) -> Result<Asked, Refusal> {
    if bytes.is_empty() {
        return Ok(Asked::default());
    }
    let mut fields = Fields::read(bytes, &["allow_partial", "safety_backup"])?;
    let allow_partial = fields.optional("allow_partial", |value| flag_of("allow_partial", value));
    let safety_backup = fields.optional("safety_backup", |value| flag_of("safety_backup", value));
    if fields.issues.is_empty() {
        Ok(Asked {
            allow_partial: allow_partial.unwrap_or_default(),
            safety_backup: safety_backup.unwrap_or_default(),
        })
    } else {
        Err(Refusal::invalid(fields.issues))
    }
}

/// The body of a schedule. Two of its slots must be at least `apart` apart; clock changes,
/// which bring some nearer and others further, are left out of account.
///
/// # Errors
/// As [`create`].
pub fn schedule(bytes: &[u8], apart: Seconds) -> Result<Setting, Refusal> {
    let known = ["cron", "timezone", "expires_in_days", "node_id", "enabled"];
    let mut fields = Fields::read(bytes, &known)?;
    let cron = fields.required("cron", |value| cron_of(value, apart));
    let zone = fields.optional("timezone", zone_of);
    let expires_in_days = fields.optional("expires_in_days", |value| nullable(value, days_of));
    let node_id = fields.optional("node_id", |value| nullable(value, node_of));
    let enabled = fields.optional("enabled", |value| flag_of("enabled", value));
    match cron {
        Some(cron) if fields.issues.is_empty() => Ok(Setting {
            plan: Plan { cron, zone: zone.unwrap_or_default() },
            expires_in_days: expires_in_days.flatten(),
            node_id: node_id.flatten(),
            enabled: enabled.unwrap_or(true),
        }),
        _ => Err(Refusal::invalid(fields.issues)),
    }
}

/// A cron expression that fires, and not too often.
fn cron_of(value: &Value, apart: Seconds) -> Result<Cron, Fault> {
    let cron = Cron::parse(text_of("cron", value)?).map_err(|reason| ("value", reason))?;
    match cron.closest() {
        None => Err(("value", "`cron` names no day that there ever is.".to_owned())),
        Some(closest) if closest < apart => {
            let reason = format!(
                "`cron` must leave at least {apart} between two backups; this one leaves {closest}."
            );
            Err(("range", reason))
        }
        Some(_) => Ok(cron),
    }
}

/// The name of a time zone.
fn zone_of(value: &Value) -> Result<Zone, Fault> {
    Zone::parse(text_of("timezone", value)?).map_err(|reason| ("value", reason))
}

/// `true` or `false`.
fn flag_of(field: &str, value: &Value) -> Result<bool, Fault> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        _ => Err(("type", format!("`{field}` must be `true` or `false`."))),
    }
}

/// A fault of one value: its kind, and a sentence that says what to do.
type Fault = (&'static str, String);

/// A field whose `null` means that it is not set.
fn nullable<T>(
    value: &Value,
    check: impl FnOnce(&Value) -> Result<T, Fault>,
) -> Result<Option<T>, Fault> {
    match value {
        Value::Null => Ok(None),
        value => check(value).map(Some),
    }
}

/// 1 to 100 characters after trimming.
fn name_of(value: &Value) -> Result<String, Fault> {
    let name = text_of("name", value)?.trim();
    if NAME_CHARACTERS.contains(&name.chars().count()) {
        Ok(name.to_owned())
    } else {
        let (least, most) = (NAME_CHARACTERS.start(), NAME_CHARACTERS.end());
        let reason = format!(
            "`name` must have {least} to {most} characters, not counting blanks around it."
        );
        Err(("length", reason))
    }
}

/// Up to 500 characters as sent; blank ones are none.
fn remarks_of(value: &Value) -> Result<Option<String>, Fault> {
    let remarks = text_of("remarks", value)?;
    if remarks.chars().count() > MAX_REMARKS_CHARACTERS {
        let reason = format!("`remarks` must have at most {MAX_REMARKS_CHARACTERS} characters.");
        return Err(("length", reason));
    }
    Ok(Some(remarks).filter(|text| !text.trim().is_empty()).map(str::to_owned))
}

/// A string without control characters. They are refused before trimming: a
/// line break at the end of a name is a mistake of the program that sent it.
fn text_of<'a>(field: &str, value: &'a Value) -> Result<&'a str, Fault> {
    match value {
        Value::Text(text) if text.chars().any(char::is_control) => {
            let reason = format!(
                "`{field}` must not contain control characters such as line breaks and tabs."
            );
            Err(("value", reason))
        }
        Value::Text(text) => Ok(text),
        _ => Err(("type", format!("`{field}` must be a string."))),
    }
}

/// A node's id. Whether the deployment has that node is not the body's affair.
fn node_of(value: &Value) -> Result<NodeId, Fault> {
    integer_of("node_id", value, 1..=u64::MAX).map(NodeId)
}

/// 1 to 3650 days.
fn days_of(value: &Value) -> Result<u16, Fault> {
    let (least, most) = (*EXPIRY_DAYS.start(), *EXPIRY_DAYS.end());
    let days = integer_of("expires_in_days", value, least.into()..=most.into())?;
    // The range has been checked: `most` is out of reach of the fallback.
    Ok(u16::try_from(days).unwrap_or(most))
}

/// An integer within a range. `30.0` and `3e1` are integers too, as JSON Schema has it
/// (2020-12, 6.1.1), as long as they are below 2^53. One beyond every `u64` is out
/// of range, though it is read as a float.
fn integer_of(field: &str, value: &Value, range: RangeInclusive<u64>) -> Result<u64, Fault> {
    let kind = match value {
        Value::Unsigned(number) if range.contains(number) => return Ok(*number),
        Value::Unsigned(_) | Value::Negative(_) => "range",
        Value::Float(number) if number.abs() < EXACT && number.fract() == 0.0 => {
            #[expect(clippy::cast_possible_truncation, reason = "it is an integer below 2^53")]
            let whole = *number as i64;
            match u64::try_from(whole) {
                Ok(whole) if range.contains(&whole) => return Ok(whole),
                _ => "range",
            }
        }
        Value::Float(number) if number.abs() >= BEYOND_U64 => "range",
        Value::Float(_)
        | Value::Null
        | Value::Bool(_)
        | Value::Text(_)
        | Value::List(_)
        | Value::Object(_) => "type",
    };
    let (least, most) = (range.start(), range.end());
    Err((kind, format!("`{field}` must be an integer from {least} to {most}.")))
}

/// 2^53. From here on a float stands for several integers: another node perhaps.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// 2^64.
const BEYOND_U64: f64 = 18_446_744_073_709_551_616.0;

/// One of the type's words.
fn type_of(value: &Value) -> Result<BackupType, Fault> {
    let reason = "`backup_type` must be `manual`, `scheduled` or `pre_upgrade`.";
    let Value::Text(word) = value else {
        return Err(("type", reason.to_owned()));
    };
    let word: StrDeserializer<'_, WordError> = word.as_str().into_deserializer();
    BackupType::deserialize(word).map_err(|_| ("value", reason.to_owned()))
}

/// The fields of a body, and the faults found so far.
struct Fields {
    /// Every value of each known field that stands in the body.
    values: BTreeMap<&'static str, Vec<Value>>,
    issues: Vec<FieldIssue>,
}

impl Fields {
    /// Reads a JSON object: what it has besides `known`, or twice, is a fault.
    fn read(bytes: &[u8], known: &[&'static str]) -> Result<Self, Refusal> {
        let entries = match json::parse(bytes) {
            Ok(Value::Object(entries)) => entries,
            Ok(_) => {
                let issue = FieldIssue::new("", "type", "The body must be a JSON object.");
                return Err(Refusal::invalid(vec![issue]));
            }
            Err(issue) => return Err(Refusal::invalid(vec![issue])),
        };
        let mut fields = Self { values: BTreeMap::new(), issues: Vec::new() };
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for (key, value) in entries {
            if let Some(field) = known.iter().find(|known| **known == key) {
                fields.values.entry(field).or_default().push(value);
            }
            *counts.entry(key).or_default() += 1;
        }
        for (key, count) in counts {
            if !known.contains(&key.as_str()) {
                let reason = format!("There is no such field; there are {}.", listed(known));
                fields.issues.push(FieldIssue::new(key.as_str(), "unknown", reason));
            }
            if count > 1 {
                let reason = "The field stands more than once; leave one.";
                fields.issues.push(FieldIssue::new(key, "duplicate", reason));
            }
        }
        Ok(fields)
    }

    /// The field's value; that it is missing is a fault.
    fn required<T>(
        &mut self,
        field: &'static str,
        check: impl Fn(&Value) -> Result<T, Fault>,
    ) -> Option<T> {
        if !self.values.contains_key(field) {
            let reason = format!("`{field}` is required.");
            self.issues.push(FieldIssue::new(field, "required", reason));
        }
        self.optional(field, check)
    }

    /// The field's value, if it is there. Of one that stands twice every value
    /// is checked: each fault is found at once.
    fn optional<T>(
        &mut self,
        field: &'static str,
        check: impl Fn(&Value) -> Result<T, Fault>,
    ) -> Option<T> {
        let mut found = None;
        for value in self.values.remove(field).unwrap_or_default() {
            match check(&value) {
                Ok(value) => found = Some(value),
                Err((code, reason)) => {
                    let issue = FieldIssue::new(field, code, reason);
                    if !self.issues.contains(&issue) {
                        self.issues.push(issue);
                    }
                }
            }
        }
        found
    }
}

/// "`a`, `b`, `c`"
fn listed(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests;
