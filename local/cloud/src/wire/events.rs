//! `EventBridge`, JSON protocol 1.1: `PutEvents` (M), (EB).

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Reply, internal_error, json_error};
use crate::Cloud;
use crate::bus::Entry;
use crate::config::DEFAULT_BUS;
use crate::faults::Verdict;

/// The operation's name.
pub(crate) const PUT_EVENTS: &str = "PutEvents";

const SERVICE: &str = "events";
const MOST_ENTRIES: usize = 10;
/// "The total entry size must be less than 256KB" (M).
const LARGEST: usize = 256 * 1024;

/// 2^63.
const TOO_LARGE: f64 = 9_223_372_036_854_775_808.0;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutEvents {
    #[serde(default)]
    entries: Vec<PutEventsEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutEventsEntry {
    /// Seconds since the epoch.
    time: Option<f64>,
    source: Option<String>,
    #[serde(default)]
    resources: Option<Vec<String>>,
    detail_type: Option<String>,
    detail: Option<String>,
    event_bus_name: Option<String>,
}

/// Why one entry is not taken: code and message.
type Refusal = (&'static str, String);

impl Cloud {
    /// Answers an `EventBridge` request; the target is the `X-Amz-Target`
    /// header, `AWSEvents.PutEvents`.
    pub fn events(&mut self, now: Timestamp, x_amz_target: &str, body: &[u8]) -> Reply {
        self.advance(now);
        let name = x_amz_target.rsplit('.').next().unwrap_or_default();
        let name: String = name.chars().take(64).collect();
        if name != PUT_EVENTS {
            let message = format!("The action {name} is not simulated.");
            self.record(now, SERVICE, &name, &[], false, "InvalidAction");
            return json_error(SERVICE, "InvalidAction", Some(&message));
        }
        let request = serde_json::from_slice::<PutEvents>(body);
        let mut buses: Vec<String> = match &request {
            Ok(request) => request.entries.iter().map(PutEventsEntry::bus).collect(),
            Err(_) => Vec::new(),
        };
        buses.sort();
        buses.dedup();
        let (reply, outcome) = match self.verdict(PUT_EVENTS, &buses) {
            Verdict::Hang => (Reply::Hang, "hang".to_owned()),
            Verdict::Throttle => refused("ThrottlingException", None),
            Verdict::Error(code) => {
                refused(code.as_deref().unwrap_or(internal_error(SERVICE)), None)
            }
            Verdict::Proceed => self.put_events(request),
            Verdict::LoseReply => (Reply::LoseReply, self.put_events(request).1),
        };
        self.record(now, SERVICE, PUT_EVENTS, &buses, false, &outcome);
        reply
    }

    fn put_events(&mut self, request: serde_json::Result<PutEvents>) -> (Reply, String) {
        let entries = match request {
            Ok(request) => request.entries,
            Err(error) => {
                return refused("SerializationException", Some(&error.to_string()));
            }
        };
        if entries.is_empty() || entries.len() > MOST_ENTRIES {
            let bound = if entries.is_empty() {
                "greater than or equal to 1".to_owned()
            } else {
                format!("less than or equal to {MOST_ENTRIES}")
            };
            let message = format!(
                "1 validation error detected: Value at 'entries' failed to satisfy constraint: \
                 Member must have length {bound}"
            );
            return refused("ValidationException", Some(&message));
        }
        if entries.iter().map(PutEventsEntry::size).sum::<usize>() >= LARGEST {
            let message = "Total size of the entries in the request is over the limit.";
            return refused("ValidationException", Some(message));
        }
        let mut failed = 0;
        let mut first = None;
        let answers: Vec<Value> = entries
            .into_iter()
            .map(|entry| {
                let bus = entry.bus();
                match entry.check(self.now) {
                    Ok(entry) => json!({"EventId": self.put_event(&bus, &entry)}),
                    Err((code, message)) => {
                        failed += 1;
                        first.get_or_insert(code);
                        json!({"ErrorCode": code, "ErrorMessage": message})
                    }
                }
            })
            .collect();
        let request_id = self.uuid();
        let reply = Reply::Answer {
            status: 200,
            content_type: "application/x-amz-json-1.1",
            headers: vec![("x-amzn-requestid".to_owned(), request_id)],
            body: json!({"FailedEntryCount": failed, "Entries": answers}).to_string().into_bytes(),
        };
        (reply, first.unwrap_or("ok").to_owned())
    }
}

/// "For the JSON number (integer) data type, the constraints are: a minimum value of
/// -9,223,372,036,854,775,808 and a maximum value of 9,223,372,036,854,775,807" (M). With what
/// an entry beyond them is refused is not said; it is assumed to be malformed.
fn integers_are_taken(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().all(integers_are_taken),
        Value::Object(fields) => fields.values().all(integers_are_taken),
        // What is beyond 64 bits was read as a float, as a fraction is: the largest of these
        // count as integers.
        Value::Number(number) => {
            number.is_i64()
                || number.is_f64() && number.as_f64().is_some_and(|float| float.abs() < TOO_LARGE)
        }
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn refused(code: &str, message: Option<&str>) -> (Reply, String) {
    (json_error(SERVICE, code, message), code.to_owned())
}

impl PutEventsEntry {
    /// A name, or an ARN that ends in it.
    fn bus(&self) -> String {
        let bus = self.event_bus_name.as_deref().filter(|bus| !bus.is_empty());
        let bus = bus.unwrap_or(DEFAULT_BUS);
        bus.rsplit_once("event-bus/").map_or(bus, |(_, name)| name).to_owned()
    }

    /// As the user guide has it, "Calculating `PutEvents` event entry size".
    fn size(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let resources = self.resources.iter().flatten().map(String::len).sum::<usize>();
        let time = if self.time.is_some() { 14 } else { 0 };
        time + text(&self.source) + text(&self.detail_type) + text(&self.detail) + resources
    }

    fn check(self, now: Timestamp) -> Result<Entry, Refusal> {
        let required = |value: Option<String>, name: &str| {
            value.filter(|value| !value.is_empty()).ok_or_else(|| {
                let why = format!(
                    "Parameter {name} is not valid. Reason: {name} is a required argument."
                );
                ("InvalidArgument", why)
            })
        };
        let source = required(self.source, "Source")?;
        let detail_type = required(self.detail_type, "DetailType")?;
        let detail = required(self.detail, "Detail")?;
        // AWS's own sources are AWS's [EB].
        if source.starts_with("aws.") {
            return Err((
                "NotAuthorizedForSourceException",
                "Not authorized for the source.".to_owned(),
            ));
        }
        let detail = serde_json::from_str::<Value>(&detail)
            .ok()
            .filter(|detail| detail.is_object() && integers_are_taken(detail))
            .ok_or_else(|| ("MalformedDetail", "Detail is malformed.".to_owned()))?;
        let time = match self.time {
            Some(seconds) if seconds.is_finite() && seconds.abs() < 1e11 => {
                SignedDuration::try_from_secs_f64(seconds)
                    .ok()
                    .and_then(|since| Timestamp::from_duration(since).ok())
                    .unwrap_or(now)
            }
            _ => now,
        };
        Ok(Entry {
            source,
            detail_type,
            time,
            resources: self.resources.unwrap_or_default(),
            detail,
        })
    }
}
