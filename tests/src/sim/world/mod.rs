//! Everything that the functions' calls reach, under one lock, and what is known
//! of the run: the simulated AWS, the table, the faults, the oracle, the counts.

mod dynamo;
mod ec2;
mod events;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cloud::{Cloud, FaultAction, FaultSpec, Reply};
use jiff::Timestamp;
use local::Template;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::call::{Call, Service};
use super::dice::{Dice, Verdict};
use super::downtime::Watch;
use super::herd::Ledger;
use super::life::Life;
use super::logs::has_secret;
use super::oracle::{self, Oracle, Violation};
use super::plan::{Fault, Plan, Profile};
use super::reach::{self, Reach};
use super::scene::Scene;
use super::spells::Spell;
use super::table::Table;
use super::trace::Trace;
use crate::Result;

/// No run makes so many calls: some six thousand are the most that was seen.
const MOST: u64 = 30_000;

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
    /// What instances and attachments were, if that matters.
    pub(crate) watch: Option<Watch>,
    /// What is counted of a herd, if there is one.
    pub(crate) herd: Option<Ledger>,
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
    /// An invocation has crashed.
    pub(crate) crashed: bool,
    /// The newest event that was handed over.
    newest: u64,
    /// Workers under way.
    pub(crate) workers: u32,
    seed: u64,
    /// How many rows this release could not read.
    unreadable: u32,
    /// Transactions that were carried out, and whose reply was lost.
    unheard: BTreeSet<String>,
    start: Instant,
}

impl World {
    pub(crate) fn new(plan: &Plan, profile: Profile, template: Arc<Template>) -> Result<Self> {
        let mut config = local::config(&template, 1.0);
        config.pace = profile.pace.clone();
        let epoch = profile.clocks.begin;
        let mut cloud = Cloud::new(config, plan.seed, epoch);
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
            watch: plan.nodes.map(|_| Watch::default()),
            herd: plan.herd.map(|herd| Ledger::new(herd, epoch)),
            calls: 0,
            running: 0,
            late: Vec::new(),
            wake: Arc::default(),
            asleep_until: epoch,
            copies: u32::from(plan.seed % 4 == 1),
            crashed: false,
            newest: 0,
            workers: 0,
            seed: plan.seed,
            unreadable: 0,
            unheard: BTreeSet::new(),
            start: Instant::now(),
        })
    }

    /// The time by no function's clock.
    pub(crate) fn now(&self) -> Timestamp {
        // Spans of a run are weeks.
        self.epoch() + jiff::SignedDuration::try_from(self.start.elapsed()).unwrap_or_default()
    }

    /// When tokio's clock showed [`World::epoch`].
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// When the run began.
    pub(crate) fn epoch(&self) -> Timestamp {
        self.profile.clocks.begin
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

    /// An event is handed over, in whatever order.
    pub(crate) fn hand_over(&mut self, event: u64) {
        if event < self.newest {
            self.reach.hit("fault event_reordered");
        }
        self.newest = self.newest.max(event);
    }

    /// A call is sent: what becomes of it.
    pub(crate) fn send(&mut self, life: &Arc<Life>, call: &mut Call) -> Verdict {
        let number = self.calls;
        self.calls += 1;
        if number == MOST && self.herd.is_none() {
            self.judge(Err(Violation::new("storm", format!("{MOST} calls, and no end"))));
        }
        call.number = number;
        // What the SDK draws by itself, and not in each process alike, shifts nothing
        // beyond its own call.
        fastrand::seed(self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let now = self.now();
        let quick = call.service != Service::Ec2;
        let mut cast = self.dice.cast(number, call.kind(), quick);
        // Trouble on one node, and no word from the other: the worst of both.
        let spared = self
            .spells
            .iter()
            .any(|spell| spell.is_on(spell.trouble, now) && spell.spares(call) && call.ec2_write());
        if spared && cast.fault.is_none() && self.dice.happens(5_000) {
            cast.fault = Some(Fault::ReplyLost);
        }
        cast.fault = self.asked_again(call, cast.fault);
        let mut spells = self.spells.iter().filter(|spell| spell.is_on(spell.trouble, now));
        let slow = spells.find_map(|one| Some((one.trouble, one.trouble.slows(call.service)?)));
        if let Some((trouble, span)) = slow {
            cast.there = self.dice.millis(span);
            self.reach.hit(trouble.line());
            self.oracle.met(trouble, now);
            life.disturb();
        }
        self.trace.line(now, || format!("{life} #{number} > {}", call.told()));
        if let Some(fault) = cast.fault {
            if !fault.is_of_the_answer() {
                self.reach.hit(&reach::of_call(&call.operation, fault.name()));
            }
            self.trace.line(now, || format!("{life} #{number} fault {}", fault.name()));
            self.crashed |= fault.is_crash();
            life.disturb();
        }
        // Of a key nothing leaves the API but what it hashes to.
        if has_secret(&call.body) {
            self.judge(Err(Violation::new("secret", format!("{life} sends {}", call.told()))));
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
            Service::DynamoDb => self.dynamo(now, life, call, code, fault),
        };
        let number = call.number;
        self.trace.line(now, || format!("{life} #{number} < {}", told(&reply)));
        if let Some(ledger) = &mut self.herd {
            ledger.note(now, call, &reply);
        }
        if let Reply::Answer { status, body, .. } = &reply {
            let done = (200..300).contains(status);
            let Self { oracle, cloud, table, reach, .. } = self;
            let verdict = oracle.carried_out(now, life, call, done, body, cloud, table, reach);
            self.judge(verdict);
        }
        self.wake_if_sooner();
        self.watch();
        reply
    }

    /// Notes what EC2 has come to, if that matters.
    pub(crate) fn watch(&mut self) {
        let now = self.now();
        if let Some(watch) = &mut self.watch {
            watch.look(now, &self.cloud);
        }
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
        let code = match (fault?, call.service) {
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
            (Fault::InProgress, _) => Some("TransactionInProgressException"),
            _ => None,
        };
        if code.is_some() {
            self.struck(call, fault?);
        }
        code
    }

    /// A fault has changed what AWS answers.
    fn struck(&mut self, call: &Call, fault: Fault) {
        self.reach.hit(&reach::of_call(&call.operation, fault.name()));
    }

    /// The next such call is refused with this code.
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

fn told(reply: &Reply) -> String {
    match reply {
        Reply::Answer { status, body, .. } => {
            format!("{status} {}", String::from_utf8_lossy(body))
        }
        Reply::LoseReply => "the reply is lost".to_owned(),
        Reply::Hang => "no answer".to_owned(),
    }
}
