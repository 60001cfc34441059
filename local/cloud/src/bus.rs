//! `EventBridge`: events arrive on a bus, rules match them, targets get them.
//!
//! ```text
//!  emit (EC2, EBS) ─ late, doubled ─┐
//!  put_events ──────────────────────┴► publish ─► Pending, one per target
//!    Pending ─ deliveries() ─► in flight ─ Ok ─► gone
//!       ▲                          ├─ Err ─► Pending, later
//!       └──────────────────────────┘    └──► dead letter
//! ```
//!
//! Between a rule and a function may be a queue: then what failed waits there, and longer.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::agenda::Work;
use crate::config::DEFAULT_BUS;
use crate::faults::{FaultAction, ON_BUS, ON_EVENT};
use crate::pattern::Pattern;
use crate::{Cloud, Target};

/// How late a delayed event is (docs/local.md leaves it open).
const FAULT_DELAY_MS: u64 = 120_000;
/// One event in this many comes twice: delivery is at least once (EB).
const DOUBLED: u32 = 16;
/// Lambda tries an asynchronous event again after one minute, then after
/// two (L).
const RETRY_MS: u64 = 60_000;

#[derive(Debug)]
pub(crate) struct CompiledRule {
    pub(crate) name: String,
    pub(crate) bus: String,
    pub(crate) pattern: Pattern,
    pub(crate) targets: Vec<Target>,
}

/// An event as `/_local/state` lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BusEvent {
    time: Timestamp,
    source: String,
    detail_type: String,
    detail: Value,
}

/// An event on its way to one target.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Pending {
    rule: String,
    function: String,
    event: Value,
    pub(crate) due: Timestamp,
    since: Timestamp,
    /// Tries that failed.
    tries: u32,
    retries: u32,
    /// For how many of AWS's seconds `EventBridge` tries. None: a queue keeps a message for
    /// longer than it takes to try it so often.
    max_age: Option<u64>,
    /// The queue in which it waits.
    #[serde(default)]
    queue: Option<Queued>,
}

/// What a queue does with a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Queued {
    arn: String,
    /// In AWS's seconds.
    hidden: u64,
}

/// An event that no try delivered.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct DeadLetter {
    at: Timestamp,
    rule: String,
    function: String,
    attempts: u32,
    reason: String,
    event: Value,
}

/// An event to hand to a function.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// For [`Cloud::delivered`].
    pub id: u64,
    /// The target.
    pub function: String,
    /// The rule that matched.
    pub rule: String,
    /// 1 for the first.
    pub attempt: u32,
    /// The event in `EventBridge`'s envelope.
    pub event: Value,
    /// The ARN of the queue that it comes from; None: from `EventBridge`.
    pub queue: Option<String>,
}

impl Delivery {
    /// What the function is invoked with: the event, or the queue's message with the event
    /// as its text (Lambda developer guide, "Using Lambda with Amazon SQS").
    pub fn payload(&self) -> Value {
        let Some(arn) = &self.queue else { return self.event.clone() };
        let region = arn.split(':').nth(3).unwrap_or_default();
        json!({"Records": [{
            "messageId": self.message_id(),
            "receiptHandle": self.id.to_string(),
            "body": self.event.to_string(),
            "attributes": {"ApproximateReceiveCount": self.attempt.to_string()},
            "messageAttributes": {},
            "eventSource": "aws:sqs",
            "eventSourceARN": arn,
            "awsRegion": region,
        }]})
    }

    /// How it ended, by what the function answered: of a queue's message whether it is among
    /// those that failed (Lambda developer guide, "Reporting batch item failures").
    pub fn outcome(&self, answered: &Value) -> Result<(), String> {
        let failures = answered["batchItemFailures"].as_array().into_iter().flatten();
        let failed = failures.map(|one| &one["itemIdentifier"]).any(|id| *id == self.message_id());
        if self.queue.is_some() && failed {
            return Err("the function says that it failed; its log says why".to_owned());
        }
        Ok(())
    }

    fn message_id(&self) -> String {
        format!("00000000-0000-4000-8000-{:012x}", self.id)
    }
}

impl Cloud {
    /// What is due and not being delivered. It is in flight from now on, until
    /// [`Cloud::delivered`] or a restart.
    pub fn deliveries(&mut self, now: Timestamp) -> Vec<Delivery> {
        self.advance(now);
        let mut due: Vec<(Timestamp, Delivery)> = self
            .deliveries
            .iter()
            .filter(|(id, pending)| pending.due <= self.now && !self.in_flight.contains(id))
            .map(|(id, pending)| {
                let delivery = Delivery {
                    id: *id,
                    function: pending.function.clone(),
                    rule: pending.rule.clone(),
                    attempt: pending.tries + 1,
                    event: pending.event.clone(),
                    queue: pending.queue.as_ref().map(|queue| queue.arn.clone()),
                };
                (pending.due, delivery)
            })
            .collect();
        due.sort_by_key(|(at, delivery)| (*at, delivery.id));
        self.in_flight.extend(due.iter().map(|(_, delivery)| delivery.id));
        due.into_iter().map(|(_, delivery)| delivery).collect()
    }

    /// How a delivery ended. An `Err` is tried again as the target says, then
    /// it is a dead letter with that reason.
    pub fn delivered(&mut self, now: Timestamp, id: u64, outcome: Result<(), String>) {
        self.advance(now);
        self.in_flight.remove(&id);
        let Some(mut pending) = self.deliveries.remove(&id) else { return };
        let Err(reason) = outcome else { return };
        pending.tries += 1;
        let wait = match &pending.queue {
            None => self.span(RETRY_MS * u64::from(pending.tries)),
            // From the end of the try, where SQS counts from its beginning: no sooner.
            Some(queue) => self.span(1_000 * queue.hidden),
        };
        pending.due = self.now + wait;
        let too_old = pending
            .max_age
            .filter(|age| pending.due > pending.since + self.span(age.saturating_mul(1_000)));
        let reason = match too_old {
            _ if pending.tries > pending.retries => reason,
            Some(age) => format!("older than {age} s at the next try; the last: {reason}"),
            None => {
                self.deliveries.insert(id, pending);
                return;
            }
        };
        self.dead.push(DeadLetter {
            at: self.now,
            rule: pending.rule,
            function: pending.function,
            attempts: pending.tries,
            reason,
            event: pending.event,
        });
    }

    /// How many events wait for their next try, however long, or are being tried.
    pub fn undecided(&self) -> usize {
        self.deliveries.iter().count()
    }

    /// One line for each event that a target has yet to get: on its way to
    /// the bus, waiting, or being delivered. One that waits for a time more
    /// than 60 s ahead is not listed.
    pub fn undelivered(&self) -> Vec<String> {
        let soon = self.now + SignedDuration::from_secs(60);
        let under_way =
            self.agenda.iter().filter(|(at, _)| *at <= soon).filter_map(|(at, work)| {
                let Work::Arrive { bus, event } = work else { return None };
                let wanted = self.rules.iter().any(|rule| rule.bus == *bus && rule.wants(event));
                wanted.then(|| format!("{} reaches bus {bus} at {at}", title(event)))
            });
        let waiting =
            self.deliveries.iter().filter(|(id, p)| p.due <= soon || self.in_flight.contains(id));
        let waiting = waiting.map(|(id, pending)| {
            let state = if self.in_flight.contains(id) {
                "being tried".to_owned()
            } else {
                format!("due at {}", pending.due)
            };
            format!(
                "{} for {} by rule {}, attempt {}, {state}",
                title(&pending.event),
                pending.function,
                pending.rule,
                pending.tries + 1,
            )
        });
        under_way.chain(waiting).collect()
    }

    /// The last 1,000 events that were given up, oldest first:
    /// `{at, rule, function, attempts, reason, event}`. Of one that a rule handed to the
    /// dead-letter queue itself the function is empty, and there were no attempts.
    pub fn dead_letters(&self) -> Value {
        self.dead.iter().map(|letter| json!(letter)).collect()
    }

    /// An event of EC2's or EBS's own: best effort, late, unordered, now and
    /// then twice (E), (EB).
    pub(crate) fn emit(&mut self, detail_type: &str, resources: Vec<String>, detail: Value) {
        let about: Vec<String> =
            resources.iter().filter_map(|arn| arn.rsplit('/').next()).map(str::to_owned).collect();
        let entry = Entry {
            source: "aws.ec2".to_owned(),
            detail_type: detail_type.to_owned(),
            time: self.now,
            resources,
            detail,
        };
        let event = self.envelope(&entry);
        let fault = self.strike_event(ON_EVENT, &about);
        let doubled = self.rng.u32(0..DOUBLED) == 0 || fault == Some(FaultAction::Double);
        let extra = match fault {
            Some(FaultAction::Delay) => self.span(FAULT_DELAY_MS),
            _ => SignedDuration::ZERO,
        };
        for _ in 0..if doubled { 2 } else { 1 } {
            // Drawn also for what is dropped: a fault shifts no other choice.
            let at = self.later(self.config.pace.event_delay_ms.clone()) + extra;
            if fault != Some(FaultAction::Drop) {
                let bus = DEFAULT_BUS.to_owned();
                self.plan(at, Work::Arrive { bus, event: event.clone() });
            }
        }
    }

    /// An event that someone put on a bus: there at once, unless a fault on
    /// the stack's bus has it otherwise. Gives the event's id.
    pub(crate) fn put_event(&mut self, bus: &str, entry: &Entry) -> String {
        let mut about = Vec::new();
        texts(&entry.detail, &mut about);
        about
            .extend(entry.resources.iter().filter_map(|r| r.rsplit('/').next()).map(str::to_owned));
        let event = self.envelope(entry);
        let id = event["id"].as_str().unwrap_or_default().to_owned();
        let fault =
            if bus == self.config.stack_bus { self.strike_event(ON_BUS, &about) } else { None };
        match fault {
            Some(FaultAction::Drop) => {}
            Some(FaultAction::Delay) => {
                let at = self.now + self.span(FAULT_DELAY_MS);
                self.plan(at, Work::Arrive { bus: bus.to_owned(), event });
            }
            Some(FaultAction::Double) => {
                self.publish(bus, &event);
                self.publish(bus, &event);
            }
            _ => self.publish(bus, &event),
        }
        id
    }

    fn strike_event(&mut self, on: &str, about: &[String]) -> Option<FaultAction> {
        use FaultAction::{Delay, Double, Drop};
        self.strike(on, about, &[Delay, Double, Drop]).map(|fault| fault.action)
    }

    /// The event is on the bus: each rule that matches has its targets get it.
    /// On a bus that does not exist it meets no rule.
    pub(crate) fn publish(&mut self, bus: &str, event: &Value) {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        if !self.quiet {
            self.events.push(BusEvent {
                time: self.now,
                source: text("source"),
                detail_type: text("detail-type"),
                detail: event["detail"].clone(),
            });
        }
        let matched: Vec<(String, Target)> = self
            .rules
            .iter()
            .filter(|rule| rule.bus == bus && rule.wants(event))
            .flat_map(|rule| rule.targets.iter().map(|target| (rule.name.clone(), target.clone())))
            .collect();
        for (rule, target) in matched {
            self.hand(rule, target, event);
        }
    }

    fn hand(&mut self, rule: String, target: Target, event: &Value) {
        let (function, retries, max_age, queue) = match target {
            Target::Function { function, retries, max_age } => {
                (function, retries, Some(max_age), None)
            }
            Target::Queue { arn, function, hidden, receives } => {
                (function, receives - 1, None, Some(Queued { arn, hidden }))
            }
            Target::DeadLetters => {
                let detail = &event["detail"];
                self.dead.push(DeadLetter {
                    at: self.now,
                    rule,
                    function: String::new(),
                    attempts: 0,
                    reason: detail["reason"].as_str().unwrap_or_default().to_owned(),
                    event: detail["event"].clone(),
                });
                return;
            }
        };
        let (event, due, since) = (event.clone(), self.now, self.now);
        let tries = 0;
        let pending = Pending { rule, function, event, due, since, tries, retries, max_age, queue };
        let id = self.number();
        self.deliveries.insert(id, pending);
    }

    fn envelope(&mut self, entry: &Entry) -> Value {
        json!({
            "version": "0",
            "id": self.uuid(),
            "detail-type": entry.detail_type,
            "source": entry.source,
            "account": self.config.account,
            "time": seconds(entry.time),
            "region": self.config.region,
            "resources": entry.resources,
            "detail": entry.detail,
        })
    }
}

/// What of an event its sender says.
pub(crate) struct Entry {
    pub(crate) source: String,
    pub(crate) detail_type: String,
    pub(crate) time: Timestamp,
    pub(crate) resources: Vec<String>,
    pub(crate) detail: Value,
}

impl CompiledRule {
    fn wants(&self, event: &Value) -> bool {
        self.pattern.matches(event)
    }
}

/// A time as events bear it: in whole seconds.
pub(crate) fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn title(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    format!("{} ({})", text("detail-type"), text("id"))
}

/// All texts in a detail: what a fault's `resource` is looked up in.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| texts(item, into)),
        Value::Object(fields) => fields.values().for_each(|item| texts(item, into)),
        _ => {}
    }
}
