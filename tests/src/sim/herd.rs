//! Many schedules that are due in one minute: how long their `CreateSnapshots` take, and
//! what people wait for whose creates go past them.
//!
//! ```text
//!   N schedules PUT ─▶ slot ─▶ ticks release ─▶ CreateSnapshots, 100 and 5/s ─▶ events ─▶ at rest
//!                        └───▶ somebody creates a backup of another deployment, every 5 to 10 s
//! ```
//!
//! Nothing goes wrong but what EC2's own token buckets refuse. The oracle looks at each call
//! as in any run: that no set is taken twice and no slot is lost is its word, too.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloud::Reply;
use fastrand::Rng;
use futures_util::TryStreamExt as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::call::{Call, Service};
use super::drive::Drive;
use super::functions::Functions;
use super::people::Person;
use super::plan::Plan;
use super::scene::Key;
use super::table::Table;
use super::world::Shared;
use super::{Violation, run};
use crate::rows::{BackupKey, text};
use crate::{Result, fail};

/// How many are set up side by side.
pub(crate) const SIDE_BY_SIDE: usize = 64;

/// When all schedules are due, and not again for three hours: one of the oracle's.
const CRON: &str = "30 0-23/3 * * *";

/// From the beginning to that slot, in seconds.
const SLOT: i64 = 30 * 60;

/// How far apart the creates of people are, in milliseconds.
const APART: std::ops::RangeInclusive<u64> = 5_000..=10_000;

/// The bucket of `CreateSnapshots`: its tokens, and how many come back each second (EC2 API
/// reference, "Request throttling").
const BUCKET: (f64, f64) = (100.0, 5.0);

/// How much longer than the bucket itself the releases may take.
const MOST: f64 = 1.1;

/// Schedules that are due in one minute, each of a deployment of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Herd {
    /// How many.
    pub schedules: usize,
    /// In which second of its minute each tick begins: the slot is at 0.
    pub tick_second: i64,
    /// How many `CreateSnapshots` a minute others in the account make: they take their
    /// tokens out of the same bucket, until the herd is over.
    pub foreign: u64,
}

impl Herd {
    /// For how long after the slot people create backups: as long as the releases take.
    pub(super) fn busy(self) -> SignedDuration {
        SignedDuration::from_secs(i64::try_from(self.schedules).unwrap_or(0) * 60 / 285 + 60)
    }

    /// The deployments with a schedule, and one for each create of a person.
    pub(crate) fn deployments(self) -> usize {
        let people = self.busy().unsigned_abs().as_millis() / u128::from(*APART.start());
        self.schedules + usize::try_from(people).unwrap_or(0) + 1
    }

    /// How long it takes, until nobody comes any more.
    pub(crate) fn hours(self) -> i64 {
        1 + self.busy().as_hours()
    }
}

/// Lets a herd come, with nothing going wrong.
///
/// # Errors
/// The simulation cannot go on.
pub fn herd(herd: Herd, seed: u64) -> Result<(Measured, Option<Violation>)> {
    let outcome = run(&Plan { herd: Some(herd), ..Plan::of(seed) })?;
    match outcome.herd {
        Some(measured) => Ok((measured, outcome.violation)),
        None => fail("nothing was measured"),
    }
}

/// How often a call was made in one second, and how often EC2 throttled it.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    calls: u64,
    throttled: u64,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Ledger {
    herd: Herd,
    slot: Timestamp,
    /// When people's creates were answered with a backup.
    asked: BTreeMap<BackupKey, Timestamp>,
    /// Which of them people were refused.
    refused: u64,
    /// When `CreateSnapshots` was accepted, by backup.
    accepted: BTreeMap<BackupKey, Vec<Timestamp>>,
    /// From the slot on, by operation and second.
    calls: BTreeMap<(String, i64), Count>,
    invocations: u64,
    workers: u32,
}

impl Ledger {
    pub(crate) fn new(herd: Herd, epoch: Timestamp) -> Self {
        Self {
            herd,
            slot: epoch + SignedDuration::from_secs(SLOT),
            asked: BTreeMap::new(),
            refused: 0,
            accepted: BTreeMap::new(),
            calls: BTreeMap::new(),
            invocations: 0,
            workers: 0,
        }
    }

    /// An invocation begins, while so many of the worker are under way.
    pub(crate) fn invoked(&mut self, now: Timestamp, workers: u32) {
        if now >= self.slot {
            self.invocations += 1;
            self.workers = self.workers.max(workers);
        }
    }

    /// AWS has answered a call.
    pub(crate) fn note(&mut self, now: Timestamp, call: &Call, reply: &Reply) {
        let Reply::Answer { status, body, .. } = reply else { return };
        if call.service != Service::Ec2 || now < self.slot {
            return;
        }
        let second = now.duration_since(self.slot).as_secs();
        let count = self.calls.entry((call.operation.clone(), second)).or_default();
        count.calls += 1;
        let throttled = String::from_utf8_lossy(body).contains("RequestLimitExceeded");
        count.throttled += u64::from(*status >= 400 && throttled);
        if call.operation == "CreateSnapshots" && *status < 300 {
            self.accepted.entry(of(call)).or_default().push(now);
        }
    }

    /// What it came to, with the table as it is in the end.
    pub(crate) fn measured(self, table: &Table) -> Measured {
        let slot = self.slot.to_string();
        let (mut made, mut again, mut completed) = (BTreeMap::new(), 0, 0);
        let all = table.rows().iter().filter(|((_, sk), _)| sk.starts_with("BACKUP#"));
        let mut backups = 0;
        for (_, row) in all {
            backups += 1;
            completed += usize::from(text(row, "status") == "completed");
            if text(row, "schedule_slot") == slot {
                *made.entry(row["deployment_id"].as_u64()).or_insert(0) += 1;
            } else {
                // Of another slot there is none.
                again += usize::from(!row["schedule_slot"].is_null());
            }
        }
        again += made.values().filter(|count| **count > 1).count();
        let wait = |(key, at): (&BackupKey, &Timestamp)| {
            let first = self.accepted.get(key).and_then(|all| all.first())?;
            Some(first.duration_since(*at))
        };
        let mut waits: Vec<_> = self.asked.iter().filter_map(wait).collect();
        waits.sort_unstable();
        let theirs = |key: &&BackupKey| self.asked.contains_key(*key);
        let of_slots = self.accepted.iter().filter(|(key, _)| !theirs(key));
        let last = of_slots.filter_map(|(_, all)| all.last()).max();
        let operations =
            ["CreateSnapshots", "DescribeSnapshots", "DescribeInstances", "DescribeVolumes"];
        Measured {
            herd: self.herd,
            last: last.map_or(SignedDuration::MAX, |at| at.duration_since(self.slot)),
            made: made.len(),
            again,
            called_again: self.accepted.values().filter(|all| all.len() > 1).count(),
            uncalled: backups - self.accepted.len().min(backups),
            unfinished: backups - completed,
            asked: self.asked.len(),
            refused: self.refused,
            waits,
            rates: operations.map(|one| rate(one, &self.calls)).to_vec(),
            invocations: self.invocations,
            workers: self.workers,
        }
    }
}

/// Whose call it is, by its tags.
fn of(call: &Call) -> BackupKey {
    let tag = |name: &str| {
        let prefix = "TagSpecification.1.Tag.";
        let mut all = (1..=50).map(|number| format!("{prefix}{number}"));
        let found = all.find(|one| call.field(&format!("{one}.Key")) == name);
        found.and_then(|one| call.field(&format!("{one}.Value")).parse().ok()).unwrap_or(0)
    };
    (tag("ld:deployment"), tag("ld:backup"))
}

/// How often an operation was called.
#[derive(Debug, Clone)]
pub struct Rate {
    /// Which.
    pub operation: &'static str,
    /// How often in all.
    pub calls: u64,
    /// How often EC2 throttled it.
    pub throttled: u64,
    /// How often in a second, in the minute with the most.
    pub most: f64,
}

fn rate(operation: &'static str, calls: &BTreeMap<(String, i64), Count>) -> Rate {
    let (mut all, mut minutes) = (Count::default(), BTreeMap::new());
    for ((_, second), count) in calls.iter().filter(|((of, _), _)| of == operation) {
        all.calls += count.calls;
        all.throttled += count.throttled;
        *minutes.entry(second / 60).or_insert(0) += u32::try_from(count.calls).unwrap_or(0);
    }
    let most = f64::from(minutes.into_values().max().unwrap_or(0)) / 60.0;
    Rate { operation, calls: all.calls, throttled: all.throttled, most }
}

/// What came of a herd.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Which.
    pub herd: Herd,
    /// From the slot until the last `CreateSnapshots` of a schedule was accepted.
    pub last: SignedDuration,
    /// Schedules whose slot has made a backup.
    pub made: usize,
    /// Schedules whose slot has made more than one, and backups of other slots.
    pub again: usize,
    /// Backups of which more than one call was accepted.
    pub called_again: usize,
    /// Backups of which none was.
    pub uncalled: usize,
    /// Backups that are not completed.
    pub unfinished: usize,
    /// Creates of people that were taken.
    pub asked: usize,
    /// Creates of people that were refused.
    pub refused: u64,
    /// From the answer to each until its `CreateSnapshots` was accepted, the shortest first.
    pub waits: Vec<SignedDuration>,
    /// The calls of EC2 since the slot.
    pub rates: Vec<Rate>,
    /// Invocations of all functions, since the slot.
    pub invocations: u64,
    /// The most workers at a time.
    pub workers: u32,
}

impl Measured {
    /// Within how many seconds of the slot the last call must be accepted, of ten thousand:
    /// of some hundreds what each takes by itself counts for more.
    #[expect(clippy::cast_precision_loss, reason = "a count of schedules")]
    pub fn bound(&self) -> f64 {
        let (tokens, refill) = BUCKET;
        MOST * (self.herd.schedules as f64 - tokens) / refill
    }

    /// How long so many of a hundred people waited at most.
    fn wait(&self, percent: usize) -> SignedDuration {
        let at = (self.waits.len() * percent).div_ceil(100).max(1) - 1;
        self.waits.get(at).copied().unwrap_or_default()
    }

    /// What is not as it must be, with the last call accepted within `bound` seconds of the
    /// slot; empty if all is.
    pub fn faults(&self, bound: f64) -> Vec<String> {
        let mut faults = Vec::new();
        let mut must = |holds: bool, what: String| faults.extend((!holds).then_some(what));
        let last = self.last.as_secs_f64();
        must(last <= bound, format!("the last was accepted after {last:.1} s, not {bound:.1} s"));
        let without = self.herd.schedules - self.made.min(self.herd.schedules);
        must(without == 0, format!("{without} slots have made no backup"));
        must(self.again == 0, format!("{} slots have made more than one", self.again));
        must(self.called_again == 0, format!("{} backups were called twice", self.called_again));
        must(self.uncalled == 0, format!("{} backups were never called", self.uncalled));
        must(self.unfinished == 0, format!("{} backups did not complete", self.unfinished));
        must(self.refused == 0, format!("{} creates of people were refused", self.refused));
        must(self.waits.len() == self.asked, "a person still waits".to_owned());
        must(self.asked > 0, "nobody asked for a backup meanwhile".to_owned());
        faults
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |span: SignedDuration| span.as_secs_f64();
        writeln!(
            f,
            "{} schedules due at once, ticks at second {}: the last CreateSnapshots accepted {:.1} s after the slot (at most {:.1} s)",
            self.herd.schedules,
            self.herd.tick_second,
            seconds(self.last),
            self.bound(),
        )?;
        writeln!(
            f,
            "{} slots made a backup, {} more than one; {} backups called twice, {} never, {} not completed",
            self.made, self.again, self.called_again, self.uncalled, self.unfinished,
        )?;
        writeln!(
            f,
            "{} creates of people beside it ({} refused), from the answer to the accepted CreateSnapshots: p50 {:.1} s, p99 {:.1} s, at most {:.1} s",
            self.asked,
            self.refused,
            seconds(self.wait(50)),
            seconds(self.wait(99)),
            seconds(self.wait(100)),
        )?;
        for one in &self.rates {
            writeln!(
                f,
                "{}: {} calls, {} of them throttled, {:.1} a second in the fullest minute",
                one.operation, one.calls, one.throttled, one.most,
            )?;
        }
        write!(f, "{} invocations, at most {} workers at a time", self.invocations, self.workers)
    }
}

impl Drive {
    /// Sets the schedules, before they are due, and has people come when they are.
    pub(super) async fn set_schedules(&self, herd: Herd) -> Result<()> {
        let all: Vec<(u64, usize)> = {
            let world = self.world.lock();
            world.scene.deployments.iter().map(|one| (one.id, one.tenant)).collect()
        };
        let (scheduled, others) = all.split_at(herd.schedules.min(all.len()));
        let set = |(deployment, tenant): (u64, usize)| async move {
            let (world, functions) = (self.world.clone(), Arc::clone(&self.functions));
            let mut person = Person { world, functions, rng: Rng::with_seed(deployment) };
            let reply = person.set_schedule(deployment, tenant, &json!({ "cron": CRON })).await?;
            if reply.as_ref().is_some_and(|reply| reply.status == 204) {
                return Ok(());
            }
            fail(format!("the schedule of {deployment} was not set: {reply:?}"))
        };
        futures_util::stream::iter(scheduled.iter().copied().map(Ok))
            .try_for_each_concurrent(SIDE_BY_SIDE, set)
            .await?;
        let until = {
            let world = self.world.lock();
            (world.epoch() + SignedDuration::from_secs(SLOT)).duration_since(world.now())
        };
        let Ok(until) = Duration::try_from(until) else {
            return fail("the schedules were not set before their slot");
        };
        let (world, functions) = (self.world.clone(), Arc::clone(&self.functions));
        let others = others.to_vec();
        self.spawn(async move {
            tokio::time::sleep(until).await;
            come(&world, &functions, &others, herd.busy().unsigned_abs()).await
        });
        if let Some(apart) = 60_000_u64.checked_div(herd.foreign) {
            let world = self.world.clone();
            self.spawn(async move {
                tokio::time::sleep(until).await;
                take_tokens(&world, Duration::from_millis(apart)).await;
                Ok(())
            });
        }
        Ok(())
    }
}

/// Others in the account call `CreateSnapshots`, until all of the herd's were accepted.
async fn take_tokens(world: &Shared, apart: Duration) {
    loop {
        {
            let mut world = world.lock();
            let world = &mut *world;
            let now = world.now();
            // It takes its token before it is refused for what is missing.
            world.cloud.ec2(now, b"Action=CreateSnapshots&Version=2016-11-15");
            let over = |one: &Ledger| one.accepted.len() >= one.herd.schedules + one.asked.len();
            if world.violation.is_some() || world.herd.as_ref().is_none_or(over) {
                return;
            }
        }
        tokio::time::sleep(apart).await;
    }
}

/// People come, one after the other, and each creates a backup of a deployment of their own.
async fn come(
    world: &Shared,
    functions: &Arc<Functions>,
    deployments: &[(u64, usize)],
    busy: Duration,
) -> Result<()> {
    let mut rng = Rng::with_seed(deployments.len() as u64);
    let begin = tokio::time::Instant::now();
    for (deployment, tenant) in deployments {
        tokio::time::sleep(Duration::from_millis(rng.u64(APART))).await;
        if begin.elapsed() > busy {
            break;
        }
        let (world, functions) = (world.clone(), Arc::clone(functions));
        let mut person = Person { world: world.clone(), functions, rng: rng.fork() };
        let name = world.lock().scene.name();
        let body = json!({ "name": name });
        // Each is done within the second.
        let reply = person.post(*deployment, *tenant, Key::Manage, &name, &body).await?;
        let id = reply.filter(|reply| reply.status == 204).and_then(|reply| reply.backup());
        let mut world = world.lock();
        let now = world.now();
        if let Some(ledger) = &mut world.herd {
            match id {
                Some(id) => _ = ledger.asked.insert((*deployment, id), now),
                None => ledger.refused += 1,
            }
        }
    }
    Ok(())
}
