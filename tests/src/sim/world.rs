//! Everything that the functions' calls reach, under one lock, and what is known
//! of the run: the simulated AWS, the table, the faults, the oracle, the counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloud::{Admission, Cloud, FaultAction, FaultSpec, Reply};
use jiff::Timestamp;
use local::Template;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::accidents;
use super::call::{self, Call, Service};
use super::dice::{Dice, Verdict};
use super::life::Life;
use super::oracle::{self, Oracle, Violation};
use super::plan::{Fault, Plan, Profile};
use super::reach::Reach;
use super::scene::Scene;
use super::spells::{Spell, Trouble};
use super::table::{self, Stale, Table};
use super::trace::Trace;
use crate::{Failed, Result};

/// When every simulation begins. A winter day; no schedule depends on it.
const EPOCH: Timestamp = Timestamp::constant(1_893_456_000, 0);

/// The world, shared by all that runs.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(crate) fn new(world: World) -> Self {
        Self(Arc::new(Mutex::new(world)))
    }

    /// The world. Never held across an await: the runtime has one thread.
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) cloud: Cloud,
    pub(crate) table: Table,
    pub(crate) scene: Scene,
    pub(crate) dice: Dice,
    pub(crate) spells: Vec<Spell>,
    pub(crate) oracle: Oracle,
    pub(crate) reach: Reach,
    pub(crate) trace: Trace,
    pub(crate) profile: Profile,
    pub(crate) template: Arc<Template>,
    /// The first thing that should never be.
    pub(crate) violation: Option<Violation>,
    /// Calls that the functions made.
    pub(crate) calls: u64,
    /// Invocations under way.
    pub(crate) running: u32,
    /// Calls that were given up and are yet to be carried out.
    pub(crate) late: Vec<(Timestamp, Arc<Life>, Call)>,
    /// Told when something is due sooner than the driver sleeps.
    pub(crate) wake: Arc<Notify>,
    /// Until when the driver sleeps.
    pub(crate) asleep_until: Timestamp,
    /// How often the tags of ours are copied as soon as they can be.
    pub(crate) copies: u32,
    start: Instant,
}

impl World {
    pub(crate) fn new(plan: &Plan, profile: Profile, template: Arc<Template>) -> Result<Self> {
        let mut config = local::config(&template, 1.0);
        config.pace = profile.pace.clone();
        let mut cloud = Cloud::new(config, plan.seed, EPOCH);
        cloud.quiet();
        Ok(Self {
            cloud,
            table: Table::new(&template, profile.stale)?,
            scene: Scene::default(),
            dice: Dice::new(plan.seed, &profile, plan.crash, plan.unstruck.clone()),
            spells: Vec::new(),
            oracle: Oracle::new(&template, &profile),
            reach: Reach::default(),
            trace: Trace::new(plan.trace),
            profile,
            template,
            violation: None,
            calls: 0,
            running: 0,
            late: Vec::new(),
            wake: Arc::default(),
            asleep_until: EPOCH,
            copies: u32::from(plan.seed % 4 == 1),
            start: Instant::now(),
        })
    }

    /// The time by no function's clock.
    pub(crate) fn now(&self) -> Timestamp {
        // Spans of a run are weeks.
        EPOCH + jiff::SignedDuration::try_from(self.start.elapsed()).unwrap_or_default()
    }

    /// When tokio's clock showed [`World::epoch`].
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    pub(crate) fn epoch() -> Timestamp {
        EPOCH
    }

    /// Notes what should never be; the first is kept, and ends the run.
    pub(crate) fn judge(&mut self, verdict: oracle::Verdict) {
        let Err(violation) = verdict else { return };
        let now = self.now();
        self.trace.line(now, || format!("VIOLATION {violation}"));
        if self.violation.is_none() {
            self.violation = Some(violation);
            self.wake.notify_one();
        }
    }

    /// A call is sent: what becomes of it.
    pub(crate) fn send(&mut self, life: &Arc<Life>, call: &mut Call) -> Verdict {
        let number = self.calls;
        self.calls += 1;
        call.number = number;
        let now = self.now();
        let mut cast = self.dice.cast(number, call.kind());
        // Trouble on one node, and no word from the other: the worst of both.
        let spared = self
            .spells
            .iter()
            .any(|spell| spell.is_on(spell.trouble, now) && spell.spares(call) && call.ec2_write());
        if spared && cast.fault.is_none() && self.dice.happens(5_000) {
            cast.fault = Some(Fault::ReplyLost);
        }
        self.trace.line(now, || format!("{life} #{number} > {}", call.told()));
        if let Some(fault) = cast.fault {
            self.reach.hit(fault.line());
            self.trace.line(now, || format!("{life} #{number} {}", fault.line()));
            life.disturb();
        }
        // What never leaves the machine is no call.
        if !matches!(cast.fault, Some(Fault::CrashBefore | Fault::Refused)) {
            let Self { oracle, cloud, table, .. } = self;
            let verdict = oracle.sent(now, life, call, cloud, table);
            self.judge(verdict);
        }
        cast
    }

    /// AWS carries out the call, or refuses it.
    pub(crate) fn carry_out(
        &mut self,
        life: &Arc<Life>,
        call: &mut Call,
        fault: Option<Fault>,
    ) -> Reply {
        let now = self.now();
        let code = self.refusal(now, life, call, fault);
        let reply = match call.service {
            Service::Ec2 => self.ec2(now, call, code, fault),
            Service::Events => self.events(now, call, code, fault),
            Service::DynamoDb => self.dynamo(now, life, call, code),
        };
        let number = call.number;
        self.trace.line(now, || format!("{life} #{number} < {}", told(&reply)));
        if let Reply::Answer { status, body, .. } = &reply {
            let done = (200..300).contains(status);
            let Self { oracle, cloud, table, reach, .. } = self;
            let verdict = oracle.carried_out(now, life, call, done, body, cloud, table, reach);
            self.judge(verdict);
        }
        self.wake_if_sooner();
        reply
    }

    /// The code with which the call is refused, if it is.
    fn refusal(
        &mut self,
        now: Timestamp,
        life: &Life,
        call: &Call,
        fault: Option<Fault>,
    ) -> Option<&'static str> {
        let mut spells = self.spells.iter();
        let spell = spells.find_map(|spell| Some((spell.trouble, spell.refuses(call, now)?)));
        if let Some((trouble, code)) = spell {
            self.reach.hit(trouble.line());
            self.oracle.met(trouble, now);
            life.disturb();
            return Some(code);
        }
        match (fault?, call.service) {
            (Fault::Throttled, Service::Ec2) => Some("RequestLimitExceeded"),
            (Fault::Throttled, Service::Events) => Some("ThrottlingException"),
            (Fault::Throttled, Service::DynamoDb) => Some("ProvisionedThroughputExceededException"),
            (Fault::Error5xx, Service::Ec2) => Some("InternalError"),
            (Fault::Error5xx, Service::Events) => Some("InternalException"),
            (Fault::Error5xx, Service::DynamoDb) => Some("InternalServerError"),
            (Fault::Conflict, _) if call.operation == "TransactWriteItems" => {
                Some("TransactionCanceledException")
            }
            (Fault::Conflict, _) => Some("TransactionConflictException"),
            _ => None,
        }
    }

    fn ec2(
        &mut self,
        now: Timestamp,
        call: &Call,
        code: Option<&str>,
        fault: Option<Fault>,
    ) -> Reply {
        if let Some(code) = code {
            self.arm(&call.operation, code);
        }
        let mut reply = self.cloud.ec2(now, &call.body);
        self.cloud.clear_faults();
        // Only what has been there for long: a list that leaves out a snapshot
        // that is being deleted would be right before its time.
        let old = |id| self.cloud.snapshot(id).is_none_or(|one| one.state == "completed");
        let empty = self.spells.iter().any(|spell| spell.is_on(Trouble::ListsNothing, now));
        if empty && call.named().next().is_some() && call.named().all(old) {
            leave_out(&mut reply);
            self.reach.hit(Trouble::ListsNothing.line());
            self.oracle.met(Trouble::ListsNothing, now);
        } else if self.lags(call, &reply) {
            self.reach.hit("fault describe_lag");
        }
        let unheard = matches!(
            fault,
            Some(
                Fault::CrashAfter
                    | Fault::ReplyLost
                    | Fault::TimedOutApplied
                    | Fault::Error5xxApplied
            )
        );
        if unheard && self.copies > 0 && call.operation == "CreateSnapshots" {
            self.copy_tags(now, &reply);
        }
        reply
    }

    /// Whether a list shows what is no more, or not yet what is.
    fn lags(&self, call: &Call, reply: &Reply) -> bool {
        let Reply::Answer { status: 200, body, .. } = reply else { return false };
        let text = String::from_utf8_lossy(body);
        // Of one page of several nobody knows what it should have.
        let paged = text.contains("<nextToken>") || !call.field("NextToken").is_empty();
        let there = |id: &str| self.cloud.snapshot(id).is_some_and(|one| one.exists);
        !paged && call.named().any(|id| there(id) != text.contains(id))
    }

    /// A tool takes a snapshot of its own right after a set of ours, and copies
    /// the tags of ours.
    fn copy_tags(&mut self, now: Timestamp, reply: &Reply) {
        let Reply::Answer { status: 200, body, .. } = reply else { return };
        let ids = call::snapshot_ids(body);
        if let Some(what) = ids.first().and_then(|id| accidents::copy(self, now, id)) {
            self.copies -= 1;
            self.reach.hit("accident tags_copied");
            self.trace.line(now, || format!("accident tags_copied: {what}"));
        }
    }

    /// Rows in each shard of the due index that this release does not know.
    pub(crate) fn plant_unreadable(&mut self) -> Result<()> {
        let environment = &self.template.function(local::Name::Worker).map_err(Failed)?.environment;
        let shards = environment.get("DUE_SHARDS").and_then(|text| text.parse().ok()).unwrap_or(1);
        for shard in 0..shards {
            let item = json!({
                "pk": {"S": "DEPLOYMENT#1"},
                "sk": {"S": format!("NEWS#{shard}")},
                "due_shard": {"N": u32::to_string(&shard)},
                "due_at": {"S": EPOCH.to_string()},
            });
            self.table.plant(item)?;
            self.reach.hit("turn unreadable row planted");
        }
        Ok(())
    }

    fn events(
        &mut self,
        now: Timestamp,
        call: &mut Call,
        code: Option<&str>,
        fault: Option<Fault>,
    ) -> Reply {
        const TARGET: &str = "AWSEvents.PutEvents";
        if let Some(code) = code {
            self.arm(&call.operation, code);
        }
        let entries = call.json["Entries"].as_array().cloned().unwrap_or_default();
        if fault != Some(Fault::EntriesRefused) || entries.is_empty() {
            let reply = self.cloud.events(now, TARGET, &call.body);
            self.cloud.clear_faults();
            return reply;
        }
        // The bus takes some and refuses the others, with a 200 (EventBridge API
        // reference, `PutEvents`).
        let refused: Vec<bool> = {
            let first = self.dice.rng().usize(0..entries.len());
            (0..entries.len()).map(|at| at == first || self.dice.rng().bool()).collect()
        };
        let taken: Vec<&Value> =
            entries.iter().zip(&refused).filter(|(_, no)| !**no).map(|(entry, _)| entry).collect();
        if !taken.is_empty() {
            let body = json!({ "Entries": taken }).to_string();
            self.cloud.events(now, TARGET, body.as_bytes());
        }
        let mut accepted = Vec::new();
        let answers: Vec<Value> = entries
            .iter()
            .zip(&refused)
            .map(|(entry, no)| {
                if *no {
                    json!({"ErrorCode": "InternalFailure", "ErrorMessage": "Try again."})
                } else {
                    accepted.push(entry.clone());
                    json!({"EventId": format!("taken-{}", accepted.len())})
                }
            })
            .collect();
        call.json["Entries"] = Value::Array(accepted);
        let failed = refused.iter().filter(|no| **no).count();
        answer(200, &json!({"FailedEntryCount": failed, "Entries": answers}))
    }

    fn dynamo(
        &mut self,
        now: Timestamp,
        life: &Life,
        call: &mut Call,
        code: Option<&str>,
    ) -> Reply {
        if let Some(code) = code {
            return match code {
                "TransactionCanceledException" => self.canceled(call),
                code => self.refuse(now, &call.operation, code),
            };
        }
        let stale = self.table.may_be_stale(&call.operation, &call.json);
        let lag = match stale {
            Some(_) if self.dice.happens(1_000) => Some(self.dice.millis(50..=20_000)),
            _ => None,
        };
        let done = match (lag, stale) {
            (Some(lag), Some(stale)) => {
                let of = match stale {
                    Stale::Index => "fault stale_index",
                    Stale::Read => "fault stale_read",
                };
                self.reach.hit(of);
                self.trace.line(now, || format!("{life} {of}"));
                let until = now - jiff::SignedDuration::try_from(lag).unwrap_or_default();
                Ok((self.table.stale(call, until), Vec::new()))
            }
            _ => self.table.call(call, now),
        };
        let (found, changes) = match done {
            Ok(done) => done,
            Err(Failed(why)) => {
                self.judge(Err(Violation::new("simulation", why)));
                return Reply::Hang;
            }
        };
        let body = if self.trace.kept() {
            // dynoxide writes a map in any order.
            let body: Value = serde_json::from_str(&found.body).unwrap_or_default();
            body.to_string()
        } else {
            found.body
        };
        self.changed(now, life, &changes);
        Reply::Answer {
            status: found.status,
            content_type: "application/x-amz-json-1.0",
            headers: Vec::new(),
            body: body.into_bytes(),
        }
    }

    fn changed(&mut self, now: Timestamp, life: &Life, changes: &[table::Change]) {
        for change in changes {
            self.trace.line(now, || {
                let show = |row: &Option<table::RowRef>| {
                    row.as_ref().map_or("nothing".to_owned(), ToString::to_string)
                };
                format!(
                    "{life} row {:?}: {} is {}",
                    change.key,
                    show(&change.old),
                    show(&change.new)
                )
            });
        }
        let Self { oracle, cloud, table, reach, .. } = self;
        let verdict = oracle.changed(now, life, changes, cloud, table, reach);
        self.judge(verdict);
    }

    /// A transaction that met another one on one of its rows.
    fn canceled(&mut self, call: &Call) -> Reply {
        let items = call.json["TransactItems"].as_array().map_or(0, Vec::len);
        let at = self.dice.rng().usize(0..items.max(1));
        let reasons: Vec<Value> = (0..items)
            .map(|item| {
                let code = if item == at { "TransactionConflict" } else { "None" };
                json!({ "Code": code })
            })
            .collect();
        answer(
            400,
            &json!({
                "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
                "Message": "Transaction cancelled, please refer cancellation reasons for specific reasons",
                "CancellationReasons": reasons,
            }),
        )
    }

    fn refuse(&mut self, now: Timestamp, operation: &str, code: &str) -> Reply {
        self.arm(operation, code);
        let admission = self.cloud.admit(now, "dynamodb", operation, &[]);
        self.cloud.clear_faults();
        match admission {
            Admission::Refuse(reply) => reply,
            _ => answer(500, &json!({"__type": "InternalServerError"})),
        }
    }

    fn arm(&mut self, operation: &str, code: &str) {
        let fault = FaultSpec {
            on: operation.to_owned(),
            action: FaultAction::Error,
            code: Some(code.to_owned()),
            times: 1,
            resource: None,
        };
        if let Err(why) = self.cloud.arm(fault) {
            self.judge(Err(Violation::new("simulation", why)));
        }
    }

    /// Tells the driver that something is due before it wakes by itself.
    pub(crate) fn wake_if_sooner(&mut self) {
        if self.cloud.next_due().is_some_and(|at| at < self.asleep_until) {
            self.wake.notify_one();
        }
    }
}

fn answer(status: u16, body: &Value) -> Reply {
    Reply::Answer {
        status,
        content_type: "application/x-amz-json-1.0",
        headers: Vec::new(),
        body: body.to_string().into_bytes(),
    }
}

/// A list of snapshots as EC2 gives it when it finds none.
fn leave_out(reply: &mut Reply) {
    let Reply::Answer { status: 200, body, .. } = reply else { return };
    let text = String::from_utf8_lossy(body).into_owned();
    let (begin, end) = ("<snapshotSet>", "</snapshotSet>");
    if let (Some(from), Some(to)) = (text.find(begin), text.find(end)) {
        let mut text = text;
        text.replace_range(from + begin.len()..to, "");
        *body = text.into_bytes();
    }
}

fn told(reply: &Reply) -> String {
    match reply {
        Reply::Answer { status, body, .. } => {
            format!("{status} {}", String::from_utf8_lossy(body))
        }
        Reply::LoseReply => "the reply is lost".to_owned(),
        Reply::Hang => "no answer".to_owned(),
    }
}
