//! The course of a run: what happens when, until all is at rest.
//!
//! ```text
//!   setup ─▶ busy: people, accidents, spells, faults ─▶ calm: nothing goes wrong
//!                                                        └▶ at rest: the oracle's last word
//!                                                            └▶ all deleted, at rest again
//! ```
//!
//! The driver sleeps until the next thing is due, which on a paused runtime takes
//! no time, and never holds the world while it does.

mod ticks;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backups_core::time::Time;
use cloud::{Cloud, Delivery};
use fastrand::Rng;
use futures_util::{FutureExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::brake;
use super::doing::Doing;
use super::functions::Functions;
use super::happenings::{self, Happening, Happens};
use super::herd;
use super::oracle::{Oracle, Violation};
use super::people::Person;
use super::plan::{Kind, Plan, Profile};
use super::restoring;
use super::scene::Scene;
use super::spells::Spell;
use super::templates;
use super::world::{Shared, World};
use super::{Outcome, Result};
use crate::{Failed, fail, rows};

/// How often an operator comes before the schedules are deleted.
const ROUNDS: u32 = 3;

/// The driver.
pub(super) struct Drive {
    pub(super) world: Shared,
    pub(super) functions: Arc<Functions>,
    seed: u64,
    /// What is still to come, the last one first.
    happenings: Vec<Happening>,
    next_tick: Timestamp,
    /// In which second of its minute each tick begins.
    tick_second: i64,
    /// People who do something now.
    people: Arc<std::sync::atomic::AtomicU32>,
    calm: bool,
    /// When the operator comes again, and how many orders there were.
    next_order: Timestamp,
    orders: usize,
    /// How often an operator has come.
    rounds: u32,
}

/// Runs a plan.
///
/// # Errors
/// The simulation itself cannot go on.
pub(crate) async fn run(plan: &Plan) -> Result<Outcome> {
    fastrand::seed(plan.seed);
    let profile = Profile::draw(plan);
    let template = templates::of(&profile.parameters)?;
    let epoch = profile.clocks.begin;
    let world = Shared::new(World::new(plan, profile, template)?);
    let functions = Arc::new(Functions::new(world.clone()));
    let mut drive = Drive {
        next_tick: epoch,
        tick_second: plan.herd.map_or(0, |herd| herd.tick_second),
        world: world.clone(),
        functions,
        seed: plan.seed,
        happenings: Vec::new(),
        people: Arc::default(),
        calm: false,
        next_order: epoch,
        orders: 0,
        rounds: 0,
    };
    drive.set_up(plan).await?;
    drive.go_on(plan).await?;
    let mut world = world.lock();
    let world = &mut *world;
    let down = world.oracle.last_downtime();
    let downtime = down.zip(world.watch.as_ref());
    let dead = rows::items(&world.cloud.dead_letters()).count();
    (0..dead).for_each(|_| world.reach.hit("dead letter"));
    Ok(Outcome {
        herd: world.herd.take().map(|ledger| ledger.measured(&world.table)),
        downtime: downtime.map(|((from, until), watch)| watch.downtime(from, until)),
        calls: world.calls,
        completed: world.reach.count("edge in_progress>completed"),
        happenings: happenings::count(plan, &world.profile),
        faults: world.dice.drawn(),
        reach: std::mem::take(&mut world.reach),
        violation: world.violation.clone(),
        trace: world.trace.take(),
        simulated: world.now().duration_since(epoch),
    })
}

impl Drive {
    /// The scene, and what will happen.
    async fn set_up(&mut self, plan: &Plan) -> Result<()> {
        let mut rng = Rng::with_seed(plan.seed ^ 0x7363_656e);
        let (profile, keys) = {
            let mut world = self.world.lock();
            let world = &mut *world;
            let now = world.now();
            let (scene, keys) = Scene::draw(
                &mut rng,
                world.profile.kind,
                &mut world.cloud,
                now,
                world.profile.span,
            );
            world.scene = scene;
            for one in &world.scene.deployments {
                let detail = one.changed(&world.scene.tenants[one.tenant].id);
                let kind = "Deployment Changed";
                control_plane(&mut world.cloud, &mut world.oracle, now, kind, &detail);
            }
            (world.profile.clone(), keys)
        };
        // The operator's own calls meet no fault, and neither do the registrations.
        let table = self.functions.operator()?;
        let now = Time::from_unix(self.world.lock().now().as_second());
        for key in keys {
            table.put_key(&key, now).await.map_err(|error| Failed(error.to_string()))?;
        }
        let side_by_side = if plan.herd.is_some() { herd::SIDE_BY_SIDE } else { 1 };
        self.deliver_registrations(side_by_side).await?;
        {
            let mut world = self.world.lock();
            if !profile.kind.is_long() {
                world.plant_reconciliation()?;
            }
            if profile.unreadable {
                world.plant_unreadable()?;
            }
            world.dice.begin();
            world.calls = 0;
        }
        if let Some(one) = plan.herd {
            self.set_schedules(one).await?;
        }
        let begin = self.world.lock().now();
        self.happenings = happenings::draw(plan, &profile, begin);
        Ok(())
    }

    /// The deployments are registered before anybody asks for anything.
    async fn deliver_registrations(&self, side_by_side: usize) -> Result<()> {
        let due = {
            let mut world = self.world.lock();
            let now = world.now();
            world.cloud.deliveries(now)
        };
        let deliver = |one: Delivery| async move {
            let answer = self.functions.worker(one.payload()).await?;
            let outcome = answer.and_then(|answer| one.outcome(&answer));
            let mut world = self.world.lock();
            let now = world.now();
            world.cloud.delivered(now, one.id, outcome);
            Ok(())
        };
        futures_util::stream::iter(due.into_iter().map(Ok))
            .try_for_each_concurrent(side_by_side, deliver)
            .await
    }

    /// The loop.
    async fn go_on(&mut self, plan: &Plan) -> Result<()> {
        let (begin, span) = {
            let world = self.world.lock();
            (world.now(), world.profile.span)
        };
        let mut calm_at = begin + span;
        let rest = self.world.lock().oracle.rest();
        let mut give_up = calm_at + rest;
        let mut clearing = false;
        loop {
            let now = {
                let world = self.world.lock();
                if world.violation.is_some() {
                    return Ok(());
                }
                world.now()
            };
            self.happen(now);
            if !self.calm && now >= calm_at && self.happenings.is_empty() {
                calm_at = now;
                give_up = self.calm_down(now).max(give_up);
            }
            self.deliver(now, plan);
            self.world.lock().watch();
            self.carry_out_late(now);
            self.operate(now);
            self.tick(now);
            if self.calm && self.resting() {
                let mut world = self.world.lock();
                let world = &mut *world;
                let verdict = world.oracle.at_rest(now, &world.cloud, &world.table, clearing);
                world.judge(verdict);
                if clearing || !world.profile.clear || world.violation.is_some() {
                    return Ok(());
                }
                clearing = true;
                give_up = now + rest;
                self.clear(world);
            }
            if now > give_up {
                let mut world = self.world.lock();
                let world = &mut *world;
                let what = world.oracle.unrest(&world.cloud, &world.table);
                world.judge(Err(Violation::new("rest", what)));
                return Ok(());
            }
            self.sleep(now, if self.calm { give_up } else { calm_at }).await;
        }
    }

    /// What is due now begins.
    fn happen(&mut self, now: Timestamp) {
        while self.happenings.last().is_some_and(|one| one.at <= now) {
            let Some(one) = self.happenings.pop() else { return };
            let mut rng = Rng::with_seed(
                self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(one.number),
            );
            match one.what {
                Happens::Doing(doing) => self.does(doing, rng),
                Happens::Accident(accident) => {
                    let world = self.world.clone();
                    self.spawn(async move {
                        // It waits for its moment, but not for ever.
                        for _ in 0..40 {
                            {
                                let mut world = world.lock();
                                let over = world.dice.is_calm();
                                if over || accident.happens(&mut world, &mut rng) {
                                    return Ok(());
                                }
                            }
                            if !accident.waits() {
                                return Ok(());
                            }
                            tokio::time::sleep(Duration::from_secs(rng.u64(20..600))).await;
                        }
                        Ok(())
                    });
                }
                Happens::Spell(trouble) => {
                    let swept = matches!(self.world.lock().profile.kind, Kind::Sweep(_));
                    let minutes = if swept { 3 } else { trouble.minutes(&mut rng) };
                    let until = now + SignedDuration::from_mins(minutes);
                    let mut world = self.world.lock();
                    world.trace.line(now, || format!("{} until {until}", trouble.line()));
                    world.spells.push(Spell { trouble, from: now, until, partial: rng.bool() });
                    drop(world);
                    if let Some(doing) = trouble.invites() {
                        self.does(doing, rng);
                    }
                }
                Happens::Brake(pull) => {
                    self.spawn(brake::pulled(self.world.clone(), pull));
                    // Or it would stand in nobody's way.
                    let restores = self.world.lock().profile.kind.has_restores();
                    self.does(pull.invites(restores), rng);
                }
            }
        }
    }

    /// Somebody does something.
    fn does(&self, doing: Doing, rng: Rng) {
        let (world, functions) = (self.world.clone(), Arc::clone(&self.functions));
        let person = Person { world, functions, rng };
        self.spawn(async move { person.does(doing).await });
    }

    /// Something goes on by itself.
    pub(super) fn spawn(&self, doing: impl Future<Output = Result<()>> + Send + 'static) {
        use std::sync::atomic::Ordering::Relaxed;
        let (people, world) = (Arc::clone(&self.people), self.world.clone());
        people.fetch_add(1, Relaxed);
        tokio::spawn(async move {
            let done = AssertUnwindSafe(doing).catch_unwind().await;
            let done = done.unwrap_or_else(|_| fail("it panicked"));
            people.fetch_sub(1, Relaxed);
            let mut world = world.lock();
            if let Err(Failed(why)) = done {
                world.judge(Err(Violation::new("simulation", why)));
            }
            world.wake.notify_one();
        });
    }

    /// When nothing goes wrong any more an operator looks after what is stuck, with one
    /// order after the other.
    fn operate(&mut self, now: Timestamp) {
        if !self.calm || now < self.next_order {
            return;
        }
        self.next_order = now + SignedDuration::from_mins(20);
        let order = restoring::ORDERS[self.orders % restoring::ORDERS.len()];
        self.rounds += 1;
        if self.rounds > ROUNDS {
            self.unschedule();
        }
        let mut world = self.world.lock();
        let stuck = world.oracle.stuck();
        // Each in its turn, however many are stuck: some get on by one of them alone.
        self.orders += usize::from(!stuck.is_empty());
        for key in stuck {
            restoring::order_restore(&mut world, key, order);
        }
    }

    /// What waits for a snapshot that stands still for days need not go on with all the
    /// rest: the schedules are deleted.
    fn unschedule(&self) {
        let all: Vec<(u64, usize)> = {
            let world = self.world.lock();
            let all = world.scene.deployments.iter().map(|one| (one.id, one.tenant));
            all.filter(|(id, _)| world.oracle.has_schedule(*id)).collect()
        };
        for (deployment, tenant) in all {
            let (world, functions) = (self.world.clone(), Arc::clone(&self.functions));
            let mut person = Person { world, functions, rng: Rng::with_seed(deployment) };
            self.spawn(async move { person.unschedule(deployment, tenant).await });
        }
    }

    /// From now on nothing goes wrong. Gives until when all must be at rest.
    fn calm_down(&mut self, now: Timestamp) -> Timestamp {
        self.calm = true;
        let mut world = self.world.lock();
        world.trace.line(now, || "calm".to_owned());
        world.dice.calm();
        world.spells.clear();
        let disabled: Vec<_> = world.cloud.disabled_keys().map(|(arn, _)| arn.to_owned()).collect();
        for arn in disabled {
            world.cloud.enable_key(now, &arn);
        }
        now.max(world.oracle.stalled_until()) + world.oracle.rest()
    }

    /// Every backup is deleted, by its owner.
    fn clear(&self, world: &mut World) {
        let all: Vec<(u64, usize, u64)> = world
            .scene
            .deployments
            .iter()
            .flat_map(|one| world.oracle.backups_of(one.id).map(|(id, _)| (one.id, one.tenant, id)))
            .collect();
        for (deployment, tenant, id) in all {
            let mut person = Person {
                world: self.world.clone(),
                functions: Arc::clone(&self.functions),
                rng: Rng::with_seed(id),
            };
            self.spawn(async move {
                // Who has no answer asks again, and so does who is told to come again: with
                // few requests a minute that takes a while.
                for _ in 0..20 {
                    let reply = person.delete(deployment, tenant, id).await?;
                    if reply.is_some_and(|reply| reply.status < 500 && reply.status != 429) {
                        break;
                    }
                }
                Ok(())
            });
        }
    }

    /// Calls that their callers gave up are carried out all the same.
    fn carry_out_late(&self, now: Timestamp) {
        let mut world = self.world.lock();
        let all = std::mem::take(&mut world.late);
        let (due, later) = all.into_iter().partition(|(at, _, _)| *at <= now);
        world.late = later;
        for (_, life, mut call) in due {
            world.carry_out(&life, &mut call, None);
        }
    }

    /// Whether nothing moves and nothing is on its way.
    fn resting(&self) -> bool {
        let people = self.people.load(std::sync::atomic::Ordering::Relaxed);
        let mut world = self.world.lock();
        let now = world.now();
        people == 0
            && world.running == 0
            && world.late.is_empty()
            && !world.oracle.moving(now)
            && world.oracle.stuck().is_empty()
            && world.cloud.undelivered().is_empty()
            && world.cloud.undecided() == 0
    }

    /// Until the next thing is due.
    async fn sleep(&self, now: Timestamp, at_most: Timestamp) {
        let (until, wake) = {
            let mut world = self.world.lock();
            let tick = self.tick_at(now, &world);
            let late = world.late.iter().map(|(at, _, _)| *at).min();
            let next = [world.cloud.next_due(), late, self.happenings.last().map(|one| one.at)];
            let next = next.into_iter().flatten().fold(tick, Timestamp::min);
            // What is past its time by less than tokio's millisecond.
            let until = next
                .min(at_most + SignedDuration::from_secs(1))
                .max(now + SignedDuration::from_millis(1));
            world.asleep_until = until;
            (until, Arc::clone(&world.wake))
        };
        let span = Duration::try_from(until.duration_since(now)).unwrap_or_default();
        tokio::select! {
            biased;
            () = wake.notified() => {}
            () = tokio::time::sleep_until(Instant::now() + span) => {}
        }
    }
}

/// The control plane puts an event on the stack's bus.
pub(crate) fn control_plane(
    cloud: &mut Cloud,
    oracle: &mut Oracle,
    now: Timestamp,
    detail_type: &str,
    detail: &Value,
) {
    oracle.control_plane_says(detail_type, detail);
    let entry = json!({
        "EventBusName": oracle.bus(),
        "Source": "supervisor.control-plane",
        "DetailType": detail_type,
        "Detail": detail.to_string(),
    });
    let body = json!({ "Entries": [entry] }).to_string();
    cloud.events(now, "AWSEvents.PutEvents", body.as_bytes());
}
